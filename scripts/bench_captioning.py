"""The plain form of one captioning step against ours, at the paper's sizes: `python -m scripts.bench captioning`.

The plain form does the official code's schedule of work: the beam search computes the whole sequence of all K beams
again for every token, the mapper runs on K copies of one feature, the K captions go through the language model with
their prefixes, and its weights get gradients that nobody reads. Both forms have the same random weights, see the same
images in turn, and are given the same rewards; the order changes.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import statistics
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import OPTConfig, OPTForCausalLM

from captioning.adapt import RlcfObjective, caption_nll
from captioning.captioner import Captioner
from captioning.config import CaptioningConfig
from captioning.generate import beam_search
from captioning.mapper import build_mapper
from captioning.methods import build_state
from clipscore.episodic import EpisodicState
from clipscore.policy_gradient import reinforce_loss
from clipscore.reward import subtract_baseline

log = logging.getLogger(__name__)

CLIP_WIDTH = 512  # of ViT-B/16
STOP = 50118  # OPT's newline

Answer = tuple[list[str], float]  # the K captions that were proposed, and the loss


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
    """Stands for the reward's CLIPs, which both forms run alike. Official and ours: max(2.5 * cos, 0), about 0.5."""

    def __init__(self, rewards: Tensor) -> None:
        self.rewards = rewards  # [K]

    def encode_texts(self, captions: Sequence[str]) -> list[Tensor]:
        """Nothing that is read."""
        return [self.rewards]

    def score(self, anchor: Sequence[Tensor], candidates: Sequence[Tensor]) -> Tensor:
        """The same for any captions. -> [1, K]"""
        return self.rewards[None]


