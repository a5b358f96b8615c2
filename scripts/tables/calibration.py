"""Does a confidence of 80% mean that 80% of the answers are right? Calibration of first answers, from records.

Source: Guo et al. 2017, On Calibration of Modern Neural Networks (arXiv 1706.04599).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NUM_BINS = 15  # Guo et al. 2017
ECE_BINS = {"ece": NUM_BINS, "ece20": 20}  # metric -> bins; 20 are those of Yoon et al. 2024 (C-TPT, arXiv 2403.14119)


@dataclass(frozen=True)
class Bin:
    """A bar of the reliability diagram: the answers, at least one, whose confidence is in (low, high]."""

    low: float
    high: float
    count: int
    confidence: float  # their mean, in [0, 1]
    accuracy: float  # the share of them that are right, in [0, 1]


def reliability_bins(confidences: Sequence[float], right: Sequence[bool], num_bins: int = NUM_BINS) -> list[Bin]:
    """The reliability diagram: bins of equal width over the confidence of the first answer, without the empty ones.

    `confidences` are the probabilities of first answers [n], in [0, 1]; `right` says which of these are right [n].
    ValueError: no answers, not as many of one as of the other, or a confidence outside of [0, 1].
    """
    given, hits = np.asarray(confidences, dtype=float), np.asarray(right, dtype=float)
    if given.shape != hits.shape or given.ndim != 1 or not given.size:
        raise ValueError(f"a confidence and a hit of each answer expected, got shapes {given.shape} and {hits.shape}")
    if not ((given >= 0) & (given <= 1)).all():  # NaN is outside too
        raise ValueError(f"confidences are probabilities in [0, 1], got {given.min()} to {given.max()}")
    return [
        Bin(low, high, int(inside.sum()), float(given[inside].mean()), float(hits[inside].mean()))
        for low, high in itertools.pairwise(bin_edges(num_bins))
        if (inside := (given > low) & (given <= high)).any()
    ]


def bin_edges(num_bins: int) -> list[float]:
    """From 0 to 1, as torch.linspace has them in float32: the published figures are of these."""
    number, step = np.arange(num_bins + 1), float(np.float32(1 / num_bins))
    edges = np.where(number < (num_bins + 1) // 2, step * number, 1 - step * number[::-1])
    return edges.astype(np.float32).tolist()


def calibration_error(bins: Sequence[Bin], num_answers: int) -> float:
    """Expected calibration error (ECE), in [0, 1]: |accuracy - confidence| of each bin, weighted by its count.

    Of all answers; one whose confidence is 0 is in no bin.
    """
    return sum(b.count * abs(b.accuracy - b.confidence) for b in bins) / num_answers
