"""Does a confidence of 80% mean that 80% of the answers are right? Calibration of first answers, from records.

Source: Guo et al. 2017, On Calibration of Modern Neural Networks (arXiv 1706.04599); Brier 1950.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NUM_BINS = 15  # Guo et al. 2017


@dataclass(frozen=True)
class Bin:
    """A bar of the reliability diagram: the answers whose confidence is in (low, high].

    Attributes:
        low, high: bounds of the confidence; 0 itself is in the first bin.
        count: number of answers.
        confidence: their mean confidence, in [0, 1]; None for no answers.
        accuracy: the share of them that are right, in [0, 1]; None for no answers.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


def reliability_bins(confidences: Sequence[float], right: Sequence[bool], num_bins: int = NUM_BINS) -> list[Bin]:
    """The reliability diagram: bins of equal width over the confidence of the first answer.

    Args:
        confidences: probability that the model gives its first answer. [n], in [0, 1]
        right: whether that answer is right. [n]
        num_bins: how many bins [0, 1] is cut into.

    Raises:
        ValueError: no answers, not as many of one as of the other, or a confidence outside of [0, 1].
    """
    given, hits = np.asarray(confidences, dtype=float), np.asarray(right, dtype=float)
    if given.shape != hits.shape or given.ndim != 1 or not given.size:
        raise ValueError(f"a confidence and a hit of each answer expected, got shapes {given.shape} and {hits.shape}")
    if not ((given >= 0) & (given <= 1)).all():  # NaN is outside too
        raise ValueError(f"confidences are probabilities in [0, 1], got {given.min()} to {given.max()}")
    edges = np.linspace(0, 1, num_bins + 1)
    index = np.searchsorted(edges[1:-1], given, side="left")  # [n]; an answer on an edge is in the bin below it
    counts, confidence, accuracy = (
        np.bincount(index, weights=weights, minlength=num_bins) for weights in (np.ones_like(given), given, hits)
    )
    means = [(c / n, a / n) if n else (None, None) for n, c, a in zip(counts, confidence, accuracy, strict=True)]
    return [
        Bin(float(edges[i]), float(edges[i + 1]), int(counts[i]), *(None if m is None else float(m) for m in means[i]))
        for i in range(num_bins)
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error (ECE), in [0, 1]: |accuracy - confidence| of each bin, weighted by its count."""
    filled = [(b.count, b.confidence, b.accuracy) for b in bins if b.confidence is not None and b.accuracy is not None]
    return sum(count * abs(right - given) for count, given, right in filled) / sum(count for count, *_ in filled)


def mean_brier(scores: Sequence[float]) -> float:
    """Brier score of a run, in [0, 2]: the mean over its samples of sum over classes of (p - y)^2."""
    if not scores:
        raise ValueError("the Brier score of no samples is asked for")
    return float(np.mean(scores))


def accuracy_by_step(labels: Sequence[int], step_answers: Sequence[Sequence[int]]) -> list[float]:
    """Share of right answers in [0, 1] before the first update, the second, and so on.

    Args:
        labels: the right class of each sample. [n]
        step_answers: class answered before each update. [n, steps]

    Raises:
        ValueError: no samples, or not the same number of steps for each.
    """
    if len({len(steps) for steps in step_answers}) != 1 or len(labels) != len(step_answers):
        raise ValueError("a label and as many steps for each of some samples expected")
    return np.mean(np.asarray(step_answers) == np.asarray(labels)[:, None], axis=0).tolist()
