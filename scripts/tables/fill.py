"""All cells of a table of the paper, from the run folders under an output root."""

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
    """The cells of a table, row by row, from the run folders in `output_root`; ValueError: one of them is damaged.

    `tolerance`: how large a difference may be, in points; None: as `cells` says.
    """
    runs = [run for run in find_runs(output_root) if run.config.get("task") == table.task]
    return [_fill_row(table, row, runs, tolerance) for row in table.rows]


def _fill_row(table: PaperTable, row: Row, runs: Sequence[Run], tolerance: float | None) -> list[Cell]:
    measured: dict[tuple[str, str | None], list[Figures]] = {}  # the metrics of a data set share one reading
    cells: dict[str, Cell] = {}
    for column in table.columns:
        cell = Cell(row.group, row.label, column, row.paper[column.key], verdict="not in this repository")
        dataset, direction = str(column.dataset), column.direction
        wanted = row.run_for(dataset)
        if column.mean_of:
            cell = replace(cell, command=cell_command(row.runs[0], ",".join(column.mean_of), None))
            cell = mean_cell(cell, table, [cells[key] for key in column.mean_of], tolerance)
        elif wanted:
            if (dataset, direction) not in measured:
                measured[dataset, direction] = _measure(wanted.name, dataset, direction, runs)
            found = [(one, other_settings(wanted, one.run, column.metric)) for one in measured[dataset, direction]]
            found = [pair for pair in found if not pair[1]] or found  # seeds with other settings are none of the row's
            settings = tuple(dict.fromkeys(text for _, others in found for text in others))
            command = cell_command(wanted, dataset, direction)
            cell = replace(cell, command=command, verdict="no run", settings=settings)
            if found:
                cell = figure_cell(cell, table, [figures for figures, _ in found], tolerance)
        cells[column.key] = cell
    return list(cells.values())


def _measure(name: str, dataset: str, direction: str | None, runs: Sequence[Run]) -> list[Figures]:
    """The runs of a cell that have records, one for each seed: the one with the most."""
    wanted = [r for r in runs if (r.name, r.config["dataset"], r.config.get("direction")) == (name, dataset, direction)]
    fullest = sorted(map(measure, reversed(wanted)), key=lambda figures: figures.num_samples)  # of equals the first
    by_seed = {int(figures.run.config["seed"]): figures for figures in fullest if figures.num_samples}
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
    others = [text.replace(" there and ", " (the row: ").removesuffix(" here") + ")" for text in found]
    return others + (["the data are not as published (about.json says how)"] if run.about.get("faults") else [])
