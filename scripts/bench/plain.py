"""Classification by the official schedule of work: the oracle of the fast form.

At the first step all views go through the policy, with a graph, and the confident ones are chosen from the logits;
later steps see those only. Prompt tuning encodes the prompts of all classes at all 77 positions in every step, and the
images again. The loss runs over the softmax of all classes. Weights and optimizer are loaded again from copies.

Source: official TPT/tpt_cls_rl.py, TPT/tune_cls_rl.py.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn import functional as F

from classification.adapt import confident_views
from classification.config import ClassificationConfig
from clipscore.clip_model import ClipModel
from clipscore.episodic import INIT_LOSS_SCALE
from clipscore.objectives import RlcfObjective
from clipscore.reward import subtract_baseline
from clipscore.task import StageTimes


@dataclass
class Answer:
    """Adapted logits of the centre view [C], trusted views [S]; of each step candidates [S, K] and logits [S, C]."""

    logits: Tensor
    selected: Tensor
    candidates: list[Tensor]
    step_logits: list[Tensor]


class PlainEpisode:
    """One image after the other; what is tuned, and how it classifies, is up to the subclasses.

    Args:
        clip: the policy's CLIP.
        config: of the run.
        objective: its reward models and their class features are used.
        tuned: the module whose weights are put back for each image.
        times: clocks of the stages.
    """

    def __init__(
        self,
        clip: ClipModel,
        config: ClassificationConfig,
        objective: RlcfObjective,
        tuned: nn.Module,
        times: StageTimes,
    ) -> None:
        self.clip, self.config, self.objective, self.tuned, self.times = clip, config, objective, tuned, times
        parameters = [p for name, p in tuned.requires_grad_(True).named_parameters() if self.is_tuned(name)]
        self.optimizer = torch.optim.AdamW(parameters, config.lr, weight_decay=config.weight_decay, eps=config.eps)
        self.source = copy.deepcopy(tuned.state_dict())
        self.first_state = copy.deepcopy(self.optimizer.state_dict())

    def is_tuned(self, name: str) -> bool:
        """Whether a parameter goes to the optimizer; the others get gradients that nobody reads."""
        return self.config.tune != "norm" or "ln" in name or "bn" in name

    def logits(self, views: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, C]"""
        raise NotImplementedError

    def run(self, views: Tensor, steps: int) -> Answer:
        """Adapt to one image and classify it. [N, 3, H, W]"""
        with self.times.stage("reset"):
            self.tuned.load_state_dict(self.source)
            self.optimizer.load_state_dict(copy.deepcopy(self.first_state))
            half = self.clip.autocast_dtype is torch.float16
            scaler = GradScaler("cuda", init_scale=INIT_LOSS_SCALE, enabled=half)
        logits = self.logits(views)
        selected = confident_views(logits.detach(), self.config.views.num_selected)
        chosen, logits = views[selected], logits[selected]  # [S, 3, H, W], [S, C]
        with self.times.stage("reward"):
            anchor = self.objective.reward.encode_images(chosen)
        candidates: list[Tensor] = []
        step_logits: list[Tensor] = []
        for number in range(steps):
            logits = self.logits(chosen) if number else logits
            with self.times.stage("reward"):
                loss, proposed = self._loss(logits, anchor)
            candidates.append(proposed)
            step_logits.append(logits.detach())
            with self.times.stage("update"):
                self.optimizer.zero_grad()
                scaler.scale(loss).backward()
                scaler.step(self.optimizer)
                scaler.update()
        with torch.no_grad():
            return Answer(self.logits(views[:1])[0], selected, candidates, step_logits)

    def _loss(self, logits: Tensor, anchor: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """[S, C] -> scalar, [S, K]"""
        k = self.config.num_candidates
        candidates = logits.topk(k, dim=1).indices
        rewards = self.objective.reward.score(anchor, [f[candidates] for f in self.objective.features])
        nll = F.cross_entropy(logits.repeat_interleave(k, dim=0), candidates.flatten(), reduction="none")  # [S * K]
        return (subtract_baseline(rewards).flatten() * nll).mean(), candidates


class PlainPrompt(PlainEpisode):
    """Prompt tuning: the prompts of all classes are encoded in each step.

    Args:
        clip, config, objective, times: see `PlainEpisode`.
        prompts: C texts that begin with the context words.
        num_context: how many tokens the context has.
    """

    def __init__(
        self,
        clip: ClipModel,
        config: ClassificationConfig,
        objective: RlcfObjective,
        times: StageTimes,
        prompts: Sequence[str],
        num_context: int,
    ) -> None:
        self.token_ids = clip.tokenize(prompts)  # [C, L]
        self.embeddings = clip.embed_tokens(self.token_ids).detach()  # [C, L, W]
        self.end = 1 + num_context  # the start token is in front
        context = nn.ParameterDict({"context": nn.Parameter(self.embeddings[0, 1 : self.end].clone())})
        super().__init__(clip, config, objective, context, times)

    def logits(self, views: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, C]"""
        with self.times.stage("policy"), torch.no_grad():
            images = self.clip.encode_images(views)
        with self.times.stage("text"):
            texts = self.class_features()
        return self.clip.logit_scale * images @ texts.T

    def class_features(self) -> Tensor:
        """Features of all classes by CLIP's own text encoder, the tuned context in place of its words'. [C, D]"""
        context = self.tuned["context"].expand(len(self.embeddings), -1, -1)  # [n_ctx, W] -> [C, n_ctx, W]
        prompts = torch.cat([self.embeddings[:, :1], context, self.embeddings[:, self.end :]], dim=1)  # [C, L, W]
        hook = self.clip.text.token_embedding.register_forward_hook(lambda *_: prompts)
        try:
            dtype = self.clip.autocast_dtype
            with torch.autocast(self.clip.device.type, dtype=dtype, enabled=dtype is not None):
                features = self.clip.backend.encode_text(self.token_ids)
        finally:
            hook.remove()
        return F.normalize(features.to(self.clip.dtype), dim=-1)


class PlainEncoder(PlainEpisode):
    """Tuning of the image encoder: the first step has the graph of all views.

    Args:
        clip, config, objective, times: see `PlainEpisode`.
        class_features: of the fixed prompts. [C, D]
    """

    def __init__(
        self,
        clip: ClipModel,
        config: ClassificationConfig,
        objective: RlcfObjective,
        times: StageTimes,
        class_features: Tensor,
    ) -> None:
        self.class_features = class_features
        super().__init__(clip, config, objective, clip.visual, times)

    def logits(self, views: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, C]"""
        with self.times.stage("policy"):
            images = self.clip.encode_images(views)
            return self.clip.logit_scale * images @ self.class_features.T
