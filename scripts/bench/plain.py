"""Classification and retrieval by the official schedule of work: the oracles of the fast forms.

All views go through the policy at the first step, with a graph, and the confident ones are chosen from the logits;
later steps see those only (a query is its only view). Prompt tuning encodes the prompts of all classes in every step,
and the images again; in retrieval every row of the token table is under AdamW. Texts are read at all 77 positions, the
loss runs over the softmax of all classes or of the whole gallery, weights and optimizer are loaded again from copies.

Source: official TPT/tpt_cls_rl.py, TPT/tune_cls_rl.py, retrieval/clip_ret_policy.py, retrieval/custom_models.py.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn import functional as F

from classification.adapt import confident_views
from classification.config import ClassificationConfig
from classification.prompt_learner import class_prompts
from clipscore.clip_model import ClipModel, end_of_text
from clipscore.metrics.stage_times import StageTimes
from clipscore.objectives import RlcfObjective, RlcfStep, Step
from clipscore.reward import subtract_baseline
from clipscore.text_encoder import encode_texts
from clipscore.updates import INIT_LOSS_SCALE
from retrieval.config import RetrievalConfig

Sample = tuple[Tensor, Sequence[Tensor] | None]  # views [N, ...]; the rewards' features of a query M x [1, D]


@dataclass
class Answer:
    """What an episode answers; in retrieval C is the size of the gallery, and S is 1."""

    logits: Tensor  # adapted [C]
    selected: Tensor  # trusted views [S]
    candidates: list[Tensor]  # of each step [S, K]
    step_logits: list[Tensor]  # [S, C]

    @classmethod
    def of(cls, logits: Tensor, selected: Tensor, steps: Sequence[Step]) -> "Answer":
        """What a run's episode answers."""
        candidates = [step.candidates for step in steps if isinstance(step, RlcfStep)]
        return cls(logits, selected, candidates, [step.logits for step in steps])

    def apart(self, fast: "Answer") -> dict[str, bool | float]:
        """How far the logits of unlike candidates are apart in any step, and adapted logits."""
        return {
            "candidates": max(map(gap, self.step_logits, self.candidates, fast.candidates)),
            "logits": float((self.logits - fast.logits).abs().max()),
        }


def gap(logits: Tensor, ours: Tensor, theirs: Tensor) -> float:
    """Largest difference of the logits of two choices, small in a tie. [..., C], [..., K], [..., K]"""
    return float((logits.gather(-1, ours) - logits.gather(-1, theirs)).abs().max())


@dataclass
class PlainEpisode:
    """One sample after the other."""

    clip: ClipModel  # the policy's
    config: ClassificationConfig | RetrievalConfig
    objective: RlcfObjective  # its reward models score K candidates
    tuned: nn.Module  # its weights are put back for each sample
    parameters: Iterable[nn.Parameter]  # those of them that the optimizer gets
    logits: Callable[[Tensor], Tensor]  # of views or of a query. [N, ...] -> [N, C]
    num_selected: int  # S
    times: StageTimes

    def __post_init__(self) -> None:
        lr, decay, eps = self.config.lr, self.config.weight_decay, self.config.eps
        self.optimizer = torch.optim.AdamW(self.parameters, lr, weight_decay=decay, eps=eps)
        self.source = copy.deepcopy(self.tuned.state_dict())
        self.first_state = copy.deepcopy(self.optimizer.state_dict())

    def run(self, sample: Sample, steps: int) -> Answer:
        """Adapt to one sample and answer. An image's features by the rewards are made here."""
        views, anchor = sample
        with self.times.stage("reset"):
            self.tuned.load_state_dict(self.source)
            self.optimizer.load_state_dict(copy.deepcopy(self.first_state))
            half = self.clip.autocast_dtype is torch.float16
            scaler = GradScaler("cuda", init_scale=INIT_LOSS_SCALE, enabled=half)
        logits = self.logits(views)
        selected = confident_views(logits.detach(), self.num_selected)
        chosen, logits = views[selected], logits[selected]  # [S, ...], [S, C]
        if anchor is None:
            with self.times.stage("reward"):
                anchor = self.objective.reward.encode_images(chosen)
        answer = Answer(logits, selected, [], [])
        for number in range(steps):
            logits = self.logits(chosen) if number else logits
            with self.times.stage("reward"):
                k, reward, features = self.objective.num_candidates, self.objective.reward, self.objective.features
                candidates = logits.topk(k, dim=1).indices  # [S, K]
                advantages = subtract_baseline(reward.score(anchor, [of_model[candidates] for of_model in features]))
                rows = logits.repeat_interleave(k, dim=0)  # [S * K, C]
                nll = F.cross_entropy(rows, candidates.flatten(), reduction="none")  # [S * K]
                loss = (advantages.flatten() * nll).mean()
            with self.times.stage("update"):
                self.optimizer.zero_grad()
                scaler.scale(loss).backward()
                scaler.step(self.optimizer)
                scaler.update()
            answer.candidates.append(candidates)
            answer.step_logits.append(logits.detach())
        with torch.no_grad():
            answer.logits = self.logits(views[:1])[0]
        return answer


