"""Whether the two forms of an episode answer alike."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from clipscore.models.devices import autocast_dtype

# How far two answers may be apart and still count as equal: the forms round differently in half precision.
TOLERANCE = {None: 1e-3, torch.float16: 0.1, torch.bfloat16: 1.0}

Agreement = Mapping[str, bool | float]  # what is equal (bool), and how far numbers are apart (float)


def tolerance(precision: str, device: torch.device) -> float:
    """How far answers may be apart under a `precision` setting."""
    return TOLERANCE[autocast_dtype(precision, device)]


def gap(logits: Tensor, ours: Tensor, theirs: Tensor) -> float:
    """Largest difference of the logits of two choices, small in a tie. [..., C], [..., K], [..., K]"""
    return float((logits.gather(-1, ours) - logits.gather(-1, theirs)).abs().max())


def merge(so_far: Agreement, new: Agreement) -> dict[str, bool | float]:
    """Comparisons of several samples as one: equal when all are, apart as far as the worst."""
    joined: dict[str, bool | float] = dict(so_far)
    for name, value in new.items():
        pair = so_far.get(name, value), value
        worst = max(pair, key=lambda apart: (math.isnan(apart), apart))
        joined[name] = all(pair) if isinstance(value, bool) else worst
    return joined


def disagreements(agreement: Agreement, limit: float) -> list[str]:
    """What is not equal, or further apart than the limit (NaN is)."""
    return [name for name, value in agreement.items() if not (value if isinstance(value, bool) else value <= limit)]


def in_words(agreement: Agreement, limit: float) -> str:
    """For example "top-1 equal, logits DIFFER (at most 1.2e-02 apart)"."""
    wrong, parts = disagreements(agreement, limit), []
    for name, value in agreement.items():
        apart = "" if isinstance(value, bool) else f" (at most {value:.1e} apart)"
        parts.append(f"{name} {'DIFFER' if name in wrong else 'equal'}{apart}")
    return ", ".join(parts) or "not compared"
