"""All cells of a table of the paper, from the run folders under an output root."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clipscore.config.load import load_config
from scripts.run import config_class
from scripts.runs.compare_configs import ABSENT, config_differences, differences
from scripts.runs.read import Run, find_runs
from scripts.tables.cells import Cell, figure_cell, mean_cell
from scripts.tables.figures import Figures, measure
from scripts.tables.paper import PaperRun, PaperTable, Row


def fill_table(table: PaperTable, output_root: Path, tolerance: float | None = None) -> list[list[Cell]]:
    """The cells of a table, row by row, from the run folders in `output_root`.

    `tolerance`: how large a difference may be, in points; None: as `cells` says.

    Raises:
        ValueError: a run folder is damaged.
    """
    runs = [run for run in find_runs(output_root) if run.config.get("task") == table.task]
    return [_fill_row(table, row, runs, tolerance) for row in table.rows]


def _fill_row(table: PaperTable, row: Row, runs: Sequence[Run], tolerance: float | None) -> list[Cell]:
    found: dict[
        tuple[str, str | None], list[Figures]
    ] = {}  # the metrics of a data set share one reading of its records
    cells: dict[str, Cell] = {}
    for column in table.columns:
        cell = Cell(row.group, row.label, column, row.paper[column.key], verdict="not in this repository")
        dataset, direction = str(column.dataset), column.direction
        wanted = row.run_for(dataset)
        if column.mean_of:
            cell = replace(cell, command=cell_command(row.runs[0], ",".join(column.mean_of), None))
            cell = mean_cell(cell, table, [cells[key] for key in column.mean_of], tolerance)
        elif wanted:
            if (dataset, direction) not in found:
                found[dataset, direction] = _measure(wanted.name, dataset, direction, runs)
            cell = replace(cell, command=cell_command(wanted, dataset, direction), verdict="no run")
            cell = _fill_cell(cell, table, wanted, found[dataset, direction], tolerance)
        cells[column.key] = cell
    return list(cells.values())


def _fill_cell(cell: Cell, table: PaperTable, wanted: PaperRun, found: list[Figures], tolerance: float | None) -> Cell:
    if not found:
        return cell
    settings = [other_settings(wanted, figures.run, cell.column.metric) for figures in found]
    own = [figures for figures, others in zip(found, settings, strict=True) if not others]
    if own:  # seeds with other settings are no further seeds of the row
        return figure_cell(cell, table, own, tolerance)
    every = tuple(dict.fromkeys(text for others in settings for text in others))
    return figure_cell(replace(cell, settings=every), table, found, tolerance)


def _measure(name: str, dataset: str, direction: str | None, runs: Sequence[Run]) -> list[Figures]:
    """The runs of a cell that have records, one for each seed: the one with the most."""
    by_seed: dict[int, Figures] = {}
    for run in runs:
        if (run.name, run.config["dataset"], run.config.get("direction")) == (name, dataset, direction):
            figures, seed = measure(run), int(run.config["seed"])
            if figures.num_samples > (by_seed[seed].num_samples if seed in by_seed else 0):
                by_seed[seed] = figures
    return [by_seed[seed] for seed in sorted(by_seed)]


def cell_command(wanted: PaperRun, datasets: str, direction: str | None) -> str:
    """The command that fills a cell, for the first GPU."""
    directions = [f"direction={direction}"] if direction else []
    return shlex.join(["bash", wanted.script, "0", *wanted.overrides, f"dataset={datasets}", *directions])


def other_settings(wanted: PaperRun, run: Run, metric: str | None = None) -> list[str]:
    """Where a run's configuration differs from the row's, the seed aside: "lr is 0.001 (the row: 1e-05)".

    `metric` is the cell's: CLIPScore and RefCLIPScore depend on `metric_model` too.
    """
    words = [*wanted.overrides, *([f"direction={run.config['direction']}"] if "direction" in run.config else [])]
    config = load_config(wanted.config, words, config_class, str(run.config["dataset"]))
    row = config.model_dump(mode="json") | {"seed": run.config["seed"]}
    found = config_differences(run.config, row, type(config))
    if "clipscore" in (metric or ""):
        found += differences(*({"metric_model": values.get("metric_model", ABSENT)} for values in (run.config, row)))
    # A key that the run has not is newer than the run; a place in a list that it has not was left out.
    known = [text for text in found if f"is {ABSENT!r} there" not in text or "[" in text.partition(" is ")[0]]
    others = [text.replace(" there and ", " (the row: ").removesuffix(" here") + ")" for text in known]
    return others + (["the data are not as published (about.json says how)"] if run.about.get("faults") else [])
