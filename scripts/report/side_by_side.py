"""The section that compares runs of the same data with the first of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from scripts.report import charts
from scripts.report.comparison import compare
from scripts.report.figures import Figures
from scripts.report.markup import figure, legend, name, table, text
from scripts.report.numbers import NO_VALUE, number, p_value

KEYS = [("before", "before adaptation"), ("after", "after adaptation")]


def comparison_section(group: Sequence[Figures]) -> str:
    """Runs of the same data: a chart, and each against the first one."""
    base, unit = group[0], group[0].metrics[0].label if group[0].metrics else ""
    task = base.run.config["task"]
    difference = "difference of reward [95%]" if task == "captioning" else "difference [95%]"
    heading = ["run", "before", "after", difference, "p", "only this / only first", "samples", "on both"]
    rows = [_comparison_row(base, other, labels) for other, labels in zip(group, run_labels(group), strict=True)]
    measured = [
        (label, f.metrics[0].before, f.metrics[0].after)
        for f, label in zip(group, run_labels(group), strict=True)
        if f.metrics and f.metrics[0].label == unit
    ]
    chart = figure(unit, charts.dumbbells(measured, unit) + legend(KEYS)) if measured else ""
    what = "mean reward of the last step's captions" if task == "captioning" else "right first answers, in points of %"
    note = (
        f"Difference: {what}, against the first run on the samples that both have, with its paired bootstrap interval"
        + ("." if task == "captioning" else "; p: exact McNemar test.")
    )
    title = f"{task} · {base.run.column}"
    return (
        f'<section class="comparison"><h3>{name(title)}</h3>{chart}'
        f'{table("Each run against the first", heading, rows)}<p class="note">{text(note)}</p>{_seeds(group)}</section>'
    )


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
    return f'<p class="note">{text("; ".join(lines))}</p>' if lines else ""


def run_labels(group: Sequence[Figures]) -> list[str]:
    """Names of runs; with the seed, or the folder, where the name alone would not tell them apart."""
    runs = [figures.run for figures in group]
    names = [run.name for run in runs]
    seeded = [f"{run.name}, seed {run.config.get('seed')}" for run in runs]
    paths = [str(run.path) for run in runs]
    return next((labels for labels in (names, seeded) if len(set(labels)) == len(labels)), paths)


def _comparison_row(base: Figures, other: Figures, label: str) -> list[str]:
    metric = other.metrics[0] if other.metrics else None
    before = NO_VALUE if metric is None or metric.before is None else number(metric.before, metric.decimals)
    after = NO_VALUE if metric is None else number(metric.after, metric.decimals)
    row, count = [label, before, after], f"{len(other.samples):,}"
    found = None if other is base else compare(base, other)
    if found is None:
        return [*row, "first run" if other is base else NO_VALUE, NO_VALUE, NO_VALUE, count, NO_VALUE]
    decimals = 1 if found.p_value is not None else 3
    low, high = (number(bound, decimals, signed=True) for bound in found.interval)
    difference = f"{number(found.after - found.before, decimals, signed=True)} [{low}, {high}]"
    changed = NO_VALUE if found.fixed is None else f"{found.fixed:,} / {found.broken:,}"
    return [*row, difference, p_value(found.p_value), changed, count, f"{found.count:,}"]
