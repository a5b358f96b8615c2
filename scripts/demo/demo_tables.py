"""The demo's tables: the runs that they are made of, as tables.yaml has them, and what their records say.

`python -m scripts.demo.benchmark` makes the runs and prints the tables; `python -m scripts.tables demo` prints them.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clipscore.config.fields import RunConfig
from clipscore.config.load import load_config
from clipscore.config.yaml12 import read_table
from clipscore.metrics.captions import check_metrics, score_captions
from clipscore.metrics.coco import has_java
from clipscore.metrics.significance import bootstrap_interval, changes, mcnemar_p_value
from clipscore.models.load import load_clip
from scripts.run import config_class
from scripts.runs.folder import run_path
from scripts.runs.samples import Sample, open_run, read_sample
from scripts.tables.figures import column, share
from scripts.tables.grid import Grid, written

JUDGE = "demo/reward.pt"  # CLIPScore's model; there is no third CLIP that reads these scenes
DATA_FOLDER = "demo_data"  # under the output root: a data root is only ever read
Samples = Mapping[str, Sample]
CAPTION_COLUMNS = {"BLEU-4": ("bleu", "bleu_4"), "CIDEr": ("cider", "cider"), "CLIPScore": ("clipscore", "clipscore")}
P_LEGEND = "in brackets the p-value against {} (exact McNemar test of the first answers to the same samples)"


class Method(NamedTuple):
    """A column of a table: a config, and what the demo's small models need instead of its values."""

    name: str
    config: str
    overrides: tuple[str, ...]


class Line(NamedTuple):
    """A line of a table: what is in its first cells, the data set, and the overrides that go with it."""

    cells: tuple[str, ...]
    dataset: str
    overrides: tuple[str, ...] = ()
    suffix: str = ""  # of the runs' names, where the overrides make other runs


class Table(NamedTuple):
    """Every method on every line; the first method is what the others are compared with."""

    heading: Sequence[str]
    methods: list[Method]
    lines: list[Line]
    places: Sequence[int]  # a cell has the share of right answers up to each of these ranks; none: captions
    legend: str
    meaning: str  # what the table says, in a line
    quick: list[Line]  # the lines of the quick form, of how many samples, and the methods that it leaves out
    limit: int
    only_full: Sequence[str] = ()


CONTENT: dict[str, Any] = read_table(Path(__file__).with_name("tables.yaml"))


def _words(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for name in names for word in CONTENT["words"][name])


def _table(name: str) -> Table:
    content = dict(CONTENT["tables"][name])
    methods = [Method(label, config, _words(names)) for label, config, *names in content.pop("methods")]
    lines = {
        Line(tuple(line["cells"]), line["dataset"], _words(line.get("words", ())), line.get("suffix", "")): line
        for line in content.pop("lines")
    }
    return Table(methods=methods, lines=list(lines), quick=[key for key in lines if "quick" in lines[key]], **content)


CLASSIFICATION, RETRIEVAL, CAPTIONING, SAME_INFORMATION = map(_table, CONTENT["tables"])
TABLES = [CLASSIFICATION, RETRIEVAL, CAPTIONING]
BASELINE, SKETCH = CLASSIFICATION.methods[0].name, CLASSIFICATION.quick[0]
Runs = dict[tuple[str, Line], RunConfig]


def demo_runs(words: Sequence[str], tables: Sequence[Table] = tuple(TABLES), full: bool = True) -> Runs:
    """The configuration of every run of these tables; `words` are overrides for all of them.

    `full`: all lines and samples; else the quick form's.
    """
    keys = {word.partition("=")[0] for word in words}
    if fixed := sorted(keys & {"dataset", "direction", "name"}):
        raise ValueError(f"{', '.join(fixed)}: set by each line of the tables; leave it out")
    probe = load_config("configs/classification/zero_shot.yaml", words, config_class, "demo/clean")
    runs = {}
    for table in tables:
        own = [f"data_root={Path(probe.output_root) / DATA_FOLDER}", *([] if full else [f"limit={table.limit}"])]
        methods = [method for method in table.methods if full or method.name not in table.only_full]
        for method, line in itertools.product(methods, table.lines if full else table.quick):
            name = f"name=demo_{method.name}{line.suffix}".replace(" ", "_").replace("-", "_")
            overrides = [*_words(["every"]), name, *own, *method.overrides, *line.overrides, *words]
            runs[method.name, line] = load_config(
                f"configs/{method.config}.yaml", overrides, config_class, line.dataset
            )
    return runs