class PlainStep:
    """One update by the official schedule of work.

    Args:
        captioner: one of its own; the language model's weights get gradients.
        state: restores the mapper.
        config: of the run.
        rewards: of the K captions. [K]
    """

    def __init__(self, captioner: Captioner, state: EpisodicState, config: CaptioningConfig, rewards: Tensor) -> None:
        self.captioner, self.state, self.config, self.rewards = captioner, state, config, rewards
        self.bos, self.stop = captioner.bos, captioner.stop
        captioner.lm.requires_grad_(True)

    def __call__(self, features: Tensor) -> Answer:
        """Captions of one image and the loss of its update. [1, D]"""
        captioner, k = self.captioner, self.config.num_candidates
        with self.state.episode():
            copies = features.repeat(k, 1)  # [1, D] -> [K, D]
            with torch.no_grad():
                proposals = beam_search(self, captioner.prefix(copies)[:1], k, self.config.decoding)[0]
            captions = captioner.decode([proposal.tokens for proposal in proposals])
            tokens, mask = captioner.tokenize(captions)  # [K, T]
            prefix = captioner.prefix(copies)  # [K, P, W]
            losses = self._token_losses(prefix, tokens, mask)
            loss = reinforce_loss(caption_nll(losses, mask, True)[None], subtract_baseline(self.rewards[None]))
            captioner.lm.zero_grad(set_to_none=True)
            self.state.step(loss)
        return captions, float(loss.detach())

    def start(self, prefix: Tensor) -> PlainContinuation:
        """Begin to write all K beams. [1, P, W]"""
        return PlainContinuation(self.captioner, prefix.repeat(self.config.num_candidates, 1, 1))

    def _token_losses(self, prefix: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """[K, P, W], [K, T], [K, T] -> [K, T]"""
        whole = torch.cat([prefix, self.captioner.embed(tokens)], dim=1)  # [K, P + T, W]
        seen = torch.cat([mask.new_ones(prefix.shape[:2]), mask], dim=1)
        logits = self.captioner.lm(inputs_embeds=whole, attention_mask=seen, use_cache=False).logits
        logits = logits[:, prefix.shape[1] - 1 : -1]  # [K, P + T, V] -> [K, T, V]
        return F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view(tokens.shape)


class PlainContinuation:
    """Texts in the making without kept keys and values: every token computes all positions of all beams."""

    def __init__(self, captioner: Captioner, prefix: Tensor) -> None:
        self.captioner, self.prefix = captioner, prefix
        self.tokens = torch.full((len(prefix), 1), captioner.bos, device=prefix.device)  # [K, 1]
        self.logits = self._next()[:1]  # the beams are still one text

    def advance(self, rows: Tensor, tokens: Tensor) -> None:
        """Go on with these texts, each with one more token. int64 [K], [K]"""
        self.tokens = torch.cat([self.tokens[rows], tokens[:, None]], dim=1)
        self.logits = self._next()

    def _next(self) -> Tensor:
        whole = torch.cat([self.prefix, self.captioner.embed(self.tokens)], dim=1)  # [K, P + T, W]
        mask = self.tokens.new_ones(whole.shape[:2])
        return self.captioner.lm(inputs_embeds=whole, attention_mask=mask, use_cache=False).logits[:, -1]  # [K, V]


def main(arguments: list[str]) -> int:
    """Time both forms; print and write what was measured."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench captioning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--candidates", type=int, default=10, help="K")
    parser.add_argument("--tokens", type=int, default=12, help="of each caption")
    parser.add_argument("--prefix", type=int, default=40, help="P")
    parser.add_argument("--layers", type=int, default=12, help="of the language model; OPT-125m has 12")
    parser.add_argument("--width", type=int, default=768, help="of the language model; OPT-125m has 768")
    parser.add_argument("--mapper-layers", type=int, default=8)
    parser.add_argument("--images", type=int, default=5, help="timed images, after one to warm up")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", help="also write the figures to this file")
    options = parser.parse_args(arguments)
    result = bench(options)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"torch": torch.__version__, "threads": torch.get_num_threads(), **result}, file, indent=1)
    return 0


def bench(options: argparse.Namespace) -> dict[str, float]:
    """Median times of one step, and how far the two losses are apart."""
    torch.manual_seed(0)
    config = _config(options)
    captioner = _captioner(options)
    rewards = (0.5 + 0.1 * torch.randn(config.num_candidates)).to(captioner.device)
    plain = copy.deepcopy(captioner)
    plain_step = PlainStep(plain, build_state(config, plain), config, rewards)
    forms = [_our_step(captioner, config, rewards), plain_step]
    seconds: list[tuple[float, float]] = []
    apart, gradients_apart, same_captions = 0.0, 0.0, True
    for number in range(options.images + 1):
        generator = torch.Generator().manual_seed(number)
        features = F.normalize(torch.randn(1, CLIP_WIDTH, generator=generator), dim=1).to(captioner.device)
        answers: dict[int, tuple[Answer, float]] = {}
        for which in (0, 1) if number % 2 else (1, 0):
            answers[which] = _timed(forms[which], features)
        (ours, fast), (theirs, slow) = answers[0], answers[1]
        apart, same_captions = max(apart, abs(ours[1] - theirs[1])), same_captions and ours[0] == theirs[0]
        gradients_apart = max(gradients_apart, _gradients_apart(captioner, plain))
        if number:
            seconds.append((fast, slow))
            log.info("ours %.2f s, plain %.2f s", fast, slow)
    fast, slow = (statistics.median(times) for times in zip(*seconds, strict=True))
    ratio = statistics.median(slow_one / fast_one for fast_one, slow_one in seconds)
    log.info(
        "one step, K %d, %d tokens after a prefix of %d: ours %.2f s, plain %.2f s, median ratio %.2f",
        config.num_candidates, options.tokens, options.prefix, fast, slow, ratio,
    )  # fmt: skip
    log.info(
        "losses at most %.1e and the mapper's gradients %.1e (relative) apart, captions %s",
        apart, gradients_apart, "equal" if same_captions else "DIFFER",
    )  # fmt: skip
    return {
        "seconds": fast, "seconds_plain": slow, "ratio": ratio,
        "apart": apart, "gradients_apart": gradients_apart, "same_captions": float(same_captions),
    }  # fmt: skip


def _config(options: argparse.Namespace) -> CaptioningConfig:
    return CaptioningConfig.model_validate(
        {"dataset": "random", "dataset_files": {"annotations": ""}, "data_root": "", "pretrained_root": ""}
        | {"output_root": "", "checkpoint": "", "method": "rlcf", "steps": 1, "lr": 2e-6}
        | {"reward": {"models": ["random"]}, "num_candidates": options.candidates}
        | {"decoding": {"max_new_tokens": options.tokens}}
    )


def _captioner(options: argparse.Namespace) -> Captioner:
    """OPT-125m by default, with random weights, and a random mapper."""
    sizes = {"hidden_size": options.width, "word_embed_proj_dim": options.width, "ffn_dim": 4 * options.width}
    lm = OPTForCausalLM(OPTConfig(**sizes, num_hidden_layers=options.layers, num_attention_heads=options.width // 64))
    mapper = build_mapper("transformer", CLIP_WIDTH, options.width, options.prefix, options.mapper_layers)
    return Captioner(lm, NumberTokenizer(), mapper).to(options.device)


def _our_step(captioner: Captioner, config: CaptioningConfig, rewards: Tensor) -> Callable[[Tensor], Answer]:
    state, generator = build_state(config, captioner), torch.Generator()
    objective = RlcfObjective(FixedReward(rewards), config)

    def step(features: Tensor) -> Answer:
        with state.episode():
            update = objective.step(captioner, features, [], generator)
            state.step(update.loss)
        return update.captions, float(update.loss.detach())

    return step


def _gradients_apart(captioner: Captioner, plain: Captioner) -> float:
    """Norm of the difference of the mappers' gradients, relative to the plain form's."""
    ours, theirs = (torch.cat([p.grad.flatten() for p in form.mapper.parameters()]) for form in (captioner, plain))
    return float((ours - theirs).norm() / theirs.norm())


def _timed(form: Callable[[Tensor], Answer], features: Tensor) -> tuple[Answer, float]:
    started = time.perf_counter()
    answer = form(features)  # a number at its end waits for the device
    return answer, time.perf_counter() - started
