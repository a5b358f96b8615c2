"""Charts as inline SVG. Colours are classes of page.css, so that they follow the theme; every mark has a title."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from markupsafe import Markup

from scripts.report.numbers import labels, short, ticks
from scripts.tables.calibration import Bin

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 14, 40
CENTRE = (LEFT + WIDTH - RIGHT) / 2
HISTOGRAM_BINS = 24
MAX_X_TICKS = 10
MAX_NAME = 42  # characters of a name that fit across a chart


Marks = tuple[Sequence[float], Sequence[str]]  # of an axis: where, and what they are called


class Chart(NamedTuple):
    """A drawing under its title, with its legend (CSS class, text), a sentence below, and the list of the stages."""

    title: str
    drawing: Markup
    keys: Sequence[tuple[str, str]] = ()
    note: str = ""
    style: str = ""
    stages: Sequence[tuple[str, str, str, str, str]] = ()


class Line(NamedTuple):
    """A line of a chart: its name, CSS class and points; `band` is a shaded range around it."""

    name: str
    style: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float]] = ()


class Axes(NamedTuple):
    """The ranges of a drawing."""

    x: tuple[float, float]
    y: tuple[float, float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Data -> pixels."""
        (x0, x1), (y0, y1) = self.x, self.y
        across = (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
        up = (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)
        return round(LEFT + across, 1), round(HEIGHT - BOTTOM - up, 1)


def line_chart(lines: Sequence[Line], x_label: str, y_label: str, x_ticks: Sequence[int]) -> Markup:
    """Lines over steps; the x axis is marked at `x_ticks`, two or more, at some of them when they are many."""
    values = [y for line in lines for _, y in line.points] + [y for line in lines for pair in line.band for y in pair]
    marks = ticks(min(values), max(values))
    margin = 0.04 * (x_ticks[-1] - x_ticks[0])
    axes = Axes((x_ticks[0] - margin, x_ticks[-1] + margin), (marks[0], marks[-1]))
    shown = x_ticks[:: math.ceil(len(x_ticks) / MAX_X_TICKS)]
    parts = _frame(axes, (shown, [str(x) for x in shown]), (marks, labels(marks)), x_label)
    for line in lines:
        xs, places = [x for x, _ in line.points], [axes.place(x, y) for x, y in line.points]
        if line.band:
            lower, upper = (map(axes.place, xs, side) for side in zip(*line.band, strict=True))
            parts.append(f'<polygon class="band" points="{_points([*lower, *reversed(list(upper))])}"/>')
        parts.append(f'<polyline class="{line.style}" points="{_points(places)}"/>')
        titles = [f"{line.name}, {x:g}: {short(y)}" for x, y in line.points]
        parts += [_circle(line.style, *place, 4, title) for place, title in zip(places, titles, strict=True)]
    said = "; ".join(f"{line.name}: {', '.join(short(y) for _, y in line.points)}" for line in lines)
    return _svg(f"{y_label} by {x_label}. {said}", parts)


def reliability_chart(bins: Sequence[Bin], name: str) -> Markup:
    """Accuracy by confidence; below the diagonal is overconfidence. Larger dots stand for more answers."""
    axes = Axes((0.0, 1.0), (0.0, 1.0))
    percents = [0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"]
    parts = _frame(axes, percents, percents, "confidence, %")
    most, said = max(b.count for b in bins), []
    for b in bins:
        (x0, y0), (x1, y1) = axes.place(b.low, 0), axes.place(b.high, b.accuracy)
        title = f"confidence {100 * b.confidence:.1f}%, accuracy {100 * b.accuracy:.1f}%, {b.count:,} samples"
        said.append(title)
        gap_top, gap_foot = sorted((axes.place(0, b.confidence)[1], y1))
        gap = f'x="{x0 + 1:.1f}" y="{gap_top}" width="{x1 - x0 - 2:.1f}" height="{gap_foot - gap_top:.1f}"'
        parts += [_bar(x0 + 1, x1 - 1, y1, y0, title), f'<rect class="gap" {gap}/>']
        parts.append(_circle("dot", f"{(x0 + x1) / 2:.1f}", y1, f"{(3 + 9 * b.count / most) / 2:.1f}", title))
    (x0, y0), (x1, y1) = axes.place(0, 0), axes.place(1, 1)
    parts.append(f'<line class="ideal" x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}"/>')
    return _svg(f"Reliability diagram {name}: {'; '.join(said)}", parts)


def histogram(values: Sequence[float], x_label: str) -> Markup:
    """How often each range of a quantity occurs."""
    marks = ticks(min(values), max(values))
    low, high = marks[0], marks[-1]
    counts = [0] * HISTOGRAM_BINS
    for value in values:
        counts[min(int((value - low) / (high - low) * HISTOGRAM_BINS), HISTOGRAM_BINS - 1)] += 1
    y_marks = ticks(0, max(counts))
    axes, width = Axes((low, high), (0, y_marks[-1])), (high - low) / HISTOGRAM_BINS
    parts = _frame(axes, (marks, labels(marks)), (y_marks, labels(y_marks)), x_label)
    for index, count in enumerate(counts):
        if count:
            (x0, y1), (x1, y0) = axes.place(low + index * width, count), axes.place(low + (index + 1) * width, 0)
            title = f"{short(low + index * width)} to {short(low + (index + 1) * width)}: {count:,} samples"
            parts.append(_bar(x0 + 0.5, x1 - 0.5, y1, y0, title))
    said = f"{short(min(values))} to {short(max(values))}, mean {short(sum(values) / len(values))}"
    return _svg(f"Histogram of {x_label}: {said}", parts)


def stacked_bar(shares: Sequence[tuple[str, str, float]]) -> Markup:
    """One bar cut into shares: (CSS class, title, share of 1)."""
    parts, start = [], 0.0
    for style, title, share in shares:
        shape = f'x="{start * WIDTH:.2f}" width="{max(share * WIDTH - 1, 0.2):.2f}" y="0" height="22"'
        parts.append(f'<rect class="{style}" {shape}>{_title(title)}</rect>')
        start += share
    return _svg("Time by stage: " + "; ".join(title for _, title, _ in shares), parts, height=22, shape="none")


def dumbbells(rows: Sequence[tuple[str, float | None, float]], unit: str) -> Markup:
    """A line for each run from what it was before to what it is after: (name, before, after)."""
    values = [value for _, before, after in rows for value in (before, after) if value is not None]
    marks, step = ticks(min(values), max(values)), 40
    height = TOP + step * len(rows) + BOTTOM
    axes = Axes((marks[0], marks[-1]), (0, 1))
    foot, parts = height - BOTTOM, []
    for mark, label in zip(marks, labels(marks), strict=True):
        x, _ = axes.place(mark, 0)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP}" y2="{foot}"/>')
        parts.append(_centred(x, foot + 16, label))
    for index, (name, before, after) in enumerate(rows):
        y, (x1, _) = TOP + step * index + 28, axes.place(after, 0)
        # A long name is shown without its middle: both ends tell runs apart.
        fitting = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME // 2]}…{name[-MAX_NAME // 2 :]}"
        parts.append(f'<text class="name" x="{LEFT}" y="{y - 12}">{escape(fitting)}{_title(name)}</text>')
        if before is not None:
            x0, _ = axes.place(before, 0)
            parts.append(f'<line class="link" x1="{x0}" x2="{x1}" y1="{y}" y2="{y}"/>')
            parts.append(_circle("before", x0, y, 5, f"before: {short(before)}"))
        parts.append(_circle("after", x1, y, 5.5, f"after: {short(after)}"))
    parts.append(_centred(CENTRE, height - 6, unit))
    said = "; ".join(f"{name}: {'' if b is None else short(b) + ' to '}{short(a)}" for name, b, a in rows)
    return _svg(f"Before and after, {unit}. {said}", parts, height=height)


def _frame(axes: Axes, x_marks: Marks, y_marks: Marks, label: str) -> list[str]:
    """A line at each mark of the y axis, the names of all marks, and what is on the x axis."""
    parts = []
    for mark, name in zip(*y_marks, strict=True):
        _, y = axes.place(axes.x[0], mark)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{y + 4}" text-anchor="end">{name}</text>')
    parts += [_centred(axes.place(x, 0)[0], HEIGHT - BOTTOM + 16, name) for x, name in zip(*x_marks, strict=True)]
    return [*parts, _centred(CENTRE, HEIGHT - 6, label)]


def _centred(x: float, y: float, text: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="middle">{escape(text)}</text>'


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in places)


def _bar(x0: float, x1: float, top: float, foot: float, title: str) -> str:
    shape = f'x="{x0:.1f}" y="{top}" width="{x1 - x0:.1f}" height="{max(foot - top, 1):.1f}"'
    return f'<rect class="bar" {shape}>{_title(title)}</rect>'


def _circle(style: str, x: float | str, y: float, radius: float | str, title: str) -> str:
    return f'<circle class="{style}" cx="{x}" cy="{y}" r="{radius}">{_title(title)}</circle>'


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>"


def _svg(description: str, parts: Sequence[str], height: int = HEIGHT, shape: str = "xMidYMid") -> Markup:
    box = f'viewBox="0 0 {WIDTH} {height}" preserveAspectRatio="{shape}"'
    head = f'<svg {box} role="img" aria-label="{escape(description)}">'
    return Markup(head + "".join(parts) + "</svg>")
