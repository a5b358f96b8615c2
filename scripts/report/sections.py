"""What the page says of one run: what must be known first, its figures, charts and settings. page.html draws it."""

import json
from collections.abc import Mapping
from typing import Any

import yaml

from scripts.report.figures import Figures
from scripts.report.run_charts import run_charts
from scripts.runs.read import Run
from scripts.runs.samples import Sample
from scripts.tables.cells import Cell, figure_cell
from scripts.tables.figures import measure
from scripts.tables.fill import other_settings
from scripts.tables.paper import PaperTable, paper_tables

NUM_LISTED_ERRORS = 20


def run_section(figures: Figures, num_shown: int) -> dict[str, Any]:
    """What page.html does not read from the figures; `num_shown` samples are in the gallery."""
    run, total = figures.run, len(figures.samples)
    order = "as many of each outcome as there are, in the order of their ids' hashes"
    errors = [f"{key}: {message}" for key, message in figures.errors.items()]
    if len(errors) > NUM_LISTED_ERRORS:
        errors[NUM_LISTED_ERRORS:] = [f"... and {len(errors) - NUM_LISTED_ERRORS:,} more"]
    record = {"fingerprint": run.fingerprint, "environments": run.environments}
    paper, cells = paper_cells(run, figures.samples) if figures.metrics else (None, {})
    others = "; ".join(dict.fromkeys(setting for cell in cells.values() for setting in cell.settings))
    return {
        "figures": figures,
        "errors": "\n".join(errors),
        "paper": paper,
        "cells": cells,
        "others": f" Other settings than the row's: {others}." if others else "",
        "charts": run_charts(figures),
        "shown": "all samples." if num_shown == total else f"{num_shown:,} of {total:,} samples, {order}.",
        "config": yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True),
        "environment": json.dumps(record, indent=2, ensure_ascii=False),
        "machines": _machines(run),
    }


def paper_cells(run: Run, samples: Mapping[str, Sample]) -> tuple[PaperTable | None, dict[str, Cell]]:
    """The table of the paper that a run belongs to, and its cells by metric, judged as `scripts.tables` judges them.

    A run is known by the name of its config, or the `name=...` that the table's row has; (None, {}): it is no row.
    """
    task, dataset, direction = str(run.config["task"]), str(run.config["dataset"]), run.config.get("direction")
    rows = [(table, row) for table in paper_tables().values() if table.task == task for row in table.rows]
    for table, row, wanted in ((table, row, row.run_for(dataset)) for table, row in rows):
        if wanted is None or wanted.name != run.name:
            continue
        found, cells = measure(run, samples), {}
        for column in table.columns:
            if (column.dataset, column.direction) == (dataset, direction):
                settings = tuple(other_settings(wanted, run, column.metric))
                cell = Cell(row.group, row.label, column, row.paper[column.key], settings=settings)
                cells[str(column.metric)] = figure_cell(cell, table, {(0, 0): found}, None)
        return table, cells
    return None, {}


def _machines(run: Run) -> str:
    found = dict.fromkeys(
        f"{env.get('gpu') or 'CPU'}, torch {env.get('packages', {}).get('torch', '?')}, "
        f"commit {str(env.get('commit') or '?')[:7]}"
        for env in run.environments
    )
    return "; ".join(found) or "not recorded"
