"""Captioning: one adapted image, by the official schedule of work and by ours.

Both forms are given the same rewards: the reward's CLIPs run alike in both, and are left out.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import OPTConfig, OPTForCausalLM

from captioning.adapt import RlcfObjective
from captioning.build import build_state
from captioning.captioner import Captioner
from captioning.config import CaptioningConfig
from captioning.mapper import build_mapper
from clipscore.data.images import model_input, open_image
from clipscore.models.devices import autocast_dtype, choose_device
from clipscore.task import StageTimes
from scripts.bench.models import DEMO, Pictures
from scripts.bench.plain_captioning import Answer, PlainStep
from scripts.bench.timing import Form
from scripts.demo.captioner_report import load_demo_captioner

CLIP_WIDTH = 512  # of ViT-B/16
STOP = 50118  # OPT's newline


class NumberTokenizer:
    """Texts are token numbers with spaces between them: what a step costs does not depend on the words."""

    bos_token_id, pad_token_id, unk_token_id = 2, 1, 3  # OPT's

    def __call__(self, text: str, add_special_tokens: bool) -> SimpleNamespace:
        """Token ids of a text."""
        return SimpleNamespace(input_ids=[STOP] if text == "\n" else [int(word) for word in text.split()])

    def batch_decode(self, tokens: Sequence[Sequence[int]], **_: Any) -> list[str]:
        """Texts of token ids."""
        return [" ".join(map(str, caption)) for caption in tokens]


class FixedReward:
    """Stands for the reward's CLIPs. Official and ours: max(2.5 * cos, 0), about 0.5."""

    def __init__(self, rewards: Tensor) -> None:
        self.rewards = rewards  # [K]

    def encode_texts(self, captions: Sequence[str]) -> list[Tensor]:
        """Nothing that is read."""
        return [self.rewards]

    def score(self, anchor: Sequence[Tensor], candidates: Sequence[Tensor]) -> Tensor:
        """The same for any captions. -> [1, K]"""
        return self.rewards[None]


class CaptioningBench:
    """See `scripts.bench.timing.Bench`. One case: the updates of one image, without the caption at the end."""

    task = "captioning"
    memory_steps = {"plain": 1, "fast": 1}
    defaults = {"demo": {"images": 5}, "B16": {"images": 5}}

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.options, self.device = options, choose_device(options.device)
        self.config = self._config()
        is_demo = options.size == "demo"
        self.captioner, self.clip = load_demo_captioner("clipcap", DEMO) if is_demo else (_random(options), None)
        self.captioner.to(self.device).autocast_dtype = autocast_dtype(options.precision, self.device)
        self.rate_dtype = self.captioner.autocast_dtype or self.captioner.dtype
        self.rewards = (0.5 + 0.1 * torch.randn(options.candidates)).to(self.device)
        self.pictures = Pictures(options.size)

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        """The command line's options for this task alone."""
        parser.add_argument("--candidates", type=int, default=10, help="K")
        parser.add_argument("--tokens", type=int, default=12, help="of each caption, at most")
        parser.add_argument("--steps", type=int, default=1)
        parser.add_argument("--prefix", type=int, default=40, help="P, of size B16")
        parser.add_argument("--layers", type=int, default=12, help="of the language model, of size B16")
        parser.add_argument("--width", type=int, default=768, help="of the language model, of size B16")
        parser.add_argument("--mapper-layers", type=int, default=8, help="of size B16")

    def cases(self) -> list[str]:
        """For example "1 step, K 10, 12 tokens"."""
        options = self.options
        return [f"{options.steps} step{'s' * (options.steps > 1)}, K {options.candidates}, {options.tokens} tokens"]

    def growth(self, case: str) -> float:
        """The plain form always runs whole."""
        return 1.0

    @torch.no_grad()
    def sample(self, case: str, number: int, small: bool = False) -> tuple[Tensor, dict[str, float]]:
        """The policy's feature of a picture, [1, D]; without a policy a random one."""
        if self.clip is None:
            generator = torch.Generator().manual_seed(number)
            return F.normalize(torch.randn(1, CLIP_WIDTH, generator=generator), dim=1).to(self.device), {}
        path, times = self.pictures.path(number), StageTimes(torch.device("cpu"))
        with times.stage("data"):
            image = model_input(open_image(path), self.clip.image_size)
        return self.clip.encode_images(image[None]).to(self.device), {"data": times.take()["data"]}

    def form(self, case: str, which: str, alone: bool = False) -> Form:
        """The plain or the fast form; alone it takes the bench's captioner, otherwise a copy."""
        captioner, times = self.captioner if alone else copy.deepcopy(self.captioner), StageTimes(self.device)
        state = build_state(self.config, captioner, scale_loss=captioner.autocast_dtype is torch.float16)
        times.watch(state, "restore", "reset")
        if which == "plain":
            return Form(PlainStep(captioner, state, self.config, self.rewards, times).run, times)
        objective, generator = RlcfObjective(FixedReward(self.rewards), self.config), torch.Generator()
        for owner, method, stage in [
            (captioner, "prefix", "policy"), (captioner, "token_losses", "policy"), (objective, "propose", "text"),
            (state, "step", "update"),
        ]:  # fmt: skip
            times.watch(owner, method, stage)

        def run(features: Tensor, steps: int) -> Answer:
            captions, losses = [], []
            with state.episode():
                for _ in range(steps):
                    update = objective.step(captioner, features, [], generator)
                    state.step(update.loss)
                    captions.append(update.captions)
                    losses.append(float(update.loss.detach()))
            return Answer(captions, losses, captioner.mapper)

        return Form(run, times)

    def compare(self, case: str, plain: Answer, fast: Answer) -> dict[str, bool | float]:
        """Captions and losses of all steps, and the last gradients, relative to their norm."""
        theirs, ours = (
            torch.cat([p.grad.flatten() for p in answer.mapper.parameters() if p.grad is not None])
            for answer in (plain, fast)
        )
        return {
            "captions": plain.captions == fast.captions,
            "losses": max(abs(slow - quick) for slow, quick in zip(plain.losses, fast.losses, strict=True)),
            "gradients": float((ours - theirs).norm() / theirs.norm()),
        }

    def details(self, case: str, fast: Form, rate: float) -> dict[str, Any]:
        """None."""
        return {}

    def _config(self) -> CaptioningConfig:
        return CaptioningConfig.model_validate(
            {"dataset": "random", "dataset_files": {"annotations": ""}, "data_root": "", "pretrained_root": ""}
            | {"output_root": "", "checkpoint": "", "method": "rlcf", "steps": self.options.steps, "lr": 2e-6}
            | {"reward": {"models": ["random"]}, "num_candidates": self.options.candidates}
            | {"decoding": {"max_new_tokens": self.options.tokens}}
        )


def _random(options: argparse.Namespace) -> Captioner:
    """OPT-125m by default, with random weights, and a random mapper."""
    sizes = {"hidden_size": options.width, "word_embed_proj_dim": options.width, "ffn_dim": 4 * options.width}
    lm = OPTForCausalLM(OPTConfig(**sizes, num_hidden_layers=options.layers, num_attention_heads=options.width // 64))
    mapper = build_mapper("transformer", CLIP_WIDTH, options.width, options.prefix, options.mapper_layers)
    return Captioner(lm, NumberTokenizer(), mapper)
