"""The figures behind the charts, which charts.html draws as inline SVG."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from scripts.report.numbers import labels, short, ticks
from scripts.tables.calibration import Bin

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 14, 40
ROW_HEIGHT = 40  # of a run in `dumbbells`
HISTOGRAM_BINS = 24
MAX_X_TICKS = 10
MAX_NAME = 42  # characters of a name that fit across a chart

Points = Sequence[tuple[float, float]]
Drawing = dict[str, Any]  # `kind`, the macro that draws it; `said`, the drawing in words; and what the macro reads


class Chart(NamedTuple):
    """A drawing under its title, with its legend (CSS class, text), a sentence below, and the list of the stages."""

    title: str
    drawing: Drawing
    keys: Sequence[tuple[str, str]] = ()
    note: str = ""
    style: str = ""
    stages: Sequence[tuple[str, str, str, str, str]] = ()


class Line(NamedTuple):
    """A line of a chart: its name, CSS class and points; `band` is the outline of a shaded range around it."""

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


def line_chart(lines: Sequence[Line], x_label: str, y_label: str, x_ticks: Sequence[int]) -> Drawing:
    """Lines over steps; the x axis is marked at `x_ticks`, two or more, at some of them when they are many."""
    marks = _marks(y for line in lines for _, y in (*line.points, *line.band))
    margin = 0.04 * (x_ticks[-1] - x_ticks[0])
    axes = Axes((x_ticks[0] - margin, x_ticks[-1] + margin), (marks[0][0], marks[-1][0]))
    x_marks = [(x, str(x)) for x in x_ticks[:: math.ceil(len(x_ticks) / MAX_X_TICKS)]]
    said = "; ".join(f"{line.name}: {', '.join(short(y) for _, y in line.points)}" for line in lines)
    said = f"{y_label} by {x_label}. {said}"
    return {"kind": "lines", "said": said, "axes": axes, "marks": (x_marks, marks), "label": x_label, "lines": lines}


def reliability_chart(bins: Sequence[Bin], name: str) -> Drawing:
    """Accuracy by confidence; below the diagonal is overconfidence. Larger dots stand for more answers."""
    percents = [(0, "0"), (0.25, "25"), (0.5, "50"), (0.75, "75"), (1, "100")]
    form = "confidence {:.1f}%, accuracy {:.1f}%, {:,} samples"
    titles = [form.format(100 * b.confidence, 100 * b.accuracy, b.count) for b in bins]
    return {
        "kind": "reliability", "said": f"Reliability diagram {name}: {'; '.join(titles)}",
        "axes": Axes((0.0, 1.0), (0.0, 1.0)), "marks": (percents, percents), "label": "confidence, %",
        "bins": list(zip(bins, titles, strict=True)), "most": max(b.count for b in bins),
    }  # fmt: skip


def histogram(values: Sequence[float], x_label: str) -> Drawing:
    """How often each range of a quantity occurs."""
    marks = _marks(values)
    low, high = marks[0][0], marks[-1][0]
    width, counts = (high - low) / HISTOGRAM_BINS, [0] * HISTOGRAM_BINS
    for value in values:
        counts[min(int((value - low) / (high - low) * HISTOGRAM_BINS), HISTOGRAM_BINS - 1)] += 1
    y_marks = _marks([0, max(counts)])
    bars = [(low + index * width, low + (index + 1) * width, count) for index, count in enumerate(counts) if count]
    said = f"{short(min(values))} to {short(max(values))}, mean {short(sum(values) / len(values))}"
    return {
        "kind": "histogram", "said": f"Histogram of {x_label}: {said}", "axes": Axes((low, high), (0, y_marks[-1][0])),
        "marks": (marks, y_marks), "label": x_label, "bars": bars,
    }  # fmt: skip


def stacked_bar(shares: Sequence[tuple[str, str, float]]) -> Drawing:
    """One bar cut into shares: (CSS class, title, share of 1)."""
    starts = [sum(share for *_, share in shares[:index]) for index in range(len(shares))]
    said = "Time by stage: " + "; ".join(title for _, title, _ in shares)
    return {"kind": "stacked", "said": said, "width": WIDTH, "shares": list(zip(shares, starts, strict=True))}


def dumbbells(rows: Sequence[tuple[str, float | None, float]], unit: str) -> Drawing:
    """A line for each run from what it was before to what it is after: (name, before, after)."""
    marks = _marks(value for _, before, after in rows for value in (before, after) if value is not None)
    axes = Axes((marks[0][0], marks[-1][0]), (0, 1), TOP + ROW_HEIGHT * len(rows) + BOTTOM)
    said = "; ".join(f"{name}: {'' if b is None else short(b) + ' to '}{short(a)}" for name, b, a in rows)
    placed = [(TOP + ROW_HEIGHT * index + 28, _fitting(row[0]), *row) for index, row in enumerate(rows)]
    said = f"Before and after, {unit}. {said}"
    return {"kind": "dumbbells", "said": said, "axes": axes, "marks": marks, "unit": unit, "rows": placed}


def _fitting(name: str) -> str:
    """A long name is shown without its middle: both ends tell runs apart."""
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME // 2]}…{name[-MAX_NAME // 2 :]}"


def _marks(values: Iterable[float]) -> list[tuple[float, str]]:
    """Of an axis that covers the values: where, and what they are called."""
    found = list(values)
    marks = ticks(min(found), max(found))
    return list(zip(marks, labels(marks), strict=True))
