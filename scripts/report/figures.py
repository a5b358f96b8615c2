"""The figures of a run, from its samples: everything here is worked out from the records."""

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from clipscore.metrics.significance import mcnemar_p_value
from scripts.report.numbers import number
from scripts.runs.read import Run
from scripts.runs.samples import BROKEN, FIXED, Sample, by_step, read_samples
from scripts.tables.calibration import Bin
from scripts.tables.figures import Metric as Figure
from scripts.tables.figures import caption_metrics, reliability, sample_metrics

WAITING = "waiting"
TASKS = ("classification", "retrieval", "captioning")
LABELS = {  # of the figures that are shown, with their digits after the point
    "accuracy": ("Accuracy, %", 1), "accuracy_top5": ("Top-5 accuracy, %", 1),
    "r1": ("Recall at 1, %", 1), "r5": ("Recall at 5, %", 1), "r10": ("Recall at 10, %", 1),
    "ece": ("Calibration error (ECE), %", 1), "ece20": ("ECE with 20 bins, %", 1), "brier": ("Brier score", 3),
    "bleu_4": ("BLEU-4", 1), "meteor": ("METEOR", 1), "rouge_l": ("ROUGE-L", 1), "cider": ("CIDEr", 1),
    "spice": ("SPICE", 1), "clipscore": ("CLIPScore", 1), "refclipscore": ("RefCLIPScore", 1),
    "reward": ("Mean reward of the proposed captions, first and last step", 3),
}  # fmt: skip


class Metric(NamedTuple):
    """A row of the table of figures; `before` is None where there is none, `decimals` are digits after the point."""

    key: str
    label: str
    before: float | None
    after: float
    decimals: int

    def change(self, decimals: int) -> str:
        """What adaptation changed, with its sign."""
        return number(None if self.before is None else self.after - self.before, decimals, signed=True)


class Curve(NamedTuple):
    """A quantity by step: means over the samples, and the middle half of them."""

    mean: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class Figures:
    """All that the report says of a run apart from its gallery; times are mean seconds of a sample."""

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
    stages: dict[str, float]
    seconds: float

    @property
    def nothing_moved(self) -> bool:
        """Every sample was adapted, and no parameter changed."""
        return bool(self.moved) and not any(self.moved)


def read_figures(run: Run) -> Figures:
    """A run's figures, from its records; ValueError: one is damaged, or the run is of a task that has none."""
    if run.config["task"] not in TASKS:
        raise ValueError(f"{run.path} is a run of {run.config['task']}; a report is made of {', '.join(TASKS)}")
    samples, errors = read_samples(run)
    found = list(samples.values())
    outcomes = dict(Counter(sample.outcome for sample in found))
    ranked, adapted = any(s.rank is not None for s in found), any(s.losses or s.adapted for s in found)
    reward = _curve(sample.rewards for sample in found)
    return Figures(
        run=run,
        samples=samples,
        errors=errors,
        metrics=_metrics(run, found, reward),
        outcomes=outcomes,
        p_value=mcnemar_p_value(outcomes.get(FIXED, 0), outcomes.get(BROKEN, 0)) if ranked and adapted else None,
        reward=reward,
        loss=_curve(sample.losses for sample in found),
        hits=_curve([100 * hit for hit in sample.step_hits] for sample in found),
        reliability=reliability(found),
        moved=[sample.moved for sample in found if sample.moved is not None],
        stages=_stages(found),
        seconds=statistics.fmean(sample.seconds for sample in found) if found else 0.0,
    )


def _metrics(run: Run, samples: Sequence[Sample], reward: Curve | None) -> list[Metric]:
    """Those that have a label; a zero-shot run of one model has no before."""
    if run.config["task"] == "captioning":
        found, adapts = caption_metrics(run), True
        if reward and len(reward.mean) > 1:
            found.append(Figure("reward", reward.mean[0], reward.mean[-1]))
    else:
        found = sample_metrics(run, samples)
        adapts = any(s.losses or s.rank_before != s.rank or s.confidence_before != s.confidence for s in samples)
    shown = [(*one, *LABELS[one.key]) for one in found if one.key in LABELS]
    return [Metric(key, label, was if adapts else None, now, digits) for key, was, now, label, digits in shown]


def _curve(values: Iterable[Sequence[float]]) -> Curve | None:
    """By step; None unless every sample has the same number of steps."""
    table = by_step(values)
    if table is None:
        return None
    low, high = np.percentile(table, (25, 75), axis=0)
    return Curve(table.mean(axis=0).tolist(), low.tolist(), high.tolist())


def _stages(samples: Sequence[Sample]) -> dict[str, float]:
    """Mean seconds of a sample by stage; empty for records of older runs."""
    timed = [sample.stages for sample in samples if sample.stages]
    names = dict.fromkeys(name for stages in timed for name in stages)
    found = {name: sum(stages.get(name, 0) for stages in timed) / len(timed) for name in names}
    waits = [sample.waiting for sample in samples if sample.waiting is not None]
    return {**found, WAITING: statistics.fmean(waits)} if waits and found else found
