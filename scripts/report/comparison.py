"""Runs of the same data side by side: paired statistics on the samples that both have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clipscore.metrics.significance import bootstrap_interval, changes, mcnemar_p_value, percent, share_interval
from scripts.report.figures import Figures

MANY = 10_000  # samples from which on fewer bootstrap draws are as good
DRAWS, DRAWS_OF_MANY = 10_000, 1_000


@dataclass(frozen=True)
class Comparison:
    """A run against another one on the samples that both have.

    Attributes:
        count: how many these are.
        before, after: what the other and what this one has on them: right first answers in %, or mean reward.
        interval: 95% of after - before by a paired bootstrap.
        fixed, broken: first answers that only this one, only the other one has right; None for captions.
        p_value: exact McNemar test of these two; None for captions.
    """

    count: int
    before: float
    after: float
    interval: tuple[float, float]
    fixed: int | None = None
    broken: int | None = None
    p_value: float | None = None


def compare(base: Figures, other: Figures) -> Comparison | None:
    """Paired statistics of two runs on the same data; None when they share no samples that can be compared."""
    pairs = [(base.samples[key], sample) for key, sample in other.samples.items() if key in base.samples]
    hits = [(a.rank == 1, b.rank == 1) for a, b in pairs if a.rank is not None and b.rank is not None]
    if hits:
        was, now = ([pair[side] for pair in hits] for side in (0, 1))
        fixed, broken = changes(was, now)
        low, high = share_interval(fixed, broken, len(hits))
        interval = (100 * low, 100 * high)
        return Comparison(
            len(hits), percent(was), percent(now), interval, fixed, broken, mcnemar_p_value(fixed, broken)
        )
    scores = [(a.rewards[-1], b.rewards[-1]) for a, b in pairs if a.rewards and b.rewards]
    if not scores:
        return None
    before, after = ([pair[side] for pair in scores] for side in (0, 1))
    _, low, high = bootstrap_interval(before, after, DRAWS if len(scores) < MANY else DRAWS_OF_MANY)
    return Comparison(len(scores), sum(before) / len(before), sum(after) / len(after), (low, high))


def groups(runs: Sequence[Figures]) -> list[list[Figures]]:
    """Runs of the same task and column together, in the order given; a run that is alone is left out."""
    found: dict[tuple[str, str], list[Figures]] = {}
    for figures in runs:
        found.setdefault((figures.run.config["task"], figures.run.column), []).append(figures)
    return [group for group in found.values() if len(group) > 1]
