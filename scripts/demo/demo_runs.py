"""The runs that the demo's tables are made of, as tables.yaml has them."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clipscore.config.fields import RunConfig
from clipscore.config.load import load_config
from clipscore.config.yaml12 import read_table
from scripts.run import config_class

JUDGE = "demo/reward.pt"  # CLIPScore's model; there is no third CLIP that reads these scenes
DATA_FOLDER = "demo_data"  # under the output root: a data root is only ever read


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
