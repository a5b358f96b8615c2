"""Captioning: the updates of one image, by the official schedule of work and by ours, without the caption at the end.

Officially the beam search computes the whole sequence of all K beams again for every token; for the loss, the mapper
runs on K copies of one feature, and the language model's weights get gradients that nobody reads. The reward's CLIPs
run alike in both and are left out. Source: official caption/capdec_tta.py, caption/image_llm/models/generate_opt.py.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import OPTConfig, OPTForCausalLM

from captioning.adapt import RlcfObjective, caption_nll
from captioning.build import load_captioner
from captioning.captioner import Captioner
from captioning.config import CaptioningConfig
from captioning.generate import beam_search
from captioning.mapper import build_mapper
from captioning.method import build_state
from clipscore.metrics.stage_times import StageTimes
from clipscore.models.devices import autocast_dtype
from clipscore.models.load import load_clip
from clipscore.policy_gradient import reinforce_loss
from clipscore.reward import subtract_baseline
from scripts.bench.timing import DEMO, NOWHERE, Bench, Run

CLIP_WIDTH = 512  # of ViT-B/16
PREFIX, MAPPER_LAYERS = 40, 8  # of the official mappers
STOP = 50118  # OPT's newline

Update = Callable[[Tensor], tuple[list[str], Tensor]]  # features [1, D] -> the K captions, the loss


class NumberTokenizer:
    """Texts are token numbers with spaces between them: what a step costs does not depend on the words."""

    bos_token_id, pad_token_id, unk_token_id = 2, 1, 3  # OPT's

    def __call__(self, text: str, add_special_tokens: bool) -> SimpleNamespace:
        return SimpleNamespace(input_ids=[STOP] if text == "\n" else [int(word) for word in text.split()])

    def batch_decode(self, tokens: Sequence[Sequence[int]], **_: Any) -> list[str]:
        return [" ".join(map(str, caption)) for caption in tokens]


@dataclass
class Answer:
    """Per step the K captions that were proposed and the loss; and the mapper, which has the last step's gradients."""

    captions: list[list[str]]
    losses: list[float]
    mapper: nn.Module


class PlainWriter:
    """The beam search's view of the captioner, without kept keys and values: every token computes all positions of all
    K beams, from the start. Source: official generate_opt.py."""

    logits: Tensor  # of the next token of each text

    def __init__(self, captioner: Captioner, num_beams: int) -> None:
        self.captioner, self.num_beams, self.bos, self.stop = captioner, num_beams, captioner.bos, captioner.stop

    def start(self, prefix: Tensor) -> "PlainWriter":
        """Begin to write. [1, P, W]"""
        self.prefix = prefix.repeat(self.num_beams, 1, 1)
        rows = torch.arange(self.num_beams, device=prefix.device)
        self.tokens = rows.new_empty(len(rows), 0)  # [K, 0]
        self.advance(rows, torch.full_like(rows, self.bos))
        self.logits = self.logits[:1]  # the beams are still one text
        return self

    def advance(self, rows: Tensor, tokens: Tensor) -> None:
        """Go on with these texts, each with one more token. int64 [K], [K]"""
        self.tokens = torch.cat([self.tokens[rows], tokens[:, None]], dim=1)
        mask = torch.ones_like(self.tokens)
        self.logits = _logits(self.captioner, self.prefix, self.tokens, mask)[:, -1]  # [K, V]


