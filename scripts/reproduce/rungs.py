"""The rungs of the ladder, from cheap to dear: is a figure the one that a table has, and if not, why most likely?"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from clipscore.config.adapting import AdaptingConfig
from clipscore.config.load import load_config
from clipscore.models.backends import open_clip
from scripts.run import config_class, run_one
from scripts.runs.folder import finished_summary, run_path
from scripts.runs.loop import in_order
from scripts.runs.samples import Run, open_run, read_sample
from scripts.tables.cells import CAPTION_SHARE, ZERO_SHOT_POINTS
from scripts.tables.figures import Figures, published_samples
from scripts.tables.paper import Column, PaperRun, PaperTable, Row

DEVIATIONS = 3.0  # of a figure by chance that are passed over: one in 370 lies beyond
QUICK = "-quickgelu"
CLOSED = 0.5  # a cause is named if without it at least so much of the difference is gone


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
    """Titles and rungs, without those that are not ready, as the command's help has them; ValueError: none is left."""
    whole = [rung for table in tables for row in table.rows for rung in _rungs(table, row) if is_ready(rung)]
    if not whole:
        mend = "bash scripts/doctor.sh says what is missing, and output_root=DIR keeps runs of other settings apart"
        raise ValueError(f"no row of the tables has a figure and all that its run needs; {mend}")
    by_row = itertools.groupby(whole, key=lambda rung: id(rung.row))
    smallest = [min(rungs, key=lambda rung: rung.size or math.inf) for _, rungs in by_row]
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
    figures = [
        (column, value, expected, tolerance(rung.table, expected, found.num_samples, size, config.adapts))
        for column in rung.columns
        if (expected := rung.row.paper[column.key]) is not None
        and (value := found.values.get(str(column.metric))) is not None
    ]
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
    return table.half_digit + convention + DEVIATIONS * spread * math.sqrt(chance)


class Cause(NamedTuple):
    """What may be wrong, what to do, and how far the figure is off without it, in shares of what is allowed."""

    text: str
    advice: str
    distance: float = 0.0


def plain_cause(rung: Rung, outcome: Outcome, config: AdaptingConfig) -> Cause | None:
    """What is wrong whatever the figure: the data are not whole, or a CLIP is tuned in another precision on a GPU."""
    wanted, run = min(rung.limit or rung.size or 0, rung.size or 0), outcome.run
    if outcome.num_samples < wanted or run.about.get("faults"):
        text = f"the data are not whole: {outcome.num_samples:,} of {wanted:,} samples"
        return Cause(text, f"bash scripts/doctor.sh {config.dataset} says what is missing")
    precision = run.fingerprint.get("precision", "").removeprefix("torch.")
    on_gpu = any(environment.get("gpu") for environment in run.environments)
    if config.tunes_clip and on_gpu and precision != "float16":
        text = f"the precision is {precision}, in which small updates of a CLIP's weights are rounded otherwise"
        return Cause(text, "the published figures are of fp16 on a GPU: leave precision=auto")
    return None


def most_likely_cause(rung: Rung, outcome: Outcome, words: Sequence[str]) -> Cause:
    """The cause that explains an outcome best; probes run the rung with one thing changed, in folders of their own."""
    found = []
    for number, (text, advice, word) in enumerate(_changes(rung.config(words))):
        probe = climb(rung, [*words, word, f"name={outcome.run.name}-probe{number}"])
        found.append(Cause(text, advice, probe.distance))
    found += _class_order(rung, outcome)
    best = min(found, key=lambda cause: cause.distance, default=None)
    if best and best.distance <= CLOSED * outcome.distance:
        return best
    return Cause("none of the usual causes", "compare config.yaml and env.json of the run with the row's YAML")


def _changes(config: AdaptingConfig) -> Iterator[tuple[str, str, str]]:
    """What could be another way: its name, what to do, and the `key=value` word that changes it."""
    prompt = getattr(config, "prompt", None)
    if prompt is not None and getattr(config, "tune", None) != "prompt":
        other = prompt.replace("_", " ") if "_" in prompt else prompt.replace(" ", "_")
        yield f"the prompt is {prompt!r}", f"the figure is that of prompt={other!r}", f"prompt={other}"
    models = {"policy": config.policy}
    if config.reward and len(config.reward.models) == 1:
        models["reward.models"] = config.reward.models[0].name
    for key, model in models.items():
        arch, colon, file = model.partition(":")
        other = arch.removesuffix(QUICK) if arch.endswith(QUICK) else arch + QUICK
        if colon and other in open_clip.list_models():  # of other weights the name says the activation
            text = f"the weights of {model} belong to the other activation, GELU or QuickGELU"
            yield text, f"give {key}={other}:{file}", f"{key}={other}:{file}"


def _class_order(rung: Rung, outcome: Outcome) -> list[Cause]:
    """Where another order of class names would bring the figure: classes are told apart, but by others' names."""
    column, _, expected, allowed = outcome.figures[0]
    if rung.table.task != "classification" or column.metric != "accuracy":
        return []
    counts = Counter(outcome.run.collect(lambda row: (row["label"], row["top5"][0])).values())
    given = dict[int, int]()
    for (label, answer), _ in counts.most_common():
        if label not in given and answer not in given.values():
            given[label] = answer
    moved = sorted(label for label, answer in given.items() if label != answer)
    hits = sum(counts[pair] for pair in given.items() if counts[pair] > 1)  # a single picture shows no order
    text = f"class names are in another order than the labels, at {len(moved)} of {len(given)} classes: "
    if moved and (names := outcome.run.about.get("class_names")):
        text += f"pictures of {names[moved[0]]!r} are answered {names[given[moved[0]]]!r}"
    advice = "the names must come in the order of the labels: of the sorted folders, or of the split file"
    return [Cause(text, advice, abs(100 * hits / counts.total() - expected) / allowed)] if moved else []
