"""What the paper's tables have for a run."""

from __future__ import annotations

from functools import cache

from scripts.reader import Run
from scripts.tables.paper import PaperTable, paper_tables


def paper_values(run: Run) -> dict[str, float]:
    """Metric -> the paper's figure; empty for a run that is no row or column of a table.

    A run is known by the name of its config, or the `name=...` that the table's row has.
    """
    dataset, direction = str(run.config["dataset"]), run.config.get("direction")
    for table in _tables():
        if table.task != run.config["task"]:
            continue
        for row in table.rows:
            ours = row.run_for(dataset)
            if ours is None or ours.name != run.name:
                continue
            columns = [column for column in table.columns if (column.dataset, column.direction) == (dataset, direction)]
            values = {column.metric: row.paper.get(column.key) for column in columns}
            return {metric: value for metric, value in values.items() if metric and value is not None}
    return {}


@cache
def _tables() -> list[PaperTable]:
    return list(paper_tables().values())
