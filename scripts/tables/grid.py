"""A table of text, written as Markdown, LaTeX or CSV."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "->": r"$\to$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """Rows of cells under a heading; **text** is bold."""

    heading: Sequence[str]
    rows: Sequence[Sequence[Any]]  # of texts; in CSV of anything, None being an empty field
    num_texts: int = 1  # the first so many columns hold text, the others numbers, set to the right
    breaks: frozenset[int] = frozenset()  # numbers of the rows that start a new block
    notes: Sequence[str] = ()  # lines under the table; not in CSV


def written(grid: Grid, form: str, aligned: bool = False) -> str:
    """A table as "markdown" (`aligned`: to be read as it is), "latex" or "csv"."""
    if form == "latex":
        return latex(grid)
    if form != "csv":
        return markdown(grid, aligned)
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([grid.heading, *grid.rows])
    return stream.getvalue().rstrip("\n")


def markdown(grid: Grid, aligned: bool = False) -> str:
    """Markdown; `aligned` pads the cells, so that it can be read as it is."""
    lines = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (grid.heading, *grid.rows)]
    widths = [max(4, *map(len, cells)) if aligned else 0 for cells in zip(*lines, strict=True)]
    pad = [str.ljust] * grid.num_texts + [str.rjust] * (len(widths) - grid.num_texts)
    padded = [[fill(*pair) for fill, *pair in zip(pad, line, widths, strict=True)] for line in lines]
    rules = ["-" * max(width, 4) for width in widths]
    padded.insert(1, [rule if i < grid.num_texts else rule[1:] + ":" for i, rule in enumerate(rules)])
    return "\n".join([*(f"| {' | '.join(line)} |" for line in padded), *grid.notes])


def latex(grid: Grid) -> str:
    """A booktabs table; the notes are comments above it."""
    align = "l" * grid.num_texts + "r" * (len(grid.heading) - grid.num_texts)
    heading, *rows = (" & ".join(map(_latex_cell, row)) + r" \\" for row in (grid.heading, *grid.rows))
    lines = [f"% {note}" for note in grid.notes]
    lines += [f"\\begin{{tabular}}{{{align}}}", r"\toprule", heading, r"\midrule"]
    for number, row in enumerate(rows):
        lines += [r"\midrule", row] if number and number in grid.breaks else [row]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _latex_cell(text: str) -> str:
    bold = re.fullmatch(r"\*\*(.*)\*\*", text)
    escaped = re.sub(r"->|[\\~^±&%$#_{}]", lambda found: _LATEX[found[0]], bold[1] if bold else text)
    return f"\\textbf{{{escaped}}}" if bold else escaped
