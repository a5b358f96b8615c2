"""Whether the two forms of an episode answer alike."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from clipscore.models.devices import autocast_dtype

# How far two answers may be apart and still count as equal: the forms round differently in half precision.
TOLERANCE = {None: 1e-3, torch.float16: 0.1, torch.bfloat16: 1.0}

Agreement = Mapping[str, bool | float]  # what is equal (bool), and how far numbers are apart (float)


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


def differences(agreement: Agreement, precision: str = "auto", device: str = "cpu") -> list[str]:
    """What is not equal, or further apart than the precision explains (NaN is); for example "logits DIFFER by 0.5"."""
    limit = TOLERANCE[autocast_dtype(precision, torch.device(device))]
    equal = {name: value if isinstance(value, bool) else value <= limit for name, value in agreement.items()}
    apart = {name: "" if value is False else f" by {value:.2g}" for name, value in agreement.items()}
    return [f"{name} DIFFER{apart[name]}" for name in agreement if not equal[name]]