def plain_prompt(
    clip: ClipModel, config: ClassificationConfig, objective: RlcfObjective, names: Sequence[str], times: StageTimes
) -> PlainEpisode:
    """Prompt tuning: the prompts of all classes are encoded in each step."""
    token_ids = clip.tokenize(class_prompts(config.prompt, names))  # [C, L]
    words = clip.embed_tokens(token_ids).detach()  # [C, L, W]
    end = int(end_of_text(clip.tokenize([config.prompt]))[0])  # of start token and context
    context = nn.Parameter(words[0, 1:end].clone())  # [n_ctx, W]

    def logits(views: Tensor) -> Tensor:
        with times.stage("policy"), torch.no_grad():
            images = clip.encode_images(views)
        with times.stage("text"):
            contexts = context.expand(len(words), -1, -1)  # [n_ctx, W] -> [C, n_ctx, W]
            prompts = torch.cat([words[:, :1], contexts, words[:, end:]], dim=1)  # [C, L, W]
            hook = clip.text.token_embedding.register_forward_hook(lambda *_: prompts)
            try:
                texts = _encode_texts(clip, token_ids)
            finally:
                hook.remove()
        return clip.logit_scale * images @ texts.T

    tuned = nn.ParameterDict({"context": context})
    return PlainEpisode(clip, config, objective, tuned, [context], logits, config.views.num_selected, times)


def plain_encoder(
    clip: ClipModel, config: ClassificationConfig, objective: RlcfObjective, names: Sequence[str], times: StageTimes
) -> PlainEpisode:
    """Tuning of the image encoder, or of its normalisation layers: the first step has the graph of all views."""
    texts = encode_texts(clip, class_prompts(config.prompt, names))  # [C, D]

    def logits(views: Tensor) -> Tensor:
        with times.stage("policy"):
            return clip.logit_scale * clip.encode_images(views) @ texts.T

    tower = clip.visual.requires_grad_(True)  # of normalisation layers alone, most get gradients that nobody reads
    tuned = [p for name, p in tower.named_parameters() if config.tune != "norm" or "ln" in name or "bn" in name]
    return PlainEpisode(clip, config, objective, tower, tuned, logits, config.views.num_selected, times)


def plain_retrieval(
    clip: ClipModel, config: RetrievalConfig, objective: RlcfObjective, gallery: Tensor, times: StageTimes
) -> PlainEpisode:
    """Tuning of the query's tower; the whole model is put back. `gallery`: the policy's features of it, [G, D]."""
    by_image = config.direction == "image_to_text"

    def logits(query: Tensor) -> Tensor:
        with times.stage("policy"):
            features = clip.encode_images(query) if by_image else _encode_texts(clip, query)
            return clip.logit_scale * features @ gallery.T

    named = dict(clip.backend.named_parameters())
    tuned = [p.requires_grad_(True) for name, p in named.items() if name.startswith("visual.") == by_image]
    return PlainEpisode(clip, config, objective, clip.backend, tuned, logits, 1, times)


def _encode_texts(clip: ClipModel, token_ids: Tensor) -> Tensor:
    """By CLIP's own text encoder, at all positions. [B, L] -> [B, D]"""
    dtype = clip.autocast_dtype
    with torch.autocast(clip.device.type, dtype=dtype, enabled=dtype is not None):
        features = clip.backend.encode_text(token_ids)
    return F.normalize(features.to(clip.dtype), dim=-1)
