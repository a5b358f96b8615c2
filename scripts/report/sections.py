"""What the page says of one run: what must be known first, its figures, charts and settings. page.html draws it."""

import json
from collections.abc import Sequence
from typing import Any

import yaml

from scripts.report.figures import Figures
from scripts.report.numbers import NO_VALUE, number
from scripts.report.run_charts import run_charts
from scripts.runs.read import Run
from scripts.runs.samples import Sample
from scripts.tables.cells import TOLERANCE, Cell, figure_cell
from scripts.tables.figures import measure
from scripts.tables.fill import other_settings
from scripts.tables.paper import PaperTable, paper_tables

NUM_LISTED_ERRORS = 20
PAPER_DECIMALS = 2


def run_section(figures: Figures, num_shown: int) -> dict[str, Any]:
    """What page.html does not read from the figures; `num_shown` samples are in the gallery."""
    run, total = figures.run, len(figures.samples)
    order = "as many of each outcome as there are, in the order of their ids' hashes"
    errors = [f"{key}: {message}" for key, message in figures.errors.items()]
    if len(errors) > NUM_LISTED_ERRORS:
        errors[NUM_LISTED_ERRORS:] = [f"... and {len(errors) - NUM_LISTED_ERRORS:,} more"]
    record = {"fingerprint": run.fingerprint, "environments": run.environments}
    return {
        "figures": figures,
        "errors": "\n".join(errors),
        "table": metrics_table(figures) if total else None,
        "charts": run_charts(figures),
        "shown": "all samples." if num_shown == total else f"{num_shown:,} of {total:,} samples, {order}.",
        "config": yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True),
        "environment": json.dumps(record, indent=2, ensure_ascii=False),
        "machines": _machines(run),
    }


def metrics_table(figures: Figures) -> dict[str, Any]:
    """Every metric before and after adaptation, and what the paper has."""
    table, cells = paper_cells(figures.run, list(figures.samples.values())) if figures.metrics else (None, {})
    note = ""
    if table:
        others = dict.fromkeys(setting for cell in cells.values() for setting in cell.settings)
        noted = f" Other settings than the row's: {'; '.join(others)}." if others else ""
        note = f"Paper: {table.title}, row {next(iter(cells.values())).row}; {TOLERANCE}.{noted}"
    changes = any(m.before is not None for m in figures.metrics)
    heading = ["", *(["before", "after", "change"] if changes else ["value"])]
    rows = []
    for m in figures.metrics:
        decimals = PAPER_DECIMALS if m.key in cells else m.decimals
        row, after = [m.label], number(m.after, decimals)
        row += [number(m.before, decimals), after, m.change(decimals)] if changes else [after]
        if table:  # the paper's figure, the difference from it, and the verdict
            cell = cells.get(m.key)
            if cell is None or cell.paper is None:
                row += [NO_VALUE] * 3
            else:
                difference = number(cell.difference, table.decimals, signed=True)
                row += [number(cell.paper, table.decimals), difference, cell.verdict]
        rows.append(row)
    return {
        "caption": "Figures before and after adaptation" if changes else "Figures",
        "heading": heading + (["paper", "ours − paper", "verdict"] if table else []),
        "rows": rows,
        "beside_paper": note,
    }


def paper_cells(run: Run, samples: Sequence[Sample]) -> tuple[PaperTable | None, dict[str, Cell]]:
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
                cells[str(column.metric)] = figure_cell(cell, table, [found], None)
        return table, cells
    return None, {}


def _machines(run: Run) -> str:
    found = dict.fromkeys(
        f"{env.get('gpu') or 'CPU'}, torch {env.get('packages', {}).get('torch', '?')}, "
        f"commit {str(env.get('commit') or '?')[:7]}"
        for env in run.environments
    )
    return "; ".join(found) or "not recorded"
