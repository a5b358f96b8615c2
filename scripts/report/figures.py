"""The figures of a run, from its samples: everything here is worked out from the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from clipscore.metrics.significance import mcnemar_p_value
from scripts.report.samples import BROKEN, FIXED, Sample, read_samples
from scripts.runs.read import Run
from scripts.tables.calibration import Bin, calibration_error, reliability_bins

WAITING = "waiting"
TASKS = ("classification", "retrieval", "captioning")


@dataclass(frozen=True)
class Metric:
    """A row of the table of figures.

    Attributes:
        key: its name in summary.json.
        label: as it is shown.
        before, after: figures; None where there is none.
        decimals: digits after the point.
    """

    key: str
    label: str
    before: float | None
    after: float
    decimals: int = 1


@dataclass(frozen=True)
class Curve:
    """A quantity by step: means over the samples, and the middle half of them."""

    mean: list[float]
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Figures:
    """All that the report says of a run apart from its gallery."""

    run: Run
    samples: dict[str, Sample]
    errors: dict[str, str]
    metrics: list[Metric]
    outcomes: dict[str, int]
    p_value: float | None
    reward: Curve | None
    loss: Curve | None
    hits: Curve | None
    reliability: tuple[list[Bin], list[Bin]] | None
    moved: list[float]
    stages: dict[str, float]  # mean seconds of a sample
    seconds: float  # mean seconds of a sample

    @property
    def nothing_moved(self) -> bool:
        """Every sample was adapted, and no parameter changed."""
        return bool(self.moved) and not any(self.moved)


def read_figures(run: Run) -> Figures:
    """Read a run's records and work out its figures.

    Raises:
        ValueError: a record is damaged, or the run is of a task that has no records.
    """
    if run.config["task"] not in TASKS:
        raise ValueError(f"{run.path} is a run of {run.config['task']}; a report is made of {', '.join(TASKS)}")
    samples, errors = read_samples(run)
    found = list(samples.values())
    outcomes = dict(Counter(sample.outcome for sample in found))
    changed = outcomes.get(FIXED, 0), outcomes.get(BROKEN, 0)
    ranked, adapted = any(s.rank is not None for s in found), any(s.losses for s in found)
    reliability = _reliability(found)
    return Figures(
        run=run,
        samples=samples,
        errors=errors,
        metrics=[*_rank_metrics(run, found), *_calibration_metrics(found, reliability), *_caption_metrics(run, found)],
        outcomes=outcomes,
        p_value=mcnemar_p_value(*changed) if ranked and adapted else None,
        reward=_curve(found, lambda sample: sample.rewards),
        loss=_curve(found, lambda sample: sample.losses),
        hits=_curve(found, lambda sample: [100 * hit for hit in sample.step_hits]),
        reliability=reliability,
        moved=[sample.moved for sample in found if sample.moved is not None],
        stages=_stages(found),
        seconds=_mean([sample.seconds for sample in found]) if found else 0.0,
    )


def _rank_metrics(run: Run, samples: Sequence[Sample]) -> list[Metric]:
    """Accuracy, or recall, before and after."""
    pairs = [(s.rank_before, s.rank) for s in samples if s.rank_before is not None and s.rank is not None]
    if not pairs:
        return []
    if run.config["task"] == "retrieval":
        names = [(1, "r1", "Recall at 1, %"), (5, "r5", "Recall at 5, %"), (10, "r10", "Recall at 10, %")]
    else:
        names = [(1, "accuracy", "Accuracy, %"), (5, "accuracy_top5", "Top-5 accuracy, %")]
    found = []
    for place, key, label in names:
        before, after = (100 * _mean([pair[side] <= place for pair in pairs]) for side in (0, 1))
        found.append(Metric(key, label, before if _changes(samples) else None, after))
    return found


def _changes(samples: Sequence[Sample]) -> bool:
    """Whether there is a before and an after: not in a zero-shot run of one model."""
    return any(s.losses or s.rank_before != s.rank or s.confidence_before != s.confidence for s in samples)


def _calibration_metrics(samples: Sequence[Sample], reliability: tuple[list[Bin], list[Bin]] | None) -> list[Metric]:
    found = []
    if reliability:
        before, after = (100 * calibration_error(bins) for bins in reliability)
        found.append(Metric("ece", "Calibration error (ECE), %", before if _changes(samples) else None, after))
    before_scores, after_scores = _column(samples, "brier_before"), _column(samples, "brier")
    if before_scores and after_scores:
        start = _mean(before_scores) if _changes(samples) else None
        found.append(Metric("brier", "Brier score", start, _mean(after_scores), 3))
    return found


def _caption_metrics(run: Run, samples: Sequence[Sample]) -> list[Metric]:
    """Caption metrics of a finished run's summary, which cannot be worked out from the records alone."""
    if run.config["task"] != "captioning":
        return []
    summary = run.summary or {}
    names = {
        "bleu_4": "BLEU-4", "meteor": "METEOR", "rouge_l": "ROUGE-L", "cider": "CIDEr", "spice": "SPICE",
        "clipscore": "CLIPScore", "refclipscore": "RefCLIPScore",
    }  # fmt: skip
    found = [Metric(k, label, summary.get(f"{k}_before"), summary[k]) for k, label in names.items() if k in summary]
    curve = _curve(samples, lambda sample: sample.rewards)
    if curve and len(curve.mean) > 1:
        label = "Mean reward of the proposed captions, first and last step"
        found.append(Metric("reward", label, curve.mean[0], curve.mean[-1], 3))
    return found


def _curve(samples: Sequence[Sample], values: Callable[[Sample], Sequence[float]]) -> Curve | None:
    """By step; None unless every sample has the same number of steps."""
    rows = [values(sample) for sample in samples]
    if not rows or not rows[0] or len({len(row) for row in rows}) != 1:
        return None
    table = np.asarray(rows, dtype=float)  # [n, steps]
    low, high = np.percentile(table, (25, 75), axis=0)
    return Curve(table.mean(axis=0).tolist(), low.tolist(), high.tolist())


def _reliability(samples: Sequence[Sample]) -> tuple[list[Bin], list[Bin]] | None:
    before, after = _column(samples, "confidence_before"), _column(samples, "confidence")
    if not before or not after:
        return None
    bins_before = reliability_bins(before, [s.rank_before == 1 for s in samples])
    return bins_before, reliability_bins(after, [s.rank == 1 for s in samples])


def _column(samples: Sequence[Sample], name: str) -> list[float]:
    """A number of each sample; empty when one has none."""
    values = [getattr(sample, name) for sample in samples]
    return [] if None in values else values


def _stages(samples: Sequence[Sample]) -> dict[str, float]:
    """Mean seconds of a sample by stage; empty for records of older runs."""
    timed = [sample for sample in samples if sample.stages]
    total: Counter[str] = Counter()
    for sample in timed:
        total.update(sample.stages)
    found = {stage: seconds / len(timed) for stage, seconds in total.items()}
    waits = [sample.waiting for sample in samples if sample.waiting is not None]
    return {**found, WAITING: _mean(waits)} if waits and found else found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
