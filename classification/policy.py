"""The models that are adapted: a CLIP as a classifier whose prompt, or whose image encoder, can be tuned.

Source: official TPT/clip/custom_clip.py.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from classification.prompt_learner import ConditionalContext, PromptLearner
from classification.seen import Views
from clipscore.clip_model import ClipModel
from clipscore.lean_blocks import Copies
from clipscore.reward import resize_images
from clipscore.task import Tunable
from clipscore.text_encoder import encode_prompts

Mode = Literal["source", "adapting", "adapted"]


class Policy(Tunable, Protocol):
    """A classifier with something to tune."""

    clip: ClipModel

    @property
    def couples_views(self) -> bool: ...  # whether one view's logits depend on the other views (BatchNorm)

    def prepare(self, views: Views) -> Tensor:
        """What can be computed once per image. -> [N, ...]"""

    def logits(self, inputs: Tensor, at_start: bool = False) -> Tensor:
        """Logits of prepared views; at_start: there was no update since they were prepared. [N, ...] -> [N, C]"""

    def class_features(self, at_start: bool = False) -> Tensor:
        """Unit-length text features of the classes; at_start as in `logits`. [C, D]"""

    def set_mode(self, mode: Mode) -> None:
        """Switch between predicting with the source weights, adapting, and predicting with the adapted ones."""

    def limit_classes(self, most: int | None) -> None:
        """No loss will depend on more classes than this; None: any number of them."""


class FeaturePolicy:
    """Classifies by cosines with class features, which may be tuned; the image features are computed once."""

    couples_views = False
    written: Sequence[str] = ()
    copies: Copies = []
    clip: ClipModel
    used_class_features: Tensor | None = None  # those of the last logits, with their gradient. [C, D]

    def prepare(self, views: Views) -> Tensor:
        """Unit-length image features [N, D]"""
        return views.features

    def logits(self, inputs: Tensor, at_start: bool = False) -> Tensor:
        """[N, D] -> [N, C]"""
        self.used_class_features = None  # so that the last graph is not kept beside the next one
        self.used_class_features = self.class_features(at_start)
        return self.clip.logit_scale * inputs @ self.used_class_features.mT

    def class_features(self, at_start: bool = False) -> Tensor:
        """Unit length. [C, D]"""
        raise NotImplementedError

    def set_mode(self, mode: Mode) -> None: ...  # nothing differs

    def limit_classes(self, most: int | None) -> None: ...  # a question of tuned prompts


class PromptPolicy(FeaturePolicy):
    """Tunes the context vectors of the prompts.

    Args:
        clip: the policy's CLIP, frozen.
        learner: the prompts.
    """

    def __init__(self, clip: ClipModel, learner: PromptLearner) -> None:
        self.clip, self.learner, self.context = clip, learner, learner.context
        clip.cast_frozen()
        self.max_used: int | None = None
        self.tuned: dict[str, Tensor] = {"context": self.context}
        self.state = self.tuned
        self._start_context: Tensor | None = None  # where episodes start, and the class features there
        self._start_features: Tensor | None = None
        self._start_here()

    def prepare(self, views: Views) -> Tensor:
        """Unit-length image features [N, D]"""
        self._start_here()
        return views.features

    def class_features(self, at_start: bool = False) -> Tensor:
        """Unit-length text features of all classes; at_start: those that `prepare` left, with their gradient. [C, D]"""
        learner, known = self.learner, self._start_features if at_start else None
        return encode_prompts(
            self.clip, learner.build, self.context, learner.eot, known, learner.num_shared, self.max_used
        )

    def limit_classes(self, most: int | None) -> None:
        """See `Policy`; elsewhere than on CUDA asking which classes are used costs no waiting."""
        self.max_used = most if self.clip.device.type == "cuda" else None

    @torch.no_grad()
    def _start_here(self) -> None:
        """An episode starts: the class features are computed if it starts from a context not seen last."""
        context = self.context
        if self._start_context is None or not torch.equal(context, self._start_context):
            self._start_context, self._start_features = context.detach().clone(), self.class_features()


class CoCoOpPolicy(PromptPolicy):
    """Prompt tuning from a context that is computed from the centre view of each image.

    Args:
        clip: the policy's CLIP, frozen.
        learner: the prompts.
        conditional: CoCoOp's context.
        normalize: give the meta network the unit-length feature, as CoCoOp does; the official test-time adaptation
            gives it the feature before normalisation.
    """

    written = ("context",)

    def __init__(
        self,
        clip: ClipModel,
        learner: PromptLearner,
        conditional: ConditionalContext,
        normalize: bool,
    ) -> None:
        super().__init__(clip, learner)
        self.conditional, self.normalize = conditional, normalize

    @torch.no_grad()
    def prepare(self, views: Views) -> Tensor:
        """Set the context of this image; its unit-length image features [N, D]"""
        self.context.copy_(self.conditional((views.features if self.normalize else views.projected)[0]))
        self._start_here()
        return views.features


class FixedPolicy(FeaturePolicy):
    """Tunes nothing: fixed prompts.

    Args:
        clip: the policy's CLIP.
        class_features: unit length. [C, D]
    """

    def __init__(self, clip: ClipModel, class_features: Tensor) -> None:
        self.clip, self._class_features = clip, class_features
        self.tuned: dict[str, Tensor] = {}
        self.state = self.tuned
        clip.cast_frozen()

    def class_features(self, at_start: bool = False) -> Tensor:
        """Unit length. [C, D]"""
        return self._class_features


class PrototypePolicy(FixedPolicy):
    """Tunes the class features themselves: shifts them, from zero. Source: Sui et al. 2024 (arXiv 2403.12952).

    Args:
        clip: the policy's CLIP, frozen.
        class_features: unit length. [C, D]
        per_class: a shift for each class; False: one for all.
        with_scale: before the shift each number is multiplied by one that is tuned too, from 1.
    """

    def __init__(
        self, clip: ClipModel, class_features: Tensor, per_class: bool = True, with_scale: bool = False
    ) -> None:
        super().__init__(clip, class_features)
        like = class_features if per_class else class_features[0]  # [C, D] or [D]
        self.tuned["shift"] = nn.Parameter(torch.zeros_like(like))
        if with_scale:
            self.tuned["scale"] = nn.Parameter(torch.ones_like(like))

    def class_features(self, at_start: bool = False) -> Tensor:
        """Shifted, and scaled to unit length again. [C, D]"""
        return F.normalize(self.tuned.get("scale", 1) * self._class_features + self.tuned["shift"], dim=-1)


class EncoderPolicy(FixedPolicy):
    """Tunes the image encoder; the class features are those of fixed prompts.

    Args:
        clip: the policy's CLIP.
        class_features: unit length. [C, D]
        tune: "encoder": all parameters of the image tower; "norm": those whose name holds "ln" or "bn".
        bn_prior: ResNet towers: mix source and batch statistics instead of using the batch's, see `PriorBatchNorm2d`.

    Raises:
        ValueError: "norm" for a tower without such parameters.
    """

    def __init__(self, clip: ClipModel, class_features: Tensor, tune: str, bn_prior: float | None = None) -> None:
        self.clip, self._class_features = clip, class_features
        self.norm_only = tune == "norm"
        if bn_prior is not None:
            use_prior_statistics(clip.visual, bn_prior)
        parameters = dict(clip.visual.named_parameters())
        self.tuned: dict[str, Tensor] = {
            name: p for name, p in parameters.items() if not self.norm_only or _is_norm(name)
        }
        if not self.tuned:
            raise ValueError(f"tune={tune} found nothing to tune in the image tower of {clip.name}; use tune=encoder")
        for parameter in self.tuned.values():
            parameter.requires_grad_(True)
        buffers: dict[str, Tensor] = {
            n: t for n, t in clip.visual.state_dict(keep_vars=True).items() if n not in parameters
        }
        clip.cast_frozen()
        self.copies = clip.cast_tuned()
        self.state: dict[str, Tensor] = {**self.tuned, **buffers}
        self.couples_views = bool(self._norms())

    @torch.no_grad()
    def prepare(self, views: Views) -> Tensor:
        """The views themselves, at the model's size [N, 3, H, W]"""
        return self.clip.cast_images(resize_images(views.pixels, self.clip.image_size))

    def logits(self, inputs: Tensor, at_start: bool = False) -> Tensor:
        """[N, 3, H, W] -> [N, C]"""
        return self.clip.logit_scale * self.clip.encode_images(inputs) @ self._class_features.T

    def set_mode(self, mode: Mode) -> None:
        """Only BatchNorm differs. Tuned norm layers answer in train mode too, as in official custom_clip.py."""
        for norm in self._norms():
            norm.train(mode == "adapting" or (mode == "adapted" and self.norm_only))

    def _norms(self) -> list[nn.BatchNorm2d]:
        return [module for module in self.clip.visual.modules() if isinstance(module, nn.BatchNorm2d)]


class PriorBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm whose statistics, while adapting, lie between the source's and the batch's.

    With p = prior / (prior + 1): statistics = p * source + (1 - p) * batch, the batch variance being the unbiased one.
    No gradient flows through the statistics, the buffers stay, and in eval mode it is plain BatchNorm.

    Source: Schneider et al. 2020 (arXiv 2006.16971); official TPT/tune_cls_rl.py.
    """

    prior: float
    running_mean: Tensor
    running_var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """[N, F, H, W] -> [N, F, H, W]"""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None
        share = self.prior / (self.prior + 1)
        variance, mean = torch.var_mean(x.detach().to(self.running_mean.dtype), dim=(0, 2, 3), unbiased=True)
        mean = share * self.running_mean + (1 - share) * mean
        variance = share * self.running_var + (1 - share) * variance
        return F.batch_norm(x, mean, variance, self.weight, self.bias, training=False, eps=self.eps)


def use_prior_statistics(tower: nn.Module, prior: float) -> None:
    """Replace the BatchNorm layers of one tower, and of no other module, by `PriorBatchNorm2d`; names stay.

    Raises:
        ValueError: the tower has none.
    """
    for parent in list(tower.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                replacement = PriorBatchNorm2d(child.num_features, child.eps, child.momentum)
                replacement.prior = prior
                replacement.__dict__.update(_parameters=child._parameters, _buffers=child._buffers)
                setattr(parent, name, replacement.train(child.training))
    if not any(isinstance(module, PriorBatchNorm2d) for module in tower.modules()):
        raise ValueError("bn_prior needs a policy with BatchNorm, a ResNet; this one has none; set bn_prior=null")


def _is_norm(name: str) -> bool:
    return "ln" in name or "bn" in name
