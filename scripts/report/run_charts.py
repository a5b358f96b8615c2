"""The charts of a run, as far as its records hold what they need."""

from scripts.report import charts
from scripts.report.charts import Chart, Line
from scripts.report.figures import WAITING, Curve, Figures
from scripts.report.numbers import number, seconds
from scripts.tables.calibration import NUM_BINS

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


def run_charts(figures: Figures) -> list[Chart]:
    """All charts that the records allow."""
    return [*_step_charts(figures), *_reliability(figures), *_moved(figures), *_timing(figures)]


def _step_charts(figures: Figures) -> list[Chart]:
    found = []
    for title, curve in [("Reward", figures.reward), ("Loss", figures.loss)]:
        if curve and len(curve.mean) > 1:
            name = f"mean {title.lower()}"
            band = [*enumerate(curve.low), *reversed(list(enumerate(curve.high)))]
            line = Line(name, "after", list(enumerate(curve.mean)), band)
            drawing = charts.line_chart([line], "updates done", f"{title} by step", range(len(curve.mean)))
            keys = [("after", f"{name} over the samples"), ("band", "middle half of the samples")]
            found.append(Chart(f"{title} by step", drawing, keys))
    return [*found, _hits_chart(figures, figures.hits)] if figures.hits and figures.metrics else found


def _hits_chart(figures: Figures, hits: Curve) -> Chart:
    """Right answers by the number of updates done."""
    first, steps = figures.metrics[0], list(enumerate(hits.mean))
    if figures.run.config["task"] == "retrieval":
        title, keys = "Recall at 1", [("after", "recall at 1 of all queries")]
        lines = [Line("recall at 1", "after", [*steps, (len(steps), first.after)])]
    else:
        title = "Accuracy"
        keys = [("after", "centre view: the answer before and after"), ("before", "confident views, averaged")]
        ends = [(0, first.before), (len(steps), first.after)]
        centre = Line("centre view", "after", [(x, y) for x, y in ends if y is not None])
        lines = [Line("confident views, averaged", "before", steps), centre]
    drawing = charts.line_chart(lines, "updates done", title, range(len(steps) + 1))
    return Chart(f"{title} by step, %", drawing, keys)


def _reliability(figures: Figures) -> list[Chart]:
    if not figures.reliability:
        return []
    error = next(metric for metric in figures.metrics if metric.key == "ece")
    before, after = figures.reliability
    sides = [("", error.after, after)]
    if error.before is not None:
        sides = [("before adaptation", error.before, before), ("after adaptation", error.after, after)]
    keys = [("bar", "accuracy, %"), ("gap", "distance from confidence"), ("ideal", "confidence = accuracy")]
    found = []
    for name, value, bins in sides:
        note = f"ECE {number(value)}% in {NUM_BINS} bins; larger dots stand for more samples"
        found.append(Chart(f"Calibration {name}".strip(), charts.reliability_chart(bins, name), keys, note))
    return found


def _moved(figures: Figures) -> list[Chart]:
    if not figures.moved or figures.nothing_moved:
        return []
    drawing = charts.histogram(figures.moved, "L2 norm of the change of all tuned parameters")
    return [Chart("How far the parameters moved", drawing, note="number of samples in each range")]


def _timing(figures: Figures) -> list[Chart]:
    stages = [
        (f"stage-{index}", name, words, figures.stages[name])
        for index, (name, words) in enumerate(STAGE_WORDS.items())
        if figures.stages.get(name)
    ]
    total = sum(value for *_, value in stages)
    if not total:
        return []
    drawing = charts.stacked_bar([(style, f"{name}: {seconds(t)}", t / total) for style, name, _, t in stages])
    listed = [(style, name, words, seconds(t), f"{number(100 * t / total)}%") for style, name, words, t in stages]
    return [Chart("Time by stage, mean of a sample", drawing, style="timing", stages=listed)]
