"""A record as its readers see it: tables, comparisons, the report and the demo look at `Sample`, never into a row."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from scripts.runs.read import Row, Run

FIXED, BROKEN, UNCHANGED = "fixed", "broken", "unchanged"
RIGHT, WRONG = "right", "wrong"
ROSE, FELL = "rose", "fell"
NOT_ADAPTED = "plain"
BEYOND = 1_000_000  # rank of a right class that is not among the five that a record holds
COPIED = ("label", "confidence_before", "confidence", "brier_before", "brier", "caption_before", "caption", "moved")
SAME_REWARD = 5e-4  # a smaller change of the mean reward than this is none


class Sample(NamedTuple):
    """A record without its long lists: a hundred thousand of them fit in memory. What it has not is None or empty."""

    label: int | None  # the right class, in classification
    rank_before: int | None  # place of the best right answer, from 1, or BEYOND; captions have none
    rank: int | None
    confidence_before: float | None  # probability of the first answer
    confidence: float | None
    brier_before: float | None  # Brier score
    brier: float | None
    caption_before: str | None
    caption: str | None
    references: Sequence[str]  # captions
    rewards: tuple[float, ...]  # mean of each step, over its candidates and views
    losses: tuple[float, ...]  # of each step; empty without adaptation
    step_hits: tuple[bool, ...]  # whether the answer before each update is right
    moved: float | None  # L2 norm of the change of the tuned parameters
    seconds: float
    waiting: float | None  # s for the data
    stages: dict[str, float]  # s in each

    @property
    def was_right(self) -> bool:
        """Whether the first answer before adaptation is right; false for captions."""
        return self.rank_before == 1

    @property
    def is_right(self) -> bool:
        """Whether the first answer is right; false for captions."""
        return self.rank == 1

    @property
    def outcome(self) -> str:
        """What adaptation did to the answer; without adaptation, whether it is right.

        A caption is neither: there the mean reward of the last step's captions is compared with the first step's.
        """
        if self.rank is None:
            gain = self.rewards[-1] - self.rewards[0] if self.rewards else 0.0
            if not self.losses:
                return NOT_ADAPTED
            return UNCHANGED if abs(gain) < SAME_REWARD else ROSE if gain > 0 else FELL
        if not self.losses:
            return RIGHT if self.is_right else WRONG
        if self.was_right == self.is_right:
            return UNCHANGED
        return FIXED if self.is_right else BROKEN


def read_sample(row: Row) -> Sample:
    """A good record as a `Sample`."""
    label = row.get("label")
    hits = [answer == label for answer in row.get("step_top1", [])] or [rank == 1 for rank in row.get("step_rank", [])]
    return Sample(
        **{name: row.get(name) for name in COPIED},
        rank_before=_rank(row, "_before"),
        rank=_rank(row, ""),
        references=row.get("references", ()),
        rewards=tuple(map(_mean_reward, row.get("rewards", []))),
        losses=tuple(row.get("loss", [])),
        step_hits=tuple(hits),
        seconds=row.get("seconds", 0.0),
        waiting=row.get("seconds_waiting"),
        stages=row.get("seconds_stages", {}),
    )


def read_samples(run: Run) -> tuple[dict[str, Sample], dict[str, str]]:
    """The samples of a run by id, and the messages of those that failed; records count as in `Run.collect`."""
    samples: dict[str, Sample] = {}
    errors: dict[str, str] = {}
    for row in run.records():
        if "error" in row:
            errors[row["id"]] = str(row["error"])
        else:
            samples[row["id"]] = read_sample(row)
    return samples, {key: message for key, message in errors.items() if key not in samples}


def by_step(values: Iterable[Sequence[float]]) -> np.ndarray | None:
    """A quantity of each sample at each step, [n, steps]; None unless all have the same number of steps."""
    rows = list(values)
    return np.asarray(rows, dtype=float) if rows and rows[0] and len(set(map(len, rows))) == 1 else None


def _rank(row: Row, ending: str) -> int | None:
    top = row.get(f"top5{ending}")
    if top is None:
        return row.get(f"rank{ending}")
    return top.index(row["label"]) + 1 if row["label"] in top else BEYOND


def _mean_reward(step: Sequence[Any]) -> float:
    """Over candidates and views: [K] or [S, K] -> one number."""
    flat = [value for view in step for value in view] if step and isinstance(step[0], list) else step
    return sum(flat) / len(flat)