def read_run(config: RunConfig) -> dict[str, Sample]:
    """The samples of a run; none when it has not begun."""
    path = run_path(config)
    return open_run(path).collect(read_sample) if (path / "config.yaml").is_file() else {}


def hits(samples: Samples, places: Sequence[int]) -> str:
    """The share of right answers up to each of these ranks, in %."""
    ranks = column(samples.values(), "rank")
    return " / ".join(f"{share(ranks, place):.1f}" for place in places)


def p_value(before: Samples, after: Samples) -> float:
    """Whether the difference of two runs on the same samples is chance (exact McNemar test of the first answers)."""
    return mcnemar_p_value(*changes(*([samples[key].is_right for key in before] for samples in (before, after))))


def table_grid(table: Table, runs: Runs) -> Grid:
    """A table, from the runs of the lines that are among them.

    In brackets the p-value against the first method, "-" where a run lacks samples of that; see `caption_grid`.
    """
    if not table.places:
        return caption_grid(table, runs)
    names = [method.name for method in table.methods if any(name == method.name for name, _ in runs)]
    rows = []
    for line in [line for line in table.lines if (names[0], line) in runs]:
        base, *others = (read_run(runs[name, line]) for name in names)
        row = [*line.cells, str(len(base)), hits(base, table.places) if base else "-"]
        for samples in others:
            same = {key: samples[key] for key in base if key in samples}  # a run may have had another limit
            is_whole = base and len(same) == len(base)
            row.append(f"{hits(same, table.places)} (p {p_value(base, same):.1g})" if is_whole else "-")
        rows.append(row)
    notes = [table.legend, P_LEGEND.format(names[0])]
    return Grid([*table.heading, "n", *names], rows, len(table.heading), notes=notes)


def caption_cells(samples: Samples, config: RunConfig, dataset: str, names: Sequence[str]) -> list[str]:
    """Each metric of a run's captions before and after, and the mean difference per image with its 95% interval."""
    metrics = check_metrics([CAPTION_COLUMNS[name][0] for name in names])
    references = {key: sample.references for key, sample in samples.items()}
    paths = {key: Path(config.data_root) / dataset / key for key in samples}
    judge = load_clip(JUDGE, Path(config.pretrained_root))
    texts = ({key: getattr(s, side) or "" for key, s in samples.items()} for side in ("caption_before", "caption"))
    sides = [score_captions(captions, references, metrics, judge, paths) for captions in texts]
    cells = []
    for key in (CAPTION_COLUMNS[name][1] for name in names):
        means = " -> ".join(f"{scores.means[key]:.1f}" for scores in sides)
        was, now = ([values[key] for values in scores.per_caption.values()] for scores in sides)
        cells.append("{} ({:+.1f}, {:+.1f} to {:+.1f})".format(means, *bootstrap_interval(was, now)))
    return cells


def caption_grid(table: Table, runs: Runs) -> Grid:
    """The captioning table: CapDec and ClipCap before and after RLCF. BLEU and CIDEr need Java."""
    names = [name for name in CAPTION_COLUMNS if name == "CLIPScore" or has_java()]
    rows = []
    for line, method in itertools.product(table.lines, table.methods):
        if config := runs.get((method.name, line)):
            samples = read_run(config)
            shown = caption_cells(samples, config, line.dataset, names) if samples else ["-"] * len(names)
            rows.append([*line.cells, method.name, str(len(samples)), *shown])
    return Grid([*table.heading, "n", *names], rows, len(table.heading), notes=[table.legend])


def demo_tables(words: Sequence[str], form: str = "markdown") -> str:
    """The tables, from the records that are there; FileNotFoundError: no run has begun.

    `words` are the overrides that the runs were made with; `form` is "markdown", "csv" or "latex".
    """
    runs = demo_runs(words)
    begun = {key: config for key, config in runs.items() if run_path(config).is_dir()}
    if not begun:
        folder = run_path(next(iter(runs.values()))).parent
        raise FileNotFoundError(f"no run of the demo in {folder}; `bash scripts/quickstart.sh` makes them")
    methods, lines = {name for name, _ in begun}, {line for _, line in begun}
    shown = {(name, line): config for (name, line), config in runs.items() if name in methods and line in lines}
    grids = [grid for grid in (table_grid(table, shown) for table in TABLES) if grid.rows]
    return "\n\n".join(written(grid, form) for grid in grids)
