"""The plain form of a retrieval episode against ours, at the paper's sizes: `python -m scripts.bench retrieval`.

The plain form does the official code's schedule of work: captions at all 77 positions, every row of the token table
under AdamW, the loss over the softmax of the whole gallery, and a reset that loads the whole model and the optimizer's
first state again. Both forms adapt the same random-weights model to the same queries in turn; the order changes.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from clipscore.clip_model import ClipModel
from clipscore.reward import ClipReward, subtract_baseline
from retrieval.adapt import RlcfObjective, adapt
from retrieval.config import RetrievalConfig
from retrieval.methods import build_policy, build_state
from scripts.bench_models import random_clip

log = logging.getLogger(__name__)

WORDS = ("man", "dog", "red", "street", "table", "sitting", "the", "with", "two", "on", "a", "holding", "large", "tree")
CAPTION_WORDS = 11  # COCO's captions have 10 to 11 words

Answer = tuple[Tensor, float]  # logits of the gallery after adaptation [G], and seconds


class PlainEpisode:
    """One tower adapted by the official schedule of work.

    Args:
        clip: the policy; its weights are restored after each query.
        config: of the run.
        objective: scores the candidates; its features are used.
    """

    def __init__(self, clip: ClipModel, config: RetrievalConfig, objective: RlcfObjective) -> None:
        self.clip, self.config, self.objective = clip, config, objective
        by_image = config.direction == "image_to_text"
        named = dict(clip.backend.named_parameters())
        tuned = [p.requires_grad_(True) for name, p in named.items() if name.startswith("visual.") == by_image]
        self.optimizer = torch.optim.AdamW(tuned, lr=config.lr, weight_decay=config.weight_decay, eps=config.eps)
        self.source = copy.deepcopy(clip.backend.state_dict())
        self.first_state = copy.deepcopy(self.optimizer.state_dict())

    def __call__(self, query: Tensor, anchor: list[Tensor], gallery: Tensor) -> Tensor:
        """Adapt to one query; logits of the gallery. -> [G]"""
        config = self.config
        for _ in range(config.steps):
            logits = self._logits(query, gallery)
            candidates = logits.topk(config.k, dim=1).indices
            rewards = self.objective.reward.score(anchor, [f[candidates] for f in self.objective.gallery])
            nll = F.cross_entropy(logits.repeat(config.k, 1), candidates[0], reduction="none")
            loss = (subtract_baseline(rewards)[0] * nll).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        with torch.no_grad():
            answer = self._logits(query, gallery)[0]
        self.clip.backend.load_state_dict(self.source)
        self.optimizer.load_state_dict(copy.deepcopy(self.first_state))
        return answer

    def _logits(self, query: Tensor, gallery: Tensor) -> Tensor:
        if self.config.direction == "image_to_text":
            features = self.clip.encode_images(query)
        else:
            features = F.normalize(self.clip.backend.encode_text(query), dim=-1)  # all 77 positions
        return self.clip.logit_scale * features @ gallery.T


def main(arguments: list[str]) -> int:
    """Time both forms in both directions; print and write what was measured."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench retrieval",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--policy", default="ViT-B-16", help="open_clip architecture")
    parser.add_argument("--gallery", type=int, default=5000, help="number of gallery items")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--queries", type=int, default=5, help="timed queries per direction, after one to warm up")
    parser.add_argument("--directions", nargs="+", default=["text_to_image", "image_to_text"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", help="also write the figures to this file")
    options = parser.parse_args(arguments)
    results = {direction: bench(direction, options) for direction in options.directions}
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"torch": torch.__version__, "threads": torch.get_num_threads(), **results}, file, indent=1)
    return 0


def bench(direction: str, options: argparse.Namespace) -> dict[str, float]:
    """Median times of one direction, and how far the two answers are apart."""
    torch.manual_seed(0)
    device = torch.device(options.device)
    config = _config(direction, options)
    ours, plain = (random_clip(options.policy, device, "fp32") for _ in range(2))
    plain.load_state_dict(ours.state_dict())
    dim = ours.encode_token_ids(ours.tokenize(["a"])).shape[1]
    gallery, reward_gallery = (F.normalize(torch.randn(options.gallery, dim, device=device), dim=1) for _ in range(2))
    objective = RlcfObjective(ClipReward([ours], [1.0]), [reward_gallery], config.k, config.reward)
    policy = build_policy(config, ours)
    state = build_state(config, policy)
    forms: list[Callable[[Tensor, list[Tensor]], Tensor]] = [
        lambda query, anchor: adapt(policy, state, objective, query, anchor, gallery, config.steps)[0],
    ]
    plain_episode = PlainEpisode(plain, config, objective)
    forms.append(lambda query, anchor: plain_episode(query, anchor, gallery))
    seconds: list[tuple[float, float]] = []
    apart, same_top10 = 0.0, True
    for number in range(options.queries + 1):
        query = _query(direction, ours, number)
        anchor = [F.normalize(torch.randn(1, dim, device=device), dim=1)]
        answers: dict[int, Answer] = {}
        for which in (0, 1) if number % 2 else (1, 0):
            answers[which] = _timed(forms[which], query, anchor)
        apart = max(apart, float((answers[0][0] - answers[1][0]).abs().max()))
        same_top10 &= torch.equal(*(answers[which][0].topk(10).indices for which in (0, 1)))
        if number:
            seconds.append((answers[0][1], answers[1][1]))
            log.info("%s: ours %.2f s, plain %.2f s", direction, *seconds[-1])
    fast, slow = (statistics.median(times) for times in zip(*seconds, strict=True))
    ratio = statistics.median(slow_one / fast_one for fast_one, slow_one in seconds)
    log.info(
        "%s, gallery %d, %d steps, K %d: ours %.2f s, plain %.2f s, median ratio %.2f",
        direction, options.gallery, config.steps, config.k, fast, slow, ratio,
    )  # fmt: skip
    log.info("logits at most %.1e apart, the first ten items %s", apart, "equal" if same_top10 else "DIFFER")
    return {"seconds": fast, "seconds_plain": slow, "ratio": ratio, "apart": apart, "same_top10": float(same_top10)}


def _config(direction: str, options: argparse.Namespace) -> RetrievalConfig:
    return RetrievalConfig.model_validate(
        {"dataset": "random", "dataset_files": {"annotations": ""}, "data_root": "", "pretrained_root": ""}
        | {"output_root": "", "method": "rlcf", "direction": direction, "policy": options.policy}
        | {"steps": options.steps, "lr": 1e-6, "reward": {"models": [{"name": "random"}]}}
    )


def _query(direction: str, clip: ClipModel, number: int) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    if direction == "image_to_text":
        return torch.randn(1, 3, clip.image_size, clip.image_size, generator=generator).to(clip.device)
    words = [WORDS[i] for i in torch.randint(len(WORDS), (CAPTION_WORDS,), generator=generator).tolist()]
    return clip.tokenize([" ".join(words)])


def _timed(form: Callable[[Tensor, list[Tensor]], Tensor], query: Tensor, anchor: list[Tensor]) -> Answer:
    started = time.perf_counter()
    answer = form(query, anchor)
    float(answer[0])  # waits for the device
    return answer, time.perf_counter() - started
