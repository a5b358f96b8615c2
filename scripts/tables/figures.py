"""The figures of a run, for the paper's tables, for comparisons and for the report.

All of them are worked out from the samples, except caption metrics: these need Java and models, so they come from
summary.json, which tables believe only when it is about as many samples as there are good records.
"""

import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from classification.data import layouts
from clipscore.data import caption_layouts
from clipscore.metrics.coco import COCO_METRICS
from retrieval.config import RECALL_AT
from scripts.runs.read import Run
from scripts.runs.samples import Sample
from scripts.tables.calibration import ECE_BINS, NUM_BINS, Bin, calibration_error, reliability_bins

CAPTION_COLUMNS = (*(column for columns in COCO_METRICS.values() for column in columns), "clipscore", "refclipscore")
PLACES = {"classification": {"accuracy": 1, "accuracy_top5": 5}, "retrieval": {f"r{rank}": rank for rank in RECALL_AT}}


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
