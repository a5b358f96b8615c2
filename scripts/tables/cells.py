"""One cell of a table: the paper's figure (or one published elsewhere), ours, and whether the difference is chance.

A difference has the paper's digits, and is 0 when no other number of right samples comes nearer. The tolerance is half
a unit of the paper's last digit, plus

* accuracy and recall after adaptation: 1.96 sqrt(p (1 - p) / n (1 + 1 / seeds)), p being the published figure. Random
  views and rounding on a GPU make each sample right with some probability of its own; the variance of a mean of n such
  samples is at most p (1 - p) / n. It counts once for the paper's run and once, divided by the seeds, for ours.
* zero-shot, where nothing is drawn: 0.1 points, for half precision and image decoders.
* caption metrics, for which there is no such formula: 1% of the paper's figure.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clipscore.metrics.significance import changes, mcnemar_p_value
from scripts.tables.figures import Figures
from scripts.tables.paper import Column, PaperTable

TOLERANCE = (
    "tolerance: half a unit of the paper's last digit plus, after adaptation, the 95% bound on what random views and "
    "rounding can change, 1.96 sqrt(p(1-p)/n (1 + 1/seeds)); zero-shot 0.1 points; caption metrics 1% of the figure"
)
QUANTILE = 1.96  # of the normal distribution: 95% of it are within
ZERO_SHOT_POINTS = 0.1
CAPTION_SHARE = 0.01

Seeds = tuple[int, int]  # seed and order seed


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
    assert cell.ours is not None
    if cell.paper is None:
        cell.verdict = cell.partial or "no published figure"
        return
    exact = cell.ours - cell.paper
    cell.tolerance = table.half_digit + chance if given is None else given
    cell.difference = 0.0 if abs(exact) <= nearest + 1e-9 else round(exact, table.decimals)  # 69.965 is no float
    off = f"off by {cell.difference:+.{table.decimals}f}" if abs(cell.difference) > cell.tolerance else ""
    agrees = "reproduced with other settings" if cell.settings else "reproduced"
    cell.verdict = cell.partial or off or agrees
