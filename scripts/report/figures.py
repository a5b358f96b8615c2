"""The figures of a run, from its samples: everything here is worked out from the records."""

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from clipscore.metrics.significance import mcnemar_p_value
from scripts.runs.samples import BROKEN, FIXED, Run, by_step, read_samples
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
    before: float | None
    after: float
    label: str
    decimals: int


class Curve(NamedTuple):
    """A quantity by step: means over the samples, and the middle half of them."""

    mean: list[float]
    low: list[float]
    high: list[float]


class Figures:
    """All that the report says of a run apart from its gallery; times are mean seconds of a sample.

    ValueError: a record is damaged, or the run is of a task that has no report.
    """

    def __init__(self, run: Run) -> None:
        if run.config["task"] not in TASKS:
            raise ValueError(f"{run.path} is a run of {run.config['task']}; a report is made of {', '.join(TASKS)}")
        self.run = run
        self.samples, self.errors = read_samples(run)
        found = list(self.samples.values())
        self.outcomes = Counter(sample.outcome for sample in found)
        ranked, adapted = any(s.rank is not None for s in found), any(s.losses or s.adapted for s in found)
        changes = self.outcomes[FIXED], self.outcomes[BROKEN]
        self.p_value = mcnemar_p_value(*changes) if ranked and adapted else None
        self.reward, self.loss = _curve(s.rewards for s in found), _curve(s.losses for s in found)
        self.hits = _curve([100 * hit for hit in s.step_hits] for s in found)
        self.reliability = reliability(found)
        self.moved = [s.moved for s in found if s.moved is not None]
        self.nothing_moved = bool(self.moved) and not any(self.moved)  # though every sample was adapted
        timed = [sample.stages for sample in found if sample.stages]  # not of older runs
        names = dict.fromkeys(name for stages in timed for name in stages)
        self.stages = {name: sum(stages.get(name, 0) for stages in timed) / len(timed) for name in names}
        waits = [sample.waiting for sample in found if sample.waiting is not None]
        if waits and self.stages:
            self.stages[WAITING] = statistics.fmean(waits)
        self.seconds = statistics.fmean(s.seconds for s in found) if found else 0.0
        if run.config["task"] == "captioning":
            metrics, adapts = caption_metrics(run), True
            if self.reward and len(self.reward.mean) > 1:
                metrics.append(Figure("reward", self.reward.mean[0], self.reward.mean[-1]))
        else:  # a zero-shot run of one model has no before
            metrics = sample_metrics(run, found)
            adapts = any(s.losses or s.rank_before != s.rank or s.confidence_before != s.confidence for s in found)
        shown = [metric for metric in metrics if metric.key in LABELS]
        self.metrics = [Metric(key, was if adapts else None, now, *LABELS[key]) for key, was, now in shown]


def _curve(values: Iterable[Sequence[float]]) -> Curve | None:
    """By step; None unless every sample has the same number of steps."""
    table = by_step(values)
    if table is None:
        return None
    low, high = np.percentile(table, (25, 75), axis=0)
    return Curve(table.mean(axis=0).tolist(), low.tolist(), high.tolist())
