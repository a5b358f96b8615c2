"""Is one method better than another on the same samples, or is the difference chance?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


def changes(before: Sequence[bool], after: Sequence[bool]) -> tuple[int, int]:
    """How many samples became right and how many became wrong, of two answers each."""
    pairs = list(zip(before, after, strict=True))
    return sum(now and not was for was, now in pairs), sum(was and not now for was, now in pairs)


def percent(hits: Sequence[bool]) -> float:
    """Share of hits in %."""
    return 100 * sum(hits) / len(hits)


def mcnemar_p_value(fixed: int, broken: int) -> float:
    """Two-sided exact McNemar test: are `fixed` and `broken` equally likely? 1 when nothing changed."""
    from scipy.special import bdtr  # scipy.stats would take a second; a run needs it at its end only

    return min(1.0, 2 * float(bdtr(min(fixed, broken), fixed + broken, 0.5)))


def change_figures(before: Sequence[bool], after: Sequence[bool]) -> dict[str, float | int]:
    """Of two answers to each sample: how many became right, how many wrong, and McNemar's p-value, for a summary."""
    fixed, broken = changes(before, after)
    return {"fixed": fixed, "broken": broken, "p_value": mcnemar_p_value(fixed, broken)}


class Paired(NamedTuple):
    """Two answers to the same samples."""

    difference: float  # share of right answers of the second minus that of the first
    low: float  # its 95% interval
    high: float
    fixed: int  # samples that only the second has right
    broken: int  # only the first
    p_value: float  # McNemar's


def paired(before: Sequence[bool], after: Sequence[bool]) -> Paired:
    """Compare two answers to each of some samples: what changed, and whether that is chance."""
    fixed, broken = changes(before, after)
    low, high = share_interval(fixed, broken, len(before))
    return Paired((fixed - broken) / len(before), low, high, fixed, broken, mcnemar_p_value(fixed, broken))


def bootstrap_interval(
    before: Sequence[float], after: Sequence[float], num_draws: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of after - before, with the 95% interval (percentiles 2.5 and 97.5) of a paired bootstrap.

    Both are scores of the same samples, in the same order; ValueError for another number of samples, or none.
    """
    if len(before) != len(after) or not len(before):
        raise ValueError(f"two scores of each of some samples expected, got {len(before)} and {len(after)}")
    differences = np.subtract(after, before)
    rng, size = np.random.default_rng(seed), len(differences)
    means = [differences[rng.integers(size, size=size)].mean() for _ in range(num_draws)]
    low, high = np.percentile(means, (2.5, 97.5))
    return float(differences.mean()), float(low), float(high)


def share_interval(fixed: int, broken: int, total: int, num_draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """95% interval of the paired bootstrap of (fixed - broken) / total: the difference of two shares of right answers.

    Drawing samples again with replacement draws the three kinds, fixed, broken and neither, from a multinomial; see
    `Paired` and `bootstrap_interval`. ValueError when more samples changed than there are.
    """
    if not 0 < total >= fixed + broken:
        raise ValueError(f"fixed + broken must be at most the number of samples, got {fixed} + {broken} of {total}")
    shares = np.array([fixed, broken, total - fixed - broken]) / total
    drawn = np.random.default_rng(seed).multinomial(total, shares, size=num_draws)  # [num_draws, 3]
    low, high = np.percentile((drawn[:, 0] - drawn[:, 1]) / total, (2.5, 97.5))
    return float(low), float(high)
