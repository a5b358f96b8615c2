"""A table of text, written as Markdown, LaTeX or CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "->": r"$\to$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """Rows of cells under a heading.

    Attributes:
        heading: one text per column.
        rows: as many texts each; **text** is bold.
        num_texts: the first so many columns hold text, the others numbers, set to the right.
        breaks: numbers of the rows that start a new block.
        notes: lines under the table.
    """

    heading: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_texts: int = 1
    breaks: frozenset[int] = frozenset()
    notes: Sequence[str] = ()


def markdown(grid: Grid, aligned: bool = False) -> str:
    """Markdown; `aligned` pads the cells, so that it can be read as it is."""
    lines = [list(map(_markdown_cell, row)) for row in (grid.heading, *grid.rows)]
    rule = ["---"] * grid.num_texts + ["---:"] * (len(grid.heading) - grid.num_texts)
    if not aligned:
        shown = ["| " + " | ".join(line) + " |" for line in lines]
        shown.insert(1, "|" + "|".join(rule) + "|")
        return "\n".join([*shown, *grid.notes])
    widths = [max(4, *(len(line[i]) for line in lines)) for i in range(len(grid.heading))]
    padded = [
        [cell.ljust(width) if i < grid.num_texts else cell.rjust(width) for i, (cell, width) in enumerate(pairs)]
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    ]
    shown = ["| " + " | ".join(line) + " |" for line in padded]
    rules = ["-" * (w - 1) + ("-" if i < grid.num_texts else ":") for i, w in enumerate(widths)]
    shown.insert(1, "| " + " | ".join(rules) + " |")
    return "\n".join([*shown, *grid.notes])


def latex(grid: Grid) -> str:
    """A booktabs table; the notes are comments above it."""
    align = "l" * grid.num_texts + "r" * (len(grid.heading) - grid.num_texts)
    lines = [f"% {note}" for note in grid.notes]
    lines += [f"\\begin{{tabular}}{{{align}}}", r"\toprule", _latex_row(grid.heading), r"\midrule"]
    for number, row in enumerate(grid.rows):
        if number and number in grid.breaks:
            lines.append(r"\midrule")
        lines.append(_latex_row(row))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def comma_separated(heading: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """CSV with a heading; None is an empty field."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows(rows)
    return stream.getvalue().rstrip("\n")


def _markdown_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _latex_row(row: Sequence[str]) -> str:
    return " & ".join(map(_latex_cell, row)) + r" \\"


def _latex_cell(text: str) -> str:
    bold = re.fullmatch(r"\*\*(.*)\*\*", text)
    escaped = re.sub(r"->|[\\~^±&%$#_{}]", lambda found: _LATEX[found[0]], bold[1] if bold else text)
    return f"\\textbf{{{escaped}}}" if bold else escaped
