"""Whether the two forms of an episode answer alike."""

from __future__ import annotations

import math
from collections.abc import Mapping

TOLERANCE = 1e-3  # how far two answers may be apart and still count as equal

Agreement = Mapping[str, bool | float]  # what is equal (bool), and how far numbers are apart (float)


def merge(so_far: Agreement, new: Agreement) -> dict[str, bool | float]:
    """Comparisons of several samples as one: equal when all are, apart as far as the worst."""
    joined: dict[str, bool | float] = dict(so_far)
    for name, value in new.items():
        old = so_far.get(name, value)
        if isinstance(value, bool):
            joined[name] = old and value
        else:
            joined[name] = max(old, value, key=lambda apart: (math.isnan(apart), apart))
    return joined


def disagreements(agreement: Agreement) -> list[str]:
    """What is not equal, or more than TOLERANCE apart (NaN is)."""
    return [
        name for name, value in agreement.items()
        if not (value if isinstance(value, bool) else value <= TOLERANCE)
    ]  # fmt: skip


def in_words(agreement: Agreement) -> str:
    """For example "top-1 equal, logits DIFFER (at most 1.2e-02 apart)"."""
    wrong = disagreements(agreement)
    parts = [
        f"{name} {'DIFFER' if name in wrong else 'equal'}"
        + ("" if isinstance(value, bool) else f" (at most {value:.1e} apart)")
        for name, value in agreement.items()
    ]
    return ", ".join(parts) or "not compared"
