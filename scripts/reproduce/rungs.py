"""The rungs of the ladder, from cheap to dear, and whether a figure is the one that a table has."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from clipscore.config.adapting import AdaptingConfig
from clipscore.config.load import load_config
from scripts.run import config_class, run_one
from scripts.runs.folder import finished_summary, run_path
from scripts.runs.loop import in_order
from scripts.runs.read import Run, open_run
from scripts.runs.samples import read_sample
from scripts.tables.cells import CAPTION_SHARE, ZERO_SHOT_POINTS
from scripts.tables.figures import Figures, published_samples
from scripts.tables.paper import Column, PaperRun, PaperTable, Row

DEVIATIONS = 3.0  # of a figure by chance that are passed over: one in 370 lies beyond


@dataclass(frozen=True)
class Rung:
    """A row of a table on one data set: its columns there, of `limit` samples or all."""

    table: PaperTable
    row: Row
    wanted: PaperRun
    columns: Sequence[Column]
    limit: int | None = None

    @property
    def size(self) -> int | None:
        """How many samples the columns have; None: not known."""
        first = self.columns[0]
        return first.num_samples or published_samples(self.table.task, str(first.dataset), first.direction)

    def config(self, words: Sequence[str] = ()) -> AdaptingConfig:
        """The configuration of its run, with more `key=value` words; errors as in `load_config`."""
        first = self.columns[0]
        own = {"direction": first.direction, "limit": self.limit}
        words = [*self.wanted.overrides, *(f"{key}={value}" for key, value in own.items() if value), *words]
        config = load_config(self.wanted.config, words, config_class, first.dataset)
        assert isinstance(config, AdaptingConfig), "rows of tables are runs, not trainings"
        return config


@dataclass(frozen=True)
class Outcome:
    """What a rung came to: its run, and of each column the figure, the expected one and how far it may be off."""

    run: Run
    num_samples: int
    figures: Sequence[tuple[Column, float, float, float]]

    @property
    def distance(self) -> float:
        """How far the worst figure is off, in shares of what is allowed; at most 1 is as expected."""
        return max(abs(value - expected) / allowed for _, value, expected, allowed in self.figures)


def ladder(
    tables: Sequence[PaperTable], num_samples: int, is_ready: Callable[[Rung], bool] = lambda rung: True
) -> list[tuple[str, list[Rung]]]:
    """Titles and rungs: zero-shot on the smallest data set, `num_samples` of each row, and all that the tables have.

    Without those that are not ready. ValueError: none is left.
    """
    whole = [rung for table in tables for row in table.rows for rung in _rungs(table, row) if is_ready(rung)]
    if not whole:
        raise ValueError(
            "no row of the tables has a figure and all that its run needs; bash scripts/doctor.sh says what is "
            "missing, and output_root=DIR keeps runs of other settings apart"
        )
    by_row: dict[int, list[Rung]] = {}
    for rung in whole:
        by_row.setdefault(id(rung.row), []).append(rung)
    smallest = [min(rungs, key=lambda rung: rung.size or math.inf) for rungs in by_row.values()]
    plain = [rung for rung in smallest if not rung.config().adapts] or smallest
    parts = [replace(rung, limit=num_samples) for rung in smallest if (rung.size or math.inf) > num_samples]
    return [("zero-shot, whole", plain[:1]), (f"{num_samples} samples of each row", parts), ("whole tables", whole)]


def _rungs(table: PaperTable, row: Row) -> Iterator[Rung]:
    groups: dict[tuple[str, str | None], list[Column]] = {}
    for column in table.columns:
        known = row.paper.get(column.key) is not None and column.key not in row.doubtful
        if column.metric and column.dataset and known:
            groups.setdefault((column.dataset, column.direction), []).append(column)
    for (dataset, _), columns in groups.items():
        if wanted := row.run_for(dataset):
            yield Rung(table, row, wanted, columns)


def climb(rung: Rung, words: Sequence[str]) -> Outcome:
    """Run a rung, or take up what is there of it, and compare. ValueError: its run has none of the figures."""
    config, whole = rung.config(words), replace(rung, limit=None).config(words)
    if finished_summary(whole) is None:  # some samples of a whole run are no other figure
        run_one(config)
    run = open_run(run_path(config))
    samples = run.collect(read_sample)
    ordered = in_order(list(samples), config)[: run.summary["num_samples"] if run.summary else None]
    found = Figures(run, {key: samples[key] for key in ordered})  # of a longer run that was stopped the first ones
    size = rung.size or found.num_samples
    figures = []
    for column in rung.columns:
        expected = rung.row.paper[column.key]
        if expected is not None and column.metric in found.values:
            value = found.values[column.metric]
            allowed = tolerance(rung.table, expected, found.num_samples, size, config.adapts)
            figures.append((column, value, expected, allowed))
    if not figures:
        raise ValueError(f"{run.path} has none of {', '.join(str(column.metric) for column in rung.columns)}")
    return Outcome(run, found.num_samples, figures)


def tolerance(table: PaperTable, expected: float, num_samples: int, size: int, adapts: bool) -> float:
    """How far a figure over some samples may be from the expected one over all `size`, in points.

    Half of the last digit, the conventions of `tables.cells`, and three standard deviations: of which samples were
    taken, and after adaptation of random views and rounding, here and there. A caption metric is taken to vary from
    image to image as much as it is large.
    """
    convention = CAPTION_SHARE * expected if table.task == "captioning" else ZERO_SHOT_POINTS
    share = expected / 100
    spread = expected if table.task == "captioning" else 100 * math.sqrt(share * (1 - share))
    chance = max(0.0, 1 / num_samples - 1 / size) + adapts * (1 / num_samples + 1 / size)
    return 0.5 * 10**-table.decimals + convention + DEVIATIONS * spread * math.sqrt(chance)
