"""The cells of a table: the published figure, ours from the run folders, and whether the difference is chance.

A difference has the paper's digits, and is 0 when no other number of right samples comes nearer. After adaptation,
random views and rounding on a GPU make each sample right with some probability of its own; the variance of a mean of n
such samples is at most p (1 - p) / n, p being the published figure. It counts once for the paper's run and once, over
the seeds, for ours. Zero-shot draws nothing; half precision and image decoders differ.
"""

import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clipscore.config.load import load_config
from clipscore.metrics.significance import changes, mcnemar_p_value
from scripts.run import config_class
from scripts.runs.compare_configs import ABSENT, config_differences, differences
from scripts.runs.samples import Run, find_runs, read_sample
from scripts.tables.figures import Figures
from scripts.tables.paper import Column, PaperRun, PaperTable, Row

TOLERANCE = (
    "tolerance: half a unit of the paper's last digit plus, after adaptation, the 95% bound on what random views and "
    "rounding can change, 1.96 sqrt(p(1-p)/n (1 + 1/seeds)); zero-shot 0.1 points; caption metrics 1% of the figure"
)
QUANTILE = 1.96  # of the normal distribution: 95% of it are within
ZERO_SHOT_POINTS = 0.1
CAPTION_SHARE = 0.01

Seeds = tuple[int, int]  # seed and order seed
BySeed = Mapping[Seeds, Figures]


@dataclass
class Cell:
    """A cell, with all that is known about it; figures and differences in points of % (caption metrics times 100)."""

    group: str
    row: str
    column: Column
    paper: float | None
    ours: float | None = None  # mean over the seeds
    by_seed: dict[Seeds, float] = field(default_factory=dict)
    difference: float | None = None  # ours - paper in the paper's digits
    tolerance: float | None = None  # how large a difference may be
    num_samples: int = 0  # per seed
    published: int | None = None  # how many samples the column has
    adapts: bool = True  # false for zero-shot
    verdict: str = ""  # reproduced (with other settings), off by +1.23, partial, no run, or what is missing
    settings: tuple[str, ...] = ()  # where our configuration differs from the row's
    command: str = ""  # fills the cell; empty for methods that are not in this repository
    source: str = ""  # of the published figure
    hits: Mapping[Seeds, Mapping[str, bool]] = field(default_factory=dict)  # where cells are compared with a baseline
    baseline: str = ""  # the row that it is compared with
    gain: float | None = None  # ours - the baseline's, on the samples that both have; mean over the seeds of both
    p_value: float | None = None  # exact McNemar's of it, the largest of the seeds'; None for a mean of columns
    num_common: int = 0  # samples that both have, per seed

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds (n - 1); None for fewer than two."""
        return statistics.stdev(self.by_seed.values()) if len(self.by_seed) > 1 else None

    @property
    def partial(self) -> str:
        """The verdict on a cell of another number of samples than the paper's column; empty for others."""
        return "" if self.num_samples == self.published else f"partial, {self.num_samples:,} of {self.published:,}"

    @property
    def variance(self) -> float:
        """Bound on the variance of the difference of two runs over the same samples, in points squared."""
        share = (self.ours or 0.0 if self.paper is None else self.paper) / 100
        return 100**2 * share * (1 - share) / self.num_samples * (1 + 1 / max(1, len(self.by_seed)))

    def nearest(self, half: float) -> float:
        """How far the nearest share of n samples may be from the paper's figure: half a digit, or half a sample."""
        return half if self.partial else max(half, 50 / self.num_samples)


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
    table: PaperTable, row: Row, wanted: PaperRun, column: Column, found: BySeed, tolerance: float | None = None
) -> Cell:
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