def _logits(captioner: Captioner, prefix: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """[K, P, W], [K, T], [K, T] -> [K, P + T, V]"""
    whole = torch.cat([prefix, captioner.embed(tokens)], dim=1)  # [K, P + T, W]
    seen, dtype = torch.cat([mask.new_ones(prefix.shape[:2]), mask], dim=1), captioner.autocast_dtype
    with torch.autocast(whole.device.type, dtype=dtype, enabled=dtype is not None):
        return captioner.lm(inputs_embeds=whole, attention_mask=seen, use_cache=False).logits.float()


class CaptioningBench(Bench):
    """One case, for example "1 step, K 10, 12 tokens"."""

    task = "captioning"
    defaults = {"candidates": 10, "tokens": 12, "steps": 1, "images": 5}

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        if options.size == "demo":
            config = CaptioningConfig.of(NOWHERE | {
                "method": "zero_shot", "dataset_files": {"annotations": ""}, "checkpoint": "", "llm": str(DEMO / "opt"),
                "mapper_layers": 2, "prefix_length": 7,
            })  # fmt: skip
            self.models = load_captioner(config, load_clip("policy.pt", DEMO), DEMO / "clipcap")
        else:  # OPT-125m, with its defaults, and a mapper of the official size; random weights
            lm = OPTForCausalLM(OPTConfig())
            mapper = build_mapper("transformer", CLIP_WIDTH, lm.config.hidden_size, PREFIX, MAPPER_LAYERS)
            self.models = Captioner(lm, NumberTokenizer(), mapper)
        self.models.to(self.device).autocast_dtype = autocast_dtype(options.precision, self.device)
        self.models.cast_frozen()
        self.rewards = (0.5 + 0.1 * torch.randn(options.candidates)).to(self.device)  # max(2.5 * cos, 0) is about 0.5
        self.config = CaptioningConfig.of(NOWHERE | {
            "dataset_files": {"annotations": ""}, "checkpoint": "", "steps": options.steps, "lr": 2e-6,
            "reward": {"models": ["random"]}, "num_candidates": options.candidates,
            "decoding": {"max_new_tokens": options.tokens},
        })  # fmt: skip

    def cases(self) -> list[str]:
        steps, k, tokens = self.options.steps, self.options.candidates, self.options.tokens
        return [f"{steps} step{'s' * (steps > 1)}, K {k}, {tokens} tokens"]

    def sample(self, case: str, number: int) -> Tensor:
        """In the place of the policy's feature of a picture, a random one. [1, D]"""
        numbers = torch.randn(1, self.models.mapper.linear.in_features, generator=torch.Generator().manual_seed(number))
        return F.normalize(numbers, dim=1).to(self.device)

    def plain(self, case: str, captioner: Captioner, times: StageTimes) -> Run:
        k, advantages = self.options.candidates, subtract_baseline(self.rewards[None])  # [1, K]
        captioner.lm.requires_grad_(True)

        def update(features: Tensor) -> tuple[list[str], Tensor]:
            with times.stage("text"), torch.no_grad():
                prefix, writer = captioner.prefix(features), PlainWriter(captioner, k)
                proposals = beam_search(writer, prefix, k, self.config.decoding)[0]
            captions = captioner.decode([proposal.tokens for proposal in proposals])
            tokens, mask = captioner.tokenize(captions)  # [K, T]
            with times.stage("policy"):
                prefix = captioner.prefix(features.repeat(k, 1))  # [K, P, W]
                logits = _logits(captioner, prefix, tokens, mask)[:, prefix.shape[1] - 1 : -1]  # [K, T, V]
                losses = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view(tokens.shape)
            captioner.lm.zero_grad(set_to_none=True)
            return captions, reinforce_loss(caption_nll(losses, mask, True)[None], advantages)

        return self._episode(captioner, update, times)

    def fast(self, case: str, captioner: Captioner, times: StageTimes) -> Run:
        fixed: Any = SimpleNamespace(encode_texts=lambda _: [self.rewards], score=lambda *_: self.rewards[None])
        objective, generator = RlcfObjective(fixed, self.config), torch.Generator()
        times.watch(captioner, "prefix", "policy")
        times.watch(captioner, "token_losses", "policy")
        times.watch(objective, "propose", "text")

        def update(features: Tensor) -> tuple[list[str], Tensor]:
            step = objective.step(captioner, features, [], generator)
            return step.captions, step.loss

        return self._episode(captioner, update, times)

    def compare(self, case: str, plain: Answer, fast: Answer) -> dict[str, bool | float]:
        """Captions and losses of all steps, and the last gradients, relative to their norm."""
        found = ([p.grad.flatten() for p in form.mapper.parameters() if p.grad is not None] for form in (plain, fast))
        theirs, ours = map(torch.cat, found)
        return {
            "captions": plain.captions == fast.captions,
            "losses": max(abs(slow - quick) for slow, quick in zip(plain.losses, fast.losses, strict=True)),
            "gradients": float((ours - theirs).norm() / theirs.norm()),
        }

    def _episode(self, captioner: Captioner, update: Update, times: StageTimes) -> Run:
        """Both forms: the mapper is put back, and every step has its update."""
        state = build_state(self.config, captioner, scale_loss=captioner.autocast_dtype is torch.float16)
        times.watch(state, "restore", "reset")
        times.watch(state, "step", "update")

        def run(features: Tensor, steps: int) -> Answer:
            answer = Answer([], [], captioner.mapper)
            with state.episode():
                for _ in range(steps):
                    captions, loss = update(features)
                    loss = state.step(loss)
                    answer.captions.append(captions)
                    answer.losses.append(float(loss))
            return answer

        return run
