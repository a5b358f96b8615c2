"""What the report's figures need of each record, and how adaptation ended for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from scripts.runs.read import Row, Run

FIXED, BROKEN, UNCHANGED = "fixed", "broken", "unchanged"
RIGHT, WRONG = "right", "wrong"
ROSE, FELL = "rose", "fell"
NOT_ADAPTED = "plain"
OUTCOMES = {  # what the gallery's filters are called
    FIXED: "fixed by adaptation",
    BROKEN: "broken by adaptation",
    RIGHT: "right",
    WRONG: "wrong",
    ROSE: "reward rose",
    FELL: "reward fell",
    UNCHANGED: "unchanged",
    NOT_ADAPTED: "not adapted",
}
BEYOND = 1_000_000  # rank of a right class that is not among the five that a record holds
SAME_REWARD = 5e-4  # a smaller change of the mean reward than this is none


class Sample(NamedTuple):
    """A record without its lists: a hundred thousand of them fit in memory.

    `rank` is the place of the best right answer, from 1. What a record has not is None or empty.
    """

    outcome: str
    rank_before: int | None
    rank: int | None
    confidence_before: float | None
    confidence: float | None
    brier_before: float | None
    brier: float | None
    rewards: tuple[float, ...]  # mean over the candidates of each step
    losses: tuple[float, ...]
    step_hits: tuple[bool, ...]  # whether the answer before each update is right
    same_caption: bool | None
    moved: float | None
    seconds: float
    waiting: float | None
    stages: dict[str, float]


def read_samples(run: Run) -> tuple[dict[str, Sample], dict[str, str]]:
    """The samples of a run by id, and the messages of those that failed; records count as in `Run.collect`."""
    samples: dict[str, Sample] = {}
    errors: dict[str, str] = {}
    for row in run.records():
        if "error" in row:
            errors[row["id"]] = str(row["error"])
        else:
            samples[row["id"]] = project(row)
    return samples, {key: message for key, message in errors.items() if key not in samples}


def project(row: Row) -> Sample:
    """A record as a `Sample`."""
    rank_before, rank = ranks(row)
    rewards = tuple(step_mean(step) for step in row.get("rewards", []))
    before, after = row.get("caption_before"), row.get("caption")
    return Sample(
        outcome=outcome(rank_before, rank, rewards, adapted=bool(row.get("loss"))),
        rank_before=rank_before,
        rank=rank,
        confidence_before=row.get("confidence_before"),
        confidence=row.get("confidence"),
        brier_before=row.get("brier_before"),
        brier=row.get("brier"),
        rewards=rewards,
        losses=tuple(row.get("loss", [])),
        step_hits=_step_hits(row),
        same_caption=None if before is None else before == after,
        moved=row.get("moved"),
        seconds=row["seconds"],
        waiting=row.get("seconds_waiting"),
        stages=row.get("seconds_stages", {}),
    )


def ranks(row: Row) -> tuple[int | None, int | None]:
    """Places of the best right answer before and after, from 1; captions have none."""
    if "rank" in row:
        return row["rank_before"], row["rank"]
    if "label" not in row:
        return None, None
    before, after = (
        top.index(row["label"]) + 1 if row["label"] in top else BEYOND for top in (row["top5_before"], row["top5"])
    )
    return before, after


def outcome(rank_before: int | None, rank: int | None, rewards: Sequence[float], adapted: bool) -> str:
    """What adaptation did to the answer; without adaptation, whether it is right.

    A caption is neither right nor wrong: there it is the mean reward of the last step's captions against the first's.
    """
    if rank_before is None or rank is None:
        gain = rewards[-1] - rewards[0] if rewards else 0.0
        if not adapted:
            return NOT_ADAPTED
        return UNCHANGED if abs(gain) < SAME_REWARD else ROSE if gain > 0 else FELL
    if not adapted:
        return RIGHT if rank == 1 else WRONG
    if (rank_before == 1) == (rank == 1):
        return UNCHANGED
    return FIXED if rank == 1 else BROKEN


def step_mean(rewards: Sequence[Any]) -> float:
    """Mean reward of a step, over its candidates and views: [K] or [S, K] -> one number."""
    flat = [value for view in rewards for value in view] if rewards and isinstance(rewards[0], list) else rewards
    return sum(flat) / len(flat)


def _step_hits(row: Row) -> tuple[bool, ...]:
    if "step_top1" in row:
        return tuple(answer == row["label"] for answer in row["step_top1"])
    return tuple(rank == 1 for rank in row.get("step_rank", []))
