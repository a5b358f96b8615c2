"""The charts of a run, as far as its records hold what they need, and numbers; charts.html draws them as inline SVG."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from scripts.report.figures import WAITING, Figures
from scripts.tables.figures import NUM_BINS

NUM_TICKS = 5
MINUS = "−"
MANY_DECIMALS = 6
ROUNDING = 1e-6  # a range of this share of its values, or less, is none
WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 14, 40
ROW_HEIGHT = 40  # of a run in `dumbbells`
HISTOGRAM_BINS = 24
MAX_X_TICKS = 10
MAX_NAME = 42  # characters of a name that fit across a chart
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

Points = Sequence[tuple[float, float]]
Key = tuple[str, str]  # of a legend: CSS class, text
Chart = dict[str, Any]  # see `chart`


class Line(NamedTuple):
    """A line of a chart, with the outline of a shaded range around it."""

    name: str
    style: str
    points: Points
    band: Points = ()


@dataclass(frozen=True)
class Axes:
    """The ranges of a drawing, and where a place in them is, in pixels."""

    x: tuple[float, float]
    y: tuple[float, float]
    height: int = HEIGHT
    width, left, right, top, bottom = WIDTH, LEFT, WIDTH - RIGHT, TOP, BOTTOM

    def across(self, x: float) -> float:
        low, high = self.x
        return round(LEFT + (x - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    def up(self, y: float) -> float:
        low, high = self.y
        return round(self.height - BOTTOM - (y - low) / (high - low) * (self.height - TOP - BOTTOM), 1)

    def path(self, points: Points) -> str:
        return " ".join(f"{self.across(x)},{self.up(y)}" for x, y in points)


def chart(kind: str, title: str, said: str, keys: Sequence[Key] = (), note: str = "", **drawn: Any) -> Chart:
    """What the macro `kind` draws, under its title, with its legend and a sentence below.

    `said` is the drawing in words; `stages` is the list beside the bar of times.
    """
    common = {"kind": kind, "title": title, "said": said, "legend": keys, "note": note}
    return {"style": "", "stages": (), **common, **drawn}


def run_charts(figures: Figures) -> list[Chart]:
    """All charts that the records allow."""
    return [*_steps(figures), *_calibration(figures), *_moved(figures), *_timing(figures)]


def _steps(figures: Figures) -> list[Chart]:
    """Reward, loss, and right answers by the number of updates done."""
    found = []
    for title, curve in [("Reward", figures.reward), ("Loss", figures.loss)]:
        if curve and len(curve.mean) > 1:
            name = f"mean {title.lower()}"
            band = [*enumerate(curve.low), *reversed(list(enumerate(curve.high)))]
            keys = [("after", f"{name} over the samples"), ("band", "middle half of the samples")]
            lines = [Line(name, "after", list(enumerate(curve.mean)), band)]
            found.append(_by_update(f"{title} by step", f"{title} by step", lines, len(curve.mean) - 1, keys))
    if not figures.hits or not figures.metrics:
        return found
    first, steps = figures.metrics[0], list(enumerate(figures.hits.mean))
    if figures.run.config["task"] == "retrieval":
        title, keys = "Recall at 1", [("after", "recall at 1 of all queries")]
        lines = [Line("recall at 1", "after", [*steps, (len(steps), first.after)])]
    else:
        title = "Accuracy"
        keys = [("after", "centre view: the answer before and after"), ("before", "confident views, averaged")]
        ends = [(0, first.before), (len(steps), first.after)]
        centre = Line("centre view", "after", [(x, y) for x, y in ends if y is not None])
        lines = [Line("confident views, averaged", "before", steps), centre]
    return [*found, _by_update(f"{title} by step, %", title, lines, len(steps), keys)]


def _by_update(title: str, what: str, lines: Sequence[Line], num: int, keys: Sequence[Key]) -> Chart:
    """Lines over the updates done, `num` of them; when these are many, some are marked."""
    marks = _marks(y for line in lines for _, y in (*line.points, *line.band))
    axes = Axes((-0.04 * num, num + 0.04 * num), (marks[0][0], marks[-1][0]))
    x_marks = [(x, str(x)) for x in range(0, num + 1, math.ceil((num + 1) / MAX_X_TICKS))]
    said = "; ".join(f"{line.name}: {', '.join(short(y) for _, y in line.points)}" for line in lines)
    drawn: dict[str, Any] = {"axes": axes, "marks": (x_marks, marks), "label": "updates done", "lines": lines}
    return chart("lines", title, f"{what} by updates done. {said}", keys, **drawn)


def _calibration(figures: Figures) -> list[Chart]:
    """Accuracy by confidence; below the diagonal is overconfidence. Larger dots stand for more answers."""
    if not figures.reliability:
        return []
    error = next(metric for metric in figures.metrics if metric.key == "ece")
    before, after = figures.reliability
    sides = [("", error.after, after)]
    if error.before is not None:
        sides = [("before adaptation", error.before, before), ("after adaptation", error.after, after)]
    keys = [("bar", "accuracy, %"), ("gap", "distance from confidence"), ("ideal", "confidence = accuracy")]
    percents = [(0, "0"), (0.25, "25"), (0.5, "50"), (0.75, "75"), (1, "100")]
    form, found = "confidence {:.1f}%, accuracy {:.1f}%, {:,} samples", []
    for name, value, bins in sides:
        titles = [form.format(100 * b.confidence, 100 * b.accuracy, b.count) for b in bins]
        found.append(chart(
            "reliability", f"Calibration {name}".strip(), f"Reliability diagram {name}: {'; '.join(titles)}", keys,
            f"ECE {number(value)}% in {NUM_BINS} bins; larger dots stand for more samples",
            axes=Axes((0.0, 1.0), (0.0, 1.0)), marks=(percents, percents), label="confidence, %",
            bins=list(zip(bins, titles, strict=True)), most=max(b.count for b in bins),
        ))  # fmt: skip
    return found


def _moved(figures: Figures) -> list[Chart]:
    """How often each range of the distance moved occurs."""
    if not figures.moved or figures.nothing_moved:
        return []
    values, label = figures.moved, "L2 norm of the change of all tuned parameters"
    marks = _marks(values)
    low, high = marks[0][0], marks[-1][0]
    width, counts = (high - low) / HISTOGRAM_BINS, [0] * HISTOGRAM_BINS
    for value in values:
        counts[min(int((value - low) / (high - low) * HISTOGRAM_BINS), HISTOGRAM_BINS - 1)] += 1
    y_marks = _marks([0, max(counts)])
    said = f"{short(min(values))} to {short(max(values))}, mean {short(sum(values) / len(values))}"
    return [chart(
        "histogram", "How far the parameters moved", f"Histogram of {label}: {said}",
        note="number of samples in each range", axes=Axes((low, high), (0, y_marks[-1][0])), marks=(marks, y_marks),
        bars=[(low + i * width, low + (i + 1) * width, count) for i, count in enumerate(counts) if count], label=label,
    )]  # fmt: skip


def _timing(figures: Figures) -> list[Chart]:
    """One bar cut into the shares of the stages."""
    total = sum(figures.stages.get(name, 0.0) for name in STAGE_WORDS)
    stages, shares, start = [], [], 0.0
    for index, (name, words) in enumerate(STAGE_WORDS.items()):
        if time := figures.stages.get(name):
            style, share = f"stage-{index}", time / total
            stages.append((style, name, words, seconds(time), f"{number(100 * time / total)}%"))
            shares.append((style, f"{name}: {seconds(time)}", share, start))
            start += share
    said = "Time by stage: " + "; ".join(title for _, title, *_ in shares)
    drawn: dict[str, Any] = {"style": "timing", "width": WIDTH, "shares": shares, "stages": stages}
    return [chart("stacked", "Time by stage, mean of a sample", said, **drawn)] if stages else []


def dumbbells(rows: Sequence[tuple[str, float | None, float]], unit: str) -> Chart:
    """A line for each run from what it was before to what it is after: (name, before, after).

    A long name is shown without its middle: both ends tell runs apart.
    """
    marks = _marks(value for _, before, after in rows for value in (before, after) if value is not None)
    said = "; ".join(f"{name}: {'' if b is None else short(b) + ' to '}{short(a)}" for name, b, a in rows)
    cut = [n if len(n) <= MAX_NAME else f"{n[: MAX_NAME // 2]}…{n[-MAX_NAME // 2 :]}" for n, *_ in rows]
    return chart(
        "dumbbells", unit, f"Before and after, {unit}. {said}",
        [("before", "before adaptation"), ("after", "after adaptation")],
        axes=Axes((marks[0][0], marks[-1][0]), (0, 1), TOP + ROW_HEIGHT * len(rows) + BOTTOM), marks=marks, unit=unit,
        rows=[(TOP + ROW_HEIGHT * index + 28, cut[index], *row) for index, row in enumerate(rows)],
    )  # fmt: skip


def _marks(values: Iterable[float]) -> list[tuple[float, str]]:
    """Of an axis that covers the values: where, and what they are called."""
    found = list(values)
    marks = ticks(min(found), max(found))
    return list(zip(marks, labels(marks), strict=True))


def number(value: float | None, decimals: int = 1, signed: bool = False) -> str:
    """A number as the whole page writes it: a true minus sign, thousands with a comma; None: there is none."""
    if value is None:
        return "–"
    text = f"{abs(value):,.{decimals}f}"
    sign = "" if float(text.replace(",", "")) == 0 else MINUS if value < 0 else "+" if signed else ""
    return sign + text


def short(value: float) -> str:
    """Three significant digits, zeros at the end left out."""
    if value == 0:
        return "0"
    decimals = min(max(2 - math.floor(math.log10(abs(value))), 0), 6)
    text = number(value, decimals)
    return text.rstrip("0").rstrip(".") if "." in text else text


def counted(count: int, what: str) -> str:
    """1 sample, 1,000 samples."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def p_value(value: float) -> str:
    """A p-value with two significant digits."""
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def seconds(value: float) -> str:
    """A time with three significant digits, in the unit that fits."""
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms" if value >= 1e-4 else "< 0.1 ms"


def ticks(low: float, high: float) -> list[float]:
    """Round numbers that cover [low, high], about five of them."""
    if high - low <= ROUNDING * max(abs(low), abs(high)):
        margin = abs(low) * 0.1
        low, high = (low - margin, high + margin) if margin else (0.0, 1.0)
    rough = (high - low) / (NUM_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    decimals = 2 - math.floor(math.log10(step))
    return [round(k * step, decimals) for k in range(first, last + 1)]


def labels(marks: Sequence[float]) -> list[str]:
    """Ticks as text, with as many decimals as tell them apart."""
    step = marks[1] - marks[0]
    decimals = max(0, -math.floor(math.log10(step)))
    if round(step, decimals) != round(step, decimals + 1):
        decimals += 1  # steps of 2.5
    return [number(mark, decimals) if decimals < MANY_DECIMALS else f"{mark:.3g}".replace("-", MINUS) for mark in marks]
