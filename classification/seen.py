"""One test image as a method sees it: its views, and what the models say of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clipscore.clip_model import ClipModel, unit
from clipscore.reward import ClipReward, resize_images

if TYPE_CHECKING:
    from classification.policy import Policy

Bank = Callable[[ClipModel, list[int] | None, Callable[[list[int]], Tensor]], Tensor]  # None: all views


class Views:
    """The N views of an image, number 0 the plain one; all that is known of them is computed once, when first asked.

    Args:
        pixels: [N, 3, H, W], or what gives them.
        policy: the classifier.
        reward: the reward models, if any; `reward_class_features` are theirs of the class texts. M x [C, D]
        bank: gives a model's features of the views with these numbers, [R, D], not yet of unit length, and computes
            those that it lacks; None: computes all.
    """

    def __init__(
        self,
        pixels: Tensor | Callable[[], Tensor],
        policy: Policy,
        reward: ClipReward | None = None,
        reward_class_features: Sequence[Tensor] = (),
        bank: Bank | None = None,
    ) -> None:
        self.policy, self.reward, self.reward_class_features = policy, reward, reward_class_features
        self._pixels, self._bank = pixels, bank
        # What a pass over several images found: logits by the policy as it starts [N, C], and the reward models'
        # features of the views that an episode trusts M x [S, D].
        self.known: tuple[Tensor, list[Tensor]] | None = None

    @property
    def has_bank(self) -> bool:
        """Whether some features may be known."""
        return self._bank is not None

    @cached_property
    def pixels(self) -> Tensor:
        """[N, 3, H, W]"""
        return self._pixels() if callable(self._pixels) else self._pixels

    @cached_property
    def centre(self) -> Views:
        """View 0 alone."""
        return Views(lambda: self.pixels[:1], self.policy, self.reward, self.reward_class_features)

    @cached_property
    @torch.no_grad()
    def projected(self) -> Tensor:
        """The policy's image features before they are scaled to unit length. [N, D]"""
        clip = self.policy.clip
        if self._bank is not None:
            return self._bank(clip, None, functools.partial(self._project, clip))
        return clip.project_images(resize_images(self.pixels, clip.image_size))

    @cached_property
    def features(self) -> Tensor:
        """Those of unit length. [N, D]"""
        return unit(self.projected)

    @cached_property
    @torch.no_grad()
    def logits(self) -> Tensor:
        """By the policy as it starts. [N, C]"""
        return self.policy.logits(self.policy.prepare(self), at_start=True)

    @cached_property
    @torch.no_grad()
    def class_features(self) -> Tensor:
        """The policy's text features of the classes, unit length; some policies read the image for them. [C, D]"""
        self.policy.prepare(self)
        return self.policy.class_features(at_start=True)

    @property
    def logit_scale(self) -> Tensor:
        """What a cosine is multiplied with to be a logit of the policy."""
        return self.policy.clip.logit_scale

    @cached_property
    def entropies(self) -> Tensor:
        """Of each view's prediction, nats. [N]"""
        return entropies(self.logits)

    def confident(self, fraction: float) -> Tensor:
        """So large a part of the views, rounded down, with the lowest entropies, in rising order. [S]"""
        return self.entropies.argsort()[: int(len(self.entropies) * fraction)]

    def reward_features(self, rows: Tensor) -> list[Tensor]:
        """The reward models' image features of some views, unit length; none without such models. [S] -> M x [S, D]"""
        if self.reward is None:
            return []
        if self.known is not None:
            return self.known[1]
        if self._bank is None:
            return self.reward.encode_images(self.pixels[rows])
        numbers, bank = rows.tolist(), self._bank
        models = self.reward.models
        return [unit(bank(clip, numbers, functools.partial(self._project, clip))) for clip in models]

    def reward_logits(self, rows: Tensor) -> Tensor:
        """Logits of some views by the reward model, with its scale. [S] -> [S, C]; ValueError: there are several."""
        assert self.reward is not None
        return self.reward.teacher_logits(self.reward_features(rows), self.reward_class_features)

    @torch.no_grad()
    def _project(self, clip: ClipModel, rows: list[int]) -> Tensor:
        return clip.project_images(resize_images(self.pixels[rows], clip.image_size))


def confident_views(logits: Tensor, num_selected: int) -> Tensor:
    """Views whose prediction has the lowest entropy, in rising order. [..., N, C] -> [..., S]"""
    return entropies(logits).argsort()[..., :num_selected]


def entropies(logits: Tensor) -> Tensor:
    """Entropy of each view's prediction, nats. [..., N, C] -> [..., N]"""
    log_p = logits.log_softmax(dim=-1)
    return -(log_p.exp() * log_p).sum(dim=-1)
