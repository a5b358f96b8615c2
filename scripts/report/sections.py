"""What the page says of one run: what must be known first, its figures, charts and settings. page.html draws it."""

import json
from collections.abc import Sequence
from typing import Any

import yaml

from scripts.report.figures import Figures, Metric
from scripts.report.numbers import NO_VALUE, counted, number, p_value, seconds
from scripts.report.run_charts import run_charts
from scripts.runs.read import Run
from scripts.runs.samples import BROKEN, FELL, FIXED, ROSE, Sample
from scripts.tables.cells import TOLERANCE, Cell, figure_cell
from scripts.tables.figures import measure
from scripts.tables.fill import other_settings
from scripts.tables.paper import PaperTable, paper_tables

NUM_LISTED_ERRORS = 20
PAPER_DECIMALS = 2


def run_section(figures: Figures, num_shown: int) -> dict[str, Any]:
    """The texts of a run's article; the script of the page fills in its gallery of `num_shown` samples."""
    run, total = figures.run, len(figures.samples)
    order = "as many of each outcome as there are, in the order of their ids' hashes"
    errors = [f"{key}: {message}" for key, message in figures.errors.items()]
    if len(errors) > NUM_LISTED_ERRORS:
        errors[NUM_LISTED_ERRORS:] = [f"... and {len(errors) - NUM_LISTED_ERRORS:,} more"]
    record = {"fingerprint": run.fingerprint, "environments": run.environments}
    return {
        "name": run.name,
        "kicker": f"{run.config['task']} · {run.column} · seed {run.config.get('seed')}",
        "badges": badges(figures),
        "num_errors": f"{len(figures.errors):,}",
        "errors": "\n".join(errors),
        "tiles": tiles(figures) if total else [],
        **(metrics_table(figures) if total else {}),
        "charts": run_charts(figures),
        "shown": "all samples." if num_shown == total else f"{num_shown:,} of {total:,} samples, {order}.",
        "config": yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True),
        "environment": json.dumps(record, indent=2, ensure_ascii=False),
        "machines": _machines(run),
        "path": str(run.path),
    }


def badges(figures: Figures) -> list[tuple[str, str]]:
    """What a reader must know before the figures: (text, CSS class)."""
    run, summary, count = figures.run, figures.run.summary, len(figures.samples)
    found = [(counted(count, "sample"), "")]
    if summary is None:
        found.append(("unfinished: figures of the samples so far", "warn"))
    elif summary["num_samples"] != count:
        found.append((f"its summary is of {summary['num_samples']:,} samples, this page of all records", "warn"))
    if summary and "partial" in summary:
        found.append((f"partial, {summary['partial']}", "warn"))
    if figures.nothing_moved:
        found.append(("nothing moved: no parameter changed in any sample", "bad"))
    if figures.errors:
        found.append((counted(len(figures.errors), "error"), "bad"))
    if run.config.get("method"):
        tuned = run.config.get("tune", "none")
        found.append((run.config["method"] + (f", tunes the {tuned}" if tuned != "none" else ""), ""))
    return found


def tiles(figures: Figures) -> list[tuple[str, str, str]]:
    """The first things to look at: (name, figure, note)."""
    found = [_metric_tile(figures.metrics[0])] if figures.metrics else []
    count = len(figures.samples)
    names = [(FIXED, "Fixed"), (BROKEN, "Broken")] if figures.p_value is not None else []
    if figures.reward and figures.run.config["task"] == "captioning":
        names += [(ROSE, "Reward rose"), (FELL, "Reward fell")]
    for key, title in names:
        amount = figures.outcomes.get(key, 0)
        found.append((title, f"{amount:,}", f"{number(100 * amount / count)}% of the samples"))
    rewritten = [s.caption_before != s.caption for s in figures.samples.values() if s.caption_before is not None]
    if rewritten:
        found.append(("Captions changed", f"{sum(rewritten):,}", f"of {len(rewritten):,}"))
    if figures.p_value is not None:
        found.append(("McNemar test", p_value(figures.p_value), "p that fixed and broken are equally likely"))
    if figures.moved:
        still = figures.moved.count(0)
        note = "mean L2 norm of the change" + (f"; {still:,} samples did not move" if still else "")
        found.append(("Parameters moved", f"{sum(figures.moved) / len(figures.moved):.3g}", note))
    return [*found, ("Time", seconds(figures.seconds), "per sample")]


def _metric_tile(metric: Metric) -> tuple[str, str, str]:
    title, _, unit = metric.label.partition(", ")
    unit = "%" if unit == "%" else ""
    note = f"{metric.change(metric.decimals)} from {number(metric.before, metric.decimals)}{unit} before"
    return title, number(metric.after, metric.decimals) + unit, "" if metric.before is None else note


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
