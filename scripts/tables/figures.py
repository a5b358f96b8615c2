"""The figures of a run, for the paper's tables, for comparisons and for the report.

All of them are worked out from the samples, except caption metrics: these need Java and models, so they come from
summary.json, which tables believe only when it is about as many samples as there are good records. Calibration, does a
confidence of 80% mean that 80% of the answers are right, is of first answers.

Source: Guo et al. 2017, On Calibration of Modern Neural Networks (arXiv 1706.04599).
"""

import itertools
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from classification.data import layouts
from clipscore.data import caption_layouts
from clipscore.metrics.coco import COCO_METRICS
from retrieval.config import RECALL_AT
from scripts.runs.samples import Run, Sample

NUM_BINS = 15  # Guo et al. 2017
ECE_BINS = {"ece": NUM_BINS, "ece20": 20}  # metric -> bins; 20 are those of Yoon et al. 2024 (C-TPT, arXiv 2403.14119)
CAPTION_COLUMNS = (*(column for columns in COCO_METRICS.values() for column in columns), "clipscore", "refclipscore")
PLACES = {"classification": {"accuracy": 1, "accuracy_top5": 5}, "retrieval": {f"r{rank}": rank for rank in RECALL_AT}}


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


class Metric(NamedTuple):
    """A figure before (None: not known) and after adaptation; `key` is its name in summary.json, or ece, ece20, brier.

    In % (caption metrics times 100), the Brier score in [0, 2].
    """

    key: str
    before: float | None
    after: float


def sample_metrics(run: Run, samples: Collection[Sample]) -> list[Metric]:
    """Accuracy or recall, calibration error and Brier score: those that the samples have what they need for."""
    found = []
    ranks, ranks_before = column(samples, "rank"), column(samples, "rank_before")
    for key, place in PLACES.get(run.config["task"], {}).items() if ranks else ():
        found.append(Metric(key, share(ranks_before, place) if ranks_before else None, share(ranks, place)))
    for key, num_bins in ECE_BINS.items():
        if diagrams := reliability(samples, num_bins):
            found.append(Metric(key, *(100 * calibration_error(bins, len(samples)) for bins in diagrams)))
    before, after = column(samples, "brier_before"), column(samples, "brier")
    if before and after:
        found.append(Metric("brier", statistics.fmean(before), statistics.fmean(after)))
    return found


def caption_metrics(run: Run) -> list[Metric]:
    """The caption metrics of a finished run's summary."""
    summary = run.summary or {}
    return [Metric(key, summary.get(f"{key}_before"), summary[key]) for key in CAPTION_COLUMNS if key in summary]


def reliability(samples: Collection[Sample], num_bins: int = NUM_BINS) -> tuple[list[Bin], list[Bin]] | None:
    """The reliability diagrams before and after adaptation."""
    before, after = column(samples, "confidence_before"), column(samples, "confidence")
    if not before or not after:
        return None
    was, now = [sample.was_right for sample in samples], [sample.is_right for sample in samples]
    return reliability_bins(before, was, num_bins), reliability_bins(after, now, num_bins)


def column(samples: Collection[Sample], name: str) -> list[float]:
    """A number of each sample; empty when one has none."""
    values = [getattr(sample, name) for sample in samples]
    return [] if None in values else values


class Figures:
    """A run in numbers, as a table of the paper needs it; `samples` are all of its good records."""

    def __init__(self, run: Run, samples: Mapping[str, Sample]) -> None:
        task, count = run.config["task"], len(samples)
        self.run, self.num_samples = run, count
        # How many samples the column of the paper's table has; None where nothing is published.
        self.published = published_samples(task, str(run.config["dataset"]), run.config.get("direction"))
        self.is_whole = run.summary is not None if self.published is None else count == self.published
        self.hits = {key: sample.is_right for key, sample in samples.items()}  # whether the first answer is right
        self.missing: str | None = None  # why there are no caption metrics
        if task == "captioning" and not run.summary:
            self.missing = "caption metrics come with the last caption"
        elif task == "captioning" and run.summary and (scored := run.summary["num_samples"]) != count:
            self.missing = f"the caption metrics are of {scored} captions, the records of {count}"
        of_task = caption_metrics(run) if task == "captioning" else sample_metrics(run, samples.values())
        self.metrics = [] if self.missing else of_task
        self.values = {metric.key: metric.after for metric in self.metrics}


def published_samples(task: str, dataset: str, direction: str | None) -> int | None:
    """How many samples the paper's column has: images, or captions where texts are the queries; None: not published."""
    if task == "classification":
        known = dataset.partition("/")[0] in layouts.LAYOUTS
        return layouts.find_layout(dataset).num_images if known else None
    if dataset not in caption_layouts.LAYOUTS:
        return None
    test = caption_layouts.find_layout(dataset).published["test"]
    return test.num_captions if direction == "text_to_image" else test.num_images


def share(ranks: Sequence[float], place: int) -> float:
    """Share in % of the samples whose right answer is at this place or before."""
    return 100 * sum(rank <= place for rank in ranks) / len(ranks)
