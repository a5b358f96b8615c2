"""The dominant part of a classification step, timed alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from classification.policy import EncoderPolicy, PromptPolicy
from scripts.bench.arithmetic import count_flops, top_operators
from scripts.bench.plain import PlainPrompt
from scripts.bench.timing import seconds_of

REPEATS = 3
NUDGE = 0.01  # moves the context away from its start, whose features are known


def text_step(plain: PlainPrompt, policy: PromptPolicy, num_rows: int) -> dict[str, Any]:
    """Prompt tuning: the features of all classes, and the gradient of those that are candidates.

    Args:
        plain: the plain form, of as many classes or of fewer; its time is scaled.
        policy: the fast form's.
        num_rows: S * K, as if no two views had a candidate in common.
    """
    num_classes = len(policy.learner.token_ids)
    rows = torch.randperm(num_classes)[:num_rows].to(policy.clip.device)
    with torch.no_grad():
        policy.learner.context.add_(NUDGE)

    def plain_step() -> None:
        plain.class_features().sum().backward()

    def fast_step() -> None:
        policy.class_features()[rows].sum().backward()

    device, num_plain = policy.clip.device, len(plain.token_ids)
    slow = seconds_of(plain_step, device, REPEATS) * num_classes / num_plain
    fast = seconds_of(fast_step, device, REPEATS)
    return {
        "classes": num_classes, "plain_classes": num_plain, "plain_seconds": slow, "fast_seconds": fast,
        "ratio": slow / fast,
    }  # fmt: skip


def tower_step(policy: EncoderPolicy, views: Tensor, rate: float) -> dict[str, Any]:
    """Encoder tuning: forward and backward pass of the trusted views.

    Args:
        policy: the fast form's.
        views: [S, 3, H, W]
        rate: of the machine's matrix products, FLOP/s.
    """
    parameters = list(policy.tuned.values())

    def step() -> None:
        for parameter in parameters:
            parameter.grad = None
        policy.logits(views).max(dim=1).values.sum().backward()

    device = views.device
    seconds, flops = seconds_of(step, device, REPEATS), count_flops(step)
    return {
        "views": len(views), "seconds": seconds, "flops": flops, "share_of_rate": flops / seconds / rate,
        "operators": top_operators(step, device),
    }  # fmt: skip
