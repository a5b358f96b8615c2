"""The cells of a table laid out for the eye: three lines per row, or one line per cell with everything."""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

from scripts.tables.cells import TOLERANCE, Cell
from scripts.tables.grid import Grid
from scripts.tables.paper import PaperTable

NUM_SHOWN = 12  # cells named under a table
MARKS = "bold: beyond the tolerance; *: other settings than the row's; ±: standard deviation over the seeds"
PAIRED = "p: exact McNemar test on the samples that both have; of several seeds the mean difference and the largest p"


def compact(table: PaperTable, rows: Sequence[Sequence[Cell]], given: float | None = None) -> Grid:
    """For each row the published figures, ours, and the difference from them or from the baseline: those that are."""
    lines: list[list[str]] = []
    breaks: dict[str, int] = {}  # where each group of rows starts
    for cells in rows:
        first, start = cells[0], len(lines)
        breaks.setdefault(first.group, start)
        is_published, is_run = any(cell.paper is not None for cell in cells), any(cell.num_samples for cell in cells)
        if is_published or not is_run:
            lines.append(["", table.reference, *(_figure(cell.paper, table.decimals) for cell in cells)])
        if is_run:
            lines.append(["", "ours", *(_figure(cell.ours, table.decimals, cell.deviation) for cell in cells)])
        if is_run and first.baseline:
            lines.append(["", f"to {first.baseline}", *(_gain(cell, table.decimals) for cell in cells)])
        elif is_run and is_published and not table.has_baselines:
            lines.append(["", "difference", *(_difference(cell, table.decimals) for cell in cells)])
        lines[start][0] = first.row
    heading = ["run", "", *_headings([column.label for column in table.columns])]
    notes = [*_notes([cell for row in rows for cell in row], given), *[PAIRED] * table.has_baselines]
    return Grid(heading, lines, 2, frozenset(breaks.values()), notes)


def long(table: PaperTable, rows: Sequence[Sequence[Cell]], given: float | None = None) -> Grid:
    """One line per cell with every field."""
    cells = [cell for row in rows for cell in row]
    records = [record(table, cell) for cell in cells]
    lines = [["-" if value in (None, "") else str(value) for value in one.values()] for one in records]
    return Grid(list(records[0]), lines, len(records[0]), notes=_notes(cells, given))


def record(table: PaperTable, cell: Cell) -> dict[str, Any]:
    """All that is known of a cell, by field; None where there is nothing."""
    column = cell.column

    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, table.decimals + 2)

    seeds = " ".join(f"{seed}/order{order}" if order else str(seed) for seed, order in cell.by_seed)
    known = {
        "table": table.key, "group": cell.group, "row": cell.row, "column": column.label,
        "dataset": column.dataset or "+".join(column.mean_of), "direction": column.direction,
        "metric": column.metric or "mean", "paper": cell.paper, "ours": rounded(cell.ours),
        "deviation": rounded(cell.deviation), "seeds": seeds or None,
        "difference": cell.difference, "tolerance": rounded(cell.tolerance), "samples": cell.num_samples,
        "published": cell.published, "verdict": cell.verdict, "settings": "; ".join(cell.settings),
        "command": cell.command,
    }  # fmt: skip
    of_published = {"source": cell.source or None} if table.reference != "paper" else {}
    paired = {"baseline": cell.baseline or None, "gain": rounded(cell.gain), "p_value": cell.p_value}
    return known | of_published | (paired | {"common": cell.num_common or None} if table.has_baselines else {})


def _headings(labels: Sequence[str]) -> list[str]:
    """COCO t2i R@1, COCO t2i R@5 -> COCO t2i R@1, R@5: without the words that the label before starts with, too."""
    shown = [labels[0]]
    for before, label in itertools.pairwise(map(str.split, labels)):
        shared = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(before, label, strict=False))
        shown.append(" ".join(label[len(list(shared)) :]))
    return shown


def _figure(value: float | None, decimals: int, deviation: float | None = None) -> str:
    around = "" if deviation is None else f" ± {deviation:.{decimals}f}"
    return "-" if value is None else f"{value:.{decimals}f}{around}"


def _difference(cell: Cell, decimals: int) -> str:
    if cell.difference is None:
        return "-"
    shown = f"{cell.difference:+.{decimals}f}" if cell.difference else _figure(0.0, decimals)
    shown += f" of {cell.num_samples:,}" if cell.partial else ""
    return f"**{shown}**" if _kind(cell) == "off" else shown + ("*" if cell.settings else "")


def _gain(cell: Cell, decimals: int) -> str:
    if cell.gain is None:
        return "-"
    some = f" of {cell.num_common:,}" if cell.num_common != cell.published else ""
    p_value = "" if cell.p_value is None else f" (p {cell.p_value:.2g})"
    return f"{cell.gain:+.{decimals}f}{some}{'*' if cell.settings else ''}{p_value}"


def _notes(cells: Sequence[Cell], given: float | None) -> list[str]:
    """What the marks mean, how many cells say what, and which ones want attention."""
    ours = [cell for cell in cells if cell.verdict != "not in this repository"]
    counts = Counter(map(_kind, ours))
    notes = ["", ", ".join(f"{count} {kind}" for kind, count in counts.items()) + f", of {len(ours)} cells"]
    named = [cell for cell in ours if _kind(cell) in ("off", "partial", "without figures") or cell.settings]
    for cell in named[:NUM_SHOWN]:
        with_settings = f"; other settings: {'; '.join(cell.settings)}" if cell.settings else ""
        wanted = f" ({cell.command})" if _kind(cell) in ("partial", "without figures") else ""
        notes.append(f"- {cell.row}, {cell.column.label}: {cell.verdict}{with_settings}{wanted}")
    if len(named) > NUM_SHOWN:
        notes.append(f"- and {len(named) - NUM_SHOWN} more: --long")
    return [*notes, TOLERANCE if given is None else f"tolerance: {given:g} points, as asked for", MARKS]


def _kind(cell: Cell) -> str:
    """The verdict in one word or two."""
    if cell.verdict in ("reproduced", "reproduced with other settings", "no run", "no published figure"):
        return cell.verdict
    return next((kind for kind in ("off", "partial") if cell.verdict.startswith(kind)), "without figures")
