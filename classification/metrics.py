"""Accuracy before and after, and whether the difference is chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scipy.stats import binomtest


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, float | int]:
    """Figures of a run.

    Args:
        rows: records with `label`, and the top classes `top5_before` and `top5`, best first.

    Returns:
        Top-1 and top-5 accuracy before and after adaptation in %, how many answers adaptation made right (`fixed`) and
        wrong (`broken`), and the exact McNemar p-value of the two; empty for no rows.
    """
    if not rows:
        return {}
    right_before = [row["top5_before"][0] == row["label"] for row in rows]
    right = [row["top5"][0] == row["label"] for row in rows]
    fixed, broken = changes(right_before, right)
    return {
        "accuracy_before": percent(right_before),
        "accuracy": percent(right),
        "accuracy_top5_before": percent([row["label"] in row["top5_before"] for row in rows]),
        "accuracy_top5": percent([row["label"] in row["top5"] for row in rows]),
        "fixed": fixed,
        "broken": broken,
        "p_value": mcnemar_p_value(fixed, broken),
    }


def changes(before: Sequence[bool], after: Sequence[bool]) -> tuple[int, int]:
    """How many samples became right and how many became wrong, of two answers each."""
    pairs = list(zip(before, after, strict=True))
    return sum(now and not was for was, now in pairs), sum(was and not now for was, now in pairs)


def percent(hits: Sequence[bool]) -> float:
    """Share of hits in %, to three decimals."""
    return round(100 * sum(hits) / len(hits), 3)


def mcnemar_p_value(fixed: int, broken: int) -> float:
    """Two-sided exact McNemar test: are `fixed` and `broken` equally likely? 1 when nothing changed."""
    return float(binomtest(fixed, fixed + broken).pvalue) if fixed + broken else 1.0
