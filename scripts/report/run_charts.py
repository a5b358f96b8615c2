"""The charts of a run, as far as its records hold what they need."""

from __future__ import annotations

from scripts.report import charts
from scripts.report.charts import Line
from scripts.report.figures import WAITING, Curve, Figures
from scripts.report.markup import figure, legend, text
from scripts.report.numbers import number, seconds

STAGES = ("views", "policy", "text", "reward", "update", "reset", "other", WAITING)
STAGE_WORDS = {
    "views": "drawing the views, in the background",
    "policy": "the policy's forward passes",
    "text": "candidate texts",
    "reward": "the reward",
    "update": "backward pass and optimizer",
    "reset": "putting weights back",
    "other": "everything else",
    WAITING: "waiting for data",
}


def run_charts(figures: Figures) -> str:
    """All charts that the records allow."""
    found = [*_step_charts(figures), *_reliability(figures), *_moved(figures), *_timing(figures)]
    return f'<div class="charts">{"".join(found)}</div>' if found else ""


def _step_charts(figures: Figures) -> list[str]:
    found = []
    curves = [("Reward by step", "mean reward", figures.reward), ("Loss by step", "mean loss", figures.loss)]
    for title, name, curve in curves:
        if curve and len(curve.mean) > 1:
            points, band = list(enumerate(curve.mean)), list(zip(curve.low, curve.high, strict=True))
            line = Line(name, "after", points, band)
            chart = charts.line_chart([line], "updates done", title, range(len(points)))
            keys = legend([("after", f"{name} over the samples"), ("band", "middle half of the samples")])
            found.append(figure(title, chart + keys))
    if figures.hits and figures.metrics:
        found.append(_hits_chart(figures, figures.hits))
    return found


def _hits_chart(figures: Figures, hits: Curve) -> str:
    """Right answers by the number of updates done."""
    first, steps = figures.metrics[0], list(enumerate(hits.mean))
    if figures.run.config["task"] == "retrieval":
        line = Line("recall at 1", "after", [*steps, (len(steps), first.after)])
        chart = charts.line_chart([line], "updates done", "Recall at 1", range(len(steps) + 1))
        return figure("Recall at 1 by step, %", chart + legend([("after", "recall at 1 of all queries")]))
    views = Line("confident views, averaged", "before", steps)
    ends = [(0, first.before), (len(steps), first.after)]
    centre = Line("centre view", "after", [(x, y) for x, y in ends if y is not None])
    chart = charts.line_chart([views, centre], "updates done", "Accuracy", range(len(steps) + 1))
    keys = legend([("after", "centre view: the answer before and after"), ("before", "confident views, averaged")])
    return figure("Accuracy by step, %", chart + keys)


def _reliability(figures: Figures) -> list[str]:
    if not figures.reliability:
        return []
    error = next(metric for metric in figures.metrics if metric.key == "ece")
    sides = [("", error.after, 1)]
    if error.before is not None:
        sides = [("before adaptation", error.before, 0), ("after adaptation", error.after, 1)]
    keys = legend([("bar", "accuracy, %"), ("gap", "distance from confidence"), ("ideal", "confidence = accuracy")])
    return [
        figure(
            f"Calibration {name}".strip(),
            charts.reliability_chart(figures.reliability[side], name) + keys,
            f"ECE {number(value)}% in {len(figures.reliability[side])} bins; larger dots stand for more samples",
        )
        for name, value, side in sides
    ]


def _moved(figures: Figures) -> list[str]:
    if not figures.moved or figures.nothing_moved:
        return []
    chart = charts.histogram(figures.moved, "L2 norm of the change of all tuned parameters")
    return [figure("How far the parameters moved", chart, "number of samples in each range")]


def _timing(figures: Figures) -> list[str]:
    stages = {name: figures.stages[name] for name in STAGES if figures.stages.get(name)}
    total = sum(stages.values())
    if not total:
        return []
    order = {name: STAGES.index(name) for name in stages}
    shares = [(f"stage-{order[name]}", f"{name}: {seconds(value)}", value / total) for name, value in stages.items()]
    entries = [
        f'<li><i class="stage-{order[name]}"></i><span>{text(name)} <small>{text(STAGE_WORDS[name])}</small></span>'
        f"<b>{text(seconds(value))}</b><em>{number(100 * value / total)}%</em></li>"
        for name, value in stages.items()
    ]
    drawing = charts.stacked_bar(shares) + f'<ul class="stages">{"".join(entries)}</ul>'
    return [figure("Time by stage, mean of a sample", drawing, style="timing")]
