"""A table of text, written as Markdown, LaTeX or CSV."""

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
    """Rows of cells under a heading; **text** is bold."""

    heading: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_texts: int = 1  # the first so many columns hold text, the others numbers, set to the right
    breaks: frozenset[int] = frozenset()  # numbers of the rows that start a new block
    notes: Sequence[str] = ()  # lines under the table


def markdown(grid: Grid, aligned: bool = False) -> str:
    """Markdown; `aligned` pads the cells, so that it can be read as it is."""
    lines = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (grid.heading, *grid.rows)]
    widths = [max(4, *map(len, cells)) if aligned else 0 for cells in zip(*lines, strict=True)]
    rules = ["-" * max(width, 4) for width in widths]
    rules = [rule if i < grid.num_texts else rule[1:] + ":" for i, rule in enumerate(rules)]
    formats = [f"{'<' if i < grid.num_texts else '>'}{width}" for i, width in enumerate(widths)]
    padded = [[format(cell, form) for cell, form in zip(line, formats, strict=True)] for line in lines]
    padded.insert(1, rules)
    return "\n".join([*(f"| {' | '.join(line)} |" for line in padded), *grid.notes])


def latex(grid: Grid) -> str:
    """A booktabs table; the notes are comments above it."""
    align = "l" * grid.num_texts + "r" * (len(grid.heading) - grid.num_texts)
    lines = [f"% {note}" for note in grid.notes]
    lines += [f"\\begin{{tabular}}{{{align}}}", r"\toprule", _latex_row(grid.heading), r"\midrule"]
    for number, row in enumerate(grid.rows):
        lines += [*([r"\midrule"] if number and number in grid.breaks else []), _latex_row(row)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def comma_separated(heading: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """CSV with a heading; None is an empty field."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(heading)
    writer.writerows(rows)
    return stream.getvalue().rstrip("\n")


def _latex_row(row: Sequence[str]) -> str:
    return " & ".join(map(_latex_cell, row)) + r" \\"


def _latex_cell(text: str) -> str:
    bold = re.fullmatch(r"\*\*(.*)\*\*", text)
    escaped = re.sub(r"->|[\\~^±&%$#_{}]", lambda found: _LATEX[found[0]], bold[1] if bold else text)
    return f"\\textbf{{{escaped}}}" if bold else escaped
