"""The section that compares runs of the same data with the first of them, on the samples that both have."""

import statistics
from collections.abc import Sequence
from typing import Any

from clipscore.metrics.significance import Paired, bootstrap_interval, paired
from scripts.report.charts import dumbbells
from scripts.report.figures import Figures
from scripts.report.numbers import number

Interval = tuple[float, float, float]  # a difference, and the ends of its 95% interval


def compare(base: Figures, other: Figures) -> tuple[int, Paired | Interval] | None:
    """How many samples two runs on the same data share, and how the second differs on them; None: they share none.

    Captions are neither right nor wrong: of them, the mean reward is compared.
    """
    pairs = [(base.samples[key], sample) for key, sample in other.samples.items() if key in base.samples]
    ranked = [(a.is_right, b.is_right) for a, b in pairs if a.rank is not None and b.rank is not None]
    if ranked:
        return len(ranked), paired(*zip(*ranked, strict=True))
    rewards = [(a.rewards[-1], b.rewards[-1]) for a, b in pairs if a.rewards and b.rewards]
    was, now = zip(*rewards, strict=True) if rewards else ((), ())
    return (len(rewards), bootstrap_interval(was, now)) if rewards else None


def comparisons(runs: Sequence[Figures]) -> list[dict[str, Any]]:
    """A section for the runs of the same task and column, if there are several: a chart, and each against the first."""
    groups: dict[tuple[str, str], list[Figures]] = {}
    for figures in runs:
        groups.setdefault((figures.run.config["task"], figures.run.column), []).append(figures)
    return [_section(group) for group in groups.values() if len(group) > 1]


def _section(group: Sequence[Figures]) -> dict[str, Any]:
    base, labelled = group[0], list(zip(run_labels(group), group, strict=True))
    unit = base.metrics[0].label if base.metrics else ""
    measured = [(label, m.before, m.after) for label, f in labelled for m in f.metrics[:1] if m.label == unit]
    return {
        "run": base.run,
        "chart": dumbbells(measured, unit) if measured else None,
        "rows": [(label, f, None if f is base else compare(base, f)) for label, f in labelled],
        "seeds": _seeds(group),
    }


def _seeds(group: Sequence[Figures]) -> str:
    """Mean and standard deviation over the seeds of a method, of the runs that have seen all samples seen here."""
    most = max(len(figures.samples) for figures in group)
    by_name: dict[str, dict[int, float]] = {}
    for figures in group:
        if figures.metrics and len(figures.samples) == most:
            by_name.setdefault(figures.run.name, {})[figures.run.config["seed"]] = figures.metrics[0].after
    lines = []
    for method, values in by_name.items():
        if len(values) > 1:
            mean, deviation = (number(of(values.values()), 2) for of in (statistics.mean, statistics.stdev))
            lines.append(f"{method}: {mean} ± {deviation} over {len(values)} seeds")
    return "; ".join(lines)


def run_labels(group: Sequence[Figures]) -> list[str]:
    """Names of runs; with the seed, or the folder, where the name alone would not tell them apart."""
    runs = [figures.run for figures in group]
    names, seeded = [run.name for run in runs], [f"{run.name}, seed {run.config.get('seed')}" for run in runs]
    return next((found for found in (names, seeded) if len(set(found)) == len(runs)), [str(run.path) for run in runs])
