"""A run beside its row of the paper's tables, judged as `python -m scripts.tables` judges it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from scripts.runs.read import Run
from scripts.tables.cells import Cell, figure_cell
from scripts.tables.figures import Figures, caption_metrics, published_samples
from scripts.tables.fill import other_settings
from scripts.tables.paper import PaperTable, paper_tables


def paper_cells(run: Run, num_samples: int, values: Mapping[str, float]) -> tuple[PaperTable | None, dict[str, Cell]]:
    """The table of a run, and its cells by metric; none for a run that is no row or column of a table.

    A run is known by the name of its config, or the `name=...` that the table's row has.

    Args:
        run: the run.
        num_samples: good records, at least one.
        values: metric -> figure; those of captions are taken from the summary, when it is about these records.
    """
    task, dataset, direction = str(run.config["task"]), str(run.config["dataset"]), run.config.get("direction")
    for table, row in ((one, row) for one in _tables() if one.task == task for row in one.rows):
        wanted = row.run_for(dataset)
        if wanted is None or wanted.name != run.name:
            continue
        taken, missing = caption_metrics(run, num_samples) if task == "captioning" else (dict(values), None)
        found = Figures(run, num_samples, published_samples(task, dataset, direction), taken, missing)
        cells = {}
        for column in table.columns:
            if (column.dataset, column.direction) == (dataset, direction):
                settings = tuple(other_settings(wanted, run, column.metric))
                cell = Cell(row.group, row.label, column, row.paper[column.key], settings=settings)
                cells[str(column.metric)] = figure_cell(cell, table, [found], None)
        return table, cells
    return None, {}


@cache
def _tables() -> list[PaperTable]:
    return list(paper_tables().values())
