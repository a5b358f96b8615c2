"""Is one method better than another on the same samples, or is the difference chance?"""

from __future__ import annotations

from collections.abc import Sequence

from scipy.stats import binomtest


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