def fill_figure(cell: Cell, table: PaperTable, found: Mapping[Seeds, Figures], given: float | None) -> None:
    """Fill the cell of a data set's column from its runs, one for each seed and order seed, at least one.

    Those that are whole count; if none is, the largest. `given`: the tolerance in points; None: this module's.
    """
    most = max(figures.num_samples for figures in found.values())
    whole = {seeds: figures for seeds, figures in found.items() if figures.is_whole}
    taken = whole or {seeds: figures for seeds, figures in found.items() if figures.num_samples == most}
    first, metric = next(iter(taken.values())), str(cell.column.metric)
    cell.num_samples, cell.published = first.num_samples, first.published
    cell.adapts = first.run.config.get("method") != "zero_shot"
    cell.hits = {seeds: one.hits for seeds, one in taken.items()} if table.has_baselines else {}
    values = {seeds: one.values[metric] for seeds, one in taken.items() if metric in one.values}
    if len(values) < len(taken):
        cell.verdict = "; ".join(filter(None, [cell.partial, first.missing or f"no {metric} in the summary"]))
        return
    cell.ours, cell.by_seed = statistics.fmean(values.values()), values
    if table.task == "captioning":
        _judge(cell, table, table.half_digit, CAPTION_SHARE * (cell.paper or 0.0), given)
    else:
        chance = QUANTILE * math.sqrt(cell.variance) if cell.adapts else ZERO_SHOT_POINTS
        _judge(cell, table, cell.nearest(table.half_digit), chance, given)


def fill_mean(cell: Cell, table: PaperTable, parts: Sequence[Cell], given: float | None) -> None:
    """Fill the cell of a column that is the mean of others; it stays empty as long as one of them has no figure."""
    ours = [part.ours for part in parts if part.ours is not None]
    if len(ours) < len(parts):
        without = [part.column.label for part in parts if part.ours is None]
        cell.verdict = f"without {', '.join(without)}" if ours else "no run"
        return
    seeds = sorted(set.intersection(*(set(part.by_seed) for part in parts)))
    cell.ours, cell.adapts = statistics.fmean(ours), parts[0].adapts
    cell.by_seed = {seed: statistics.fmean(part.by_seed[seed] for part in parts) for seed in seeds}
    cell.num_samples = sum(part.num_samples for part in parts)
    cell.published = sum(part.published or 0 for part in parts)
    cell.settings = tuple(dict.fromkeys(setting for part in parts for setting in part.settings))
    chance = QUANTILE * math.sqrt(sum(part.variance for part in parts)) / len(parts)
    rounding = statistics.fmean(part.nearest(table.half_digit) for part in parts)  # of its parts; and its own
    _judge(cell, table, table.half_digit + rounding, chance if cell.adapts else ZERO_SHOT_POINTS, given)


def compare_with(base: Cell, cell: Cell, parts: Sequence[Cell]) -> None:
    """Give a cell its difference from its baseline's on the samples that both have, if any, seed by seed.

    One that is the mean of others has the mean of theirs, without a test.
    """
    cell.baseline = base.row
    found = []
    for seeds in cell.hits.keys() & base.hits.keys():
        was, now = base.hits[seeds], cell.hits[seeds]
        if common := [key for key in now if key in was]:
            fixed, broken = changes([was[key] for key in common], [now[key] for key in common])
            found.append((100 * (fixed - broken) / len(common), mcnemar_p_value(fixed, broken), len(common)))
    gains = [part.gain for part in parts if part.gain is not None] or [gain for gain, *_ in found]
    if found:
        cell.p_value, cell.num_common = max(p for _, p, _ in found), min(number for *_, number in found)
    if gains and len(gains) >= len(parts):
        cell.gain = statistics.fmean(gains)
        cell.num_common = cell.num_common or sum(part.num_common for part in parts)


def _judge(cell: Cell, table: PaperTable, nearest: float, chance: float, given: float | None) -> None:
    """Give a cell its verdict, and its difference if it has both figures.

    A difference up to `nearest` is 0; one up to half a digit and `chance`, or up to `given`, reproduces; in points.
    """
    if cell.paper is None or cell.ours is None:
        cell.verdict = cell.partial or "no published figure"
        return
    exact = cell.ours - cell.paper
    cell.tolerance = table.half_digit + chance if given is None else given
    cell.difference = 0.0 if abs(exact) <= nearest + 1e-9 else round(exact, table.decimals)  # 69.965 is no float
    off = f"off by {cell.difference:+.{table.decimals}f}" if abs(cell.difference) > cell.tolerance else ""
    agrees = "reproduced with other settings" if cell.settings else "reproduced"
    cell.verdict = cell.partial or off or agrees
