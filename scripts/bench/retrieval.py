"""Retrieval: one adapted query, by the official schedule of work and by ours.

The plain form reads captions at all 77 positions, has every row of the token table under AdamW, takes the loss over the
softmax of the whole gallery, and puts the whole model and the optimizer's first state back from copies.
Source: official retrieval/clip_ret_policy.py, retrieval/custom_models.py.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.nn import functional as F

from clipscore.clip_model import ClipModel
from clipscore.data.images import model_input, open_image
from clipscore.episodic import INIT_LOSS_SCALE
from clipscore.models.devices import choose_device
from clipscore.objectives import RlcfObjective
from clipscore.reward import ClipReward, subtract_baseline
from clipscore.task import StageTimes, build_state
from retrieval.adapt import adapt
from retrieval.build import build_policy
from retrieval.config import RetrievalConfig
from scripts.bench.models import Pictures, bench_clip, lean
from scripts.bench.timing import Form

WORDS = ("man", "dog", "red", "street", "table", "sitting", "the", "with", "two", "on", "a", "holding", "large", "tree")
CAPTION_WORDS = 11  # COCO's captions have 10 to 11 words
TOP = 10

Query = tuple[Tensor, list[Tensor]]  # image [1, 3, H, W] or token ids [1, L], and the rewards' features M x [1, D]


@dataclass
class Answer:
    """Adapted logits of the gallery [G], and the candidates of each step [K]."""

    logits: Tensor
    candidates: list[Tensor]


class PlainEpisode:
    """One tower adapted by the official schedule of work.

    Args:
        clip: the policy; its weights are restored for each query.
        config: of the run.
        objective: scores the candidates; its features are used.
        gallery: the policy's features of it. [G, D]
        times: clocks of the stages.
    """

    def __init__(
        self, clip: ClipModel, config: RetrievalConfig, objective: RlcfObjective, gallery: Tensor, times: StageTimes
    ) -> None:
        self.clip, self.config, self.objective, self.gallery, self.times = clip, config, objective, gallery, times
        by_image = config.direction == "image_to_text"
        named = dict(clip.backend.named_parameters())
        tuned = [p.requires_grad_(True) for name, p in named.items() if name.startswith("visual.") == by_image]
        self.optimizer = torch.optim.AdamW(tuned, lr=config.lr, weight_decay=config.weight_decay, eps=config.eps)
        self.source = copy.deepcopy(clip.backend.state_dict())
        self.first_state = copy.deepcopy(self.optimizer.state_dict())

    def run(self, sample: Query, steps: int) -> Answer:
        """Adapt to one query; score the gallery."""
        query, anchor = sample
        half = self.clip.autocast_dtype is torch.float16
        scaler = GradScaler("cuda", init_scale=INIT_LOSS_SCALE, enabled=half)
        proposed = []
        for _ in range(steps):
            logits = self._logits(query)
            with self.times.stage("reward"):
                loss, candidates = self._loss(logits, anchor)
            proposed.append(candidates)
            with self.times.stage("update"):
                self.optimizer.zero_grad()
                scaler.scale(loss).backward()
                scaler.step(self.optimizer)
                scaler.update()
        with torch.no_grad():
            answer = self._logits(query)[0]
        with self.times.stage("reset"):
            self.clip.backend.load_state_dict(self.source)
            self.optimizer.load_state_dict(copy.deepcopy(self.first_state))
        return Answer(answer, proposed)

    def _loss(self, logits: Tensor, anchor: list[Tensor]) -> tuple[Tensor, Tensor]:
        """[1, G], M x [1, D] -> scalar, [K]"""
        candidates = logits.topk(self.config.k, dim=1).indices  # [1, K]
        rewards = self.objective.reward.score(anchor, [f[candidates] for f in self.objective.features])
        nll = F.cross_entropy(logits.repeat(self.config.k, 1), candidates[0], reduction="none")
        return (subtract_baseline(rewards)[0] * nll).mean(), candidates[0]

    def _logits(self, query: Tensor) -> Tensor:
        with self.times.stage("policy"):
            if self.config.direction == "image_to_text":
                features = self.clip.encode_images(query)
            else:
                dtype = self.clip.autocast_dtype
                with torch.autocast(query.device.type, dtype=dtype, enabled=dtype is not None):
                    features = self.clip.backend.encode_text(query)  # all 77 positions
                features = F.normalize(features.to(self.clip.dtype), dim=-1)
            return self.clip.logit_scale * features @ self.gallery.T


class RetrievalBench:
    """See `scripts.bench.timing.Bench`. A case is a direction and the size of the gallery, of random features."""

    task = "retrieval"
    memory_steps = {"plain": 2, "fast": 2}  # from the second step on the optimizer has its state
    defaults = {"demo": {"policy": "policy", "gallery": 200, "images": 5}}
    defaults["B16"] = {"policy": "ViT-B-16", "gallery": 5000, "images": 5}

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.options, self.device = options, choose_device(options.device)
        self.clip = bench_clip(options.policy, self.device, options.precision)
        self.rate_dtype = self.clip.autocast_dtype or self.clip.dtype
        self.pictures = Pictures(options.size)
        self.width = self.clip.encode_token_ids(self.clip.tokenize(["a"])).shape[1]
        self.gallery, self.reward_gallery = (self._features(options.gallery) for _ in range(2))

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        """The command line's options for this task alone."""
        parser.add_argument("--policy", help="open_clip architecture")
        parser.add_argument("--gallery", type=int, help="number of gallery items")
        parser.add_argument("--steps", type=int, default=8)
        parser.add_argument("--directions", nargs="+", default=["text_to_image", "image_to_text"])

    def cases(self) -> list[str]:
        """For example "text_to_image, gallery of 5000"."""
        return [f"{direction}, gallery of {self.options.gallery}" for direction in self.options.directions]

    def growth(self, case: str) -> float:
        """The plain form always runs whole."""
        return 1.0

    def sample(self, case: str, number: int, small: bool = False) -> tuple[Query, dict[str, float]]:
        """A picture, or a caption; none is smaller than others."""
        generator, times = torch.Generator().manual_seed(number), StageTimes(torch.device("cpu"))
        if case.startswith("image_to_text"):
            path = self.pictures.path(number)
            with times.stage("data"):
                query = model_input(open_image(path), self.clip.image_size)[None]
        else:
            words = [WORDS[i] for i in torch.randint(len(WORDS), (CAPTION_WORDS,), generator=generator).tolist()]
            with times.stage("data"):
                query = self.clip.tokenize([" ".join(words)])
        anchor = F.normalize(torch.randn(1, self.width, generator=generator), dim=1)
        return (query.to(self.device), [anchor.to(self.device)]), {"data": times.take()["data"]}

    def form(self, case: str, which: str, alone: bool = False) -> Form:
        """The plain or the fast form; alone it takes the bench's policy, otherwise a copy."""
        config, times = self._config(case.split(",")[0]), StageTimes(self.device)
        clip = self.clip if alone else copy.deepcopy(self.clip)
        objective = RlcfObjective(ClipReward([clip], [1.0]), [self.reward_gallery], config.k, config.reward)
        if which == "plain":
            return Form(PlainEpisode(clip, config, objective, self.gallery, times).run, times)
        policy = build_policy(config, lean(clip))
        state = build_state(config, policy, scale_loss=clip.autocast_dtype is torch.float16)
        for owner, method, stage in [
            (policy, "prepare", "policy"), (policy, "encode", "policy"), (objective, "step", "reward"),
            (state, "step", "update"), (state, "restore", "reset"),
        ]:  # fmt: skip
            times.watch(owner, method, stage)

        def run(sample: Query, steps: int) -> Answer:
            logits, done = adapt(policy, state, objective, *sample, self.gallery, steps)
            return Answer(logits, [step.candidates[0] for step in done])

        return Form(run, times)

    def compare(self, case: str, plain: Answer, fast: Answer) -> dict[str, bool | float]:
        """The first ten items, the candidates of all steps, and adapted logits."""
        top = min(TOP, self.options.gallery)
        return {
            f"top-{top}": torch.equal(plain.logits.topk(top).indices, fast.logits.topk(top).indices),
            "candidates": all(map(torch.equal, plain.candidates, fast.candidates)),
            "logits": float((plain.logits - fast.logits).abs().max()),
        }

    def details(self, case: str, fast: Form, rate: float) -> dict[str, Any]:
        """None."""
        return {}

    def _features(self, number: int) -> Tensor:
        return F.normalize(torch.randn(number, self.width), dim=1).to(self.device)

    def _config(self, direction: str) -> RetrievalConfig:
        return RetrievalConfig.model_validate(
            {"dataset": "random", "dataset_files": {"annotations": ""}, "data_root": "", "pretrained_root": ""}
            | {"output_root": "", "method": "rlcf", "direction": direction, "policy": self.options.policy}
            | {"steps": self.options.steps, "lr": 1e-6, "reward": {"models": [{"name": "random"}]}}
        )
