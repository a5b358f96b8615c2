"""All cells of a table, from the run folders under an output root."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from clipscore.config.load import load_config
from scripts.run import config_class
from scripts.runs.compare_configs import ABSENT, config_differences, differences
from scripts.runs.read import Run, find_runs
from scripts.runs.samples import read_sample
from scripts.tables.cells import Cell, Seeds, compare_with, fill_figure, fill_mean
from scripts.tables.figures import Figures
from scripts.tables.paper import Column, PaperRun, PaperTable, Row


def fill_table(table: PaperTable, output_root: Path, tolerance: float | None = None) -> list[list[Cell]]:
    """The cells of a table, row by row, from the run folders in `output_root`; ValueError: one of them is damaged.

    `tolerance`: how large a difference may be, in points; None: as `cells` says.
    """
    runs = [run for run in find_runs(output_root) if run.config.get("task") == table.task]
    bases: dict[str, dict[str, Cell]] = {}  # the first row of each group, by column
    rows = []
    for row in table.rows:
        measured: dict[tuple[str, str | None], dict[Seeds, Figures]] = {}  # a data set's metrics share one reading
        cells: dict[str, Cell] = {}
        for column in table.columns:
            dataset, direction = str(column.dataset), column.direction
            parts = [cells[key] for key in column.mean_of]
            if wanted := row.run_for(dataset):
                if (dataset, direction) not in measured:
                    measured[dataset, direction] = _measure(wanted, dataset, direction, runs)
                cell = run_cell(table, row, wanted, column, measured[dataset, direction], tolerance)
            else:
                cell = _cell(row, column, "not in this repository")
            if parts and row.runs:
                cell.command = cell_command(row.runs[0], ",".join(column.mean_of), None)
                fill_mean(cell, table, parts, tolerance)
            if table.has_baselines and row.group in bases:
                compare_with(bases[row.group][column.key], cell, parts)
            cells[column.key] = cell
        bases.setdefault(row.group, cells)
        rows.append(list(cells.values()))
    return rows


def run_cell(
    table: PaperTable, row: Row, wanted: PaperRun, column: Column, found: Mapping[Seeds, Figures],
    tolerance: float | None = None,
) -> Cell:  # fmt: skip
    """The cell of a data set's column, from the row's runs, if any; of those with other settings only if all are."""
    cell = _cell(row, column, "no run")
    cell.command = cell_command(wanted, str(column.dataset), column.direction)
    others = {seeds: other_settings(wanted, one.run, column.metric) for seeds, one in found.items()}
    found = {seeds: one for seeds, one in found.items() if not others[seeds]} or found
    cell.settings = tuple(dict.fromkeys(text for seeds in found for text in others[seeds]))
    if found:
        fill_figure(cell, table, found, tolerance)
    return cell


def _cell(row: Row, column: Column, verdict: str) -> Cell:
    return Cell(row.group, row.label, column, row.paper.get(column.key), verdict=verdict, source=row.source)


def _measure(wanted: PaperRun, dataset: str, direction: str | None, runs: Sequence[Run]) -> dict[Seeds, Figures]:
    """The runs of a cell that have records, one for each seed and order seed: the one with the most.

    Where each sample has a result of its own and all are there, the order decides nothing and its seed counts as 0.
    """
    place = (wanted.name, dataset, direction)
    same = [run for run in runs if (run.name, run.config["dataset"], run.config.get("direction")) == place]
    found = [Figures(run, run.collect(read_sample)) for run in same]
    by_seed: dict[Seeds, Figures] = {}
    for figures in sorted(reversed(found), key=lambda figures: figures.num_samples):  # of equals the first
        config, is_ordered = figures.run.config, wanted.sequential or not figures.is_whole
        if figures.num_samples:
            by_seed[int(config["seed"]), int(config.get("order_seed", 0)) if is_ordered else 0] = figures
    return dict(sorted(by_seed.items()))


def cell_command(wanted: PaperRun, datasets: str, direction: str | None) -> str:
    """The command that fills a cell, for the first GPU."""
    directions = [f"direction={direction}"] if direction else []
    return shlex.join(["bash", wanted.script, "0", *wanted.overrides, f"dataset={datasets}", *directions])


def other_settings(wanted: PaperRun, run: Run, metric: str | None = None) -> list[str]:
    """Where a run's configuration differs from the row's, its seeds aside: "lr is 0.001 (the row: 1e-05)".

    `metric` is the cell's: CLIPScore and RefCLIPScore depend on `metric_model` too.
    """
    words = [*wanted.overrides, *([f"direction={run.config['direction']}"] if "direction" in run.config else [])]
    config = load_config(wanted.config, words, config_class, str(run.config["dataset"]))
    seeds = {key: run.config[key] for key in ("seed", "order_seed") if key in run.config}
    row = config.model_dump(mode="json") | seeds
    found = config_differences(run.config, row, type(config))
    if "clipscore" in (metric or ""):
        found += differences(*({"metric_model": values.get("metric_model", ABSENT)} for values in (run.config, row)))
    others = [text.replace(" there and ", " (the row: ").removesuffix(" here") + ")" for text in found]
    return others + (["the data are not as published (about.json says how)"] if run.about.get("faults") else [])
