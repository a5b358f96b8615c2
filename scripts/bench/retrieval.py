"""Retrieval: one adapted query, by the official schedule of work and by ours."""

import argparse

import torch
from torch.nn import functional as F

from clipscore.clip_model import ClipModel
from clipscore.data.images import model_input
from clipscore.lean_blocks import make_lean
from clipscore.metrics.stage_times import StageTimes
from clipscore.objectives import RlcfObjective
from clipscore.reward import ClipReward
from clipscore.task import build_state
from retrieval.adapt import adapt
from retrieval.build import build_policy
from retrieval.config import RetrievalConfig
from scripts.bench.plain import Answer, Sample, gap, plain_retrieval
from scripts.bench.timing import NOWHERE, Bench, Run, bench_clip, random_picture

WORDS = ("man", "dog", "red", "street", "table", "sitting", "the", "with", "two", "on", "a", "holding", "large", "tree")
CAPTION_WORDS = 11  # COCO's captions have 10 to 11 words
TOP = 10


class RetrievalBench(Bench):
    """A case is for example "text_to_image, gallery of 5000", of random features."""

    task = "retrieval"
    defaults = {
        "policy": "ViT-B-16", "gallery": 5000, "steps": 8, "images": 5,
        "directions": ["text_to_image", "image_to_text"],
    }  # fmt: skip
    demo = {"policy": "policy", "gallery": 200}

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.models = clip = bench_clip(options.policy, self.device, options.precision)
        self.width = clip.encode_token_ids(clip.tokenize(["a"])).shape[1]
        numbers = torch.randn(2, options.gallery, self.width)
        self.gallery, self.reward_gallery = F.normalize(numbers, dim=2).to(self.device)  # [G, D] each

    def cases(self) -> list[str]:
        return [f"{direction}, gallery of {self.options.gallery}" for direction in self.options.directions]

    def sample(self, case: str, number: int) -> Sample:
        """A picture, or a caption; and the rewards' features of it."""
        generator = torch.Generator().manual_seed(number)
        if case.startswith("image_to_text"):
            query = model_input(random_picture(number), self.models.image_size)[None]
        else:
            chosen = torch.randint(len(WORDS), (CAPTION_WORDS,), generator=generator)
            query = self.models.tokenize([" ".join(WORDS[i] for i in chosen)])
        anchor = F.normalize(torch.randn(1, self.width, generator=generator), dim=1)
        return query.to(self.device), [anchor.to(self.device)]

    def plain(self, case: str, clip: ClipModel, times: StageTimes) -> Run:
        config = self._config(case)
        return plain_retrieval(clip, config, self._objective(config, clip), self.gallery, times).run

    def fast(self, case: str, clip: ClipModel, times: StageTimes) -> Run:
        config = self._config(case)
        make_lean(clip.backend)  # as in a run
        policy, objective = build_policy(config, clip), self._objective(config, clip)
        state = build_state(config, policy, scale_loss=clip.autocast_dtype is torch.float16)
        for owner, method, stage in [
            (policy, "prepare", "policy"), (policy, "encode", "policy"), (objective, "step", "reward"),
            (state, "step", "update"), (state, "restore", "reset"),
        ]:  # fmt: skip
            times.watch(owner, method, stage)

        def run(sample: Sample, steps: int) -> Answer:
            query, anchor = sample
            assert anchor is not None
            logits, done = adapt(policy, state, objective, query, anchor, self.gallery, steps)
            return Answer.of(logits, torch.zeros(1), done)

        return run

    def compare(self, case: str, plain: Answer, fast: Answer) -> dict[str, bool | float]:
        """How far apart the logits of unlike items among the first ten are, and what `apart` says."""
        top = min(TOP, self.options.gallery)
        first, second = (answer.logits.topk(top).indices for answer in (plain, fast))
        return {f"top-{top}": gap(plain.logits, first, second)} | plain.apart(fast)

    def _objective(self, config: RetrievalConfig, clip: ClipModel) -> RlcfObjective:
        return RlcfObjective(ClipReward([clip], [1.0]), [self.reward_gallery], config.k, config.reward_options)

    def _config(self, case: str) -> RetrievalConfig:
        return RetrievalConfig.of(NOWHERE | {
            "dataset_files": {"annotations": ""}, "reward": {"models": [{"name": "random"}]}, "lr": 1e-6,
            "policy": self.options.policy, "steps": self.options.steps, "direction": case.split(",")[0],
            "cuda_graphs": self.options.cuda_graphs and case.startswith("image_to_text"),
        })  # fmt: skip
