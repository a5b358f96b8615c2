"""The paper's Tables 1 to 3: their numbers, and which run of ours belongs to each cell (paper_tables.json)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PAPER_FILE = Path(__file__).with_name("paper_tables.json")


@dataclass(frozen=True)
class PaperRun:
    """What fills the cells of a row, or some of them."""

    script: str  # the benchmark script that runs `config`, a YAML file
    config: str
    overrides: Sequence[str]  # `key=value` words that the row needs
    datasets: Sequence[str]  # whose columns it fills
    sequential: bool = False  # a sample's result depends on those before it (momentum): one process does them all

    @property
    def name(self) -> str:
        """Name of its run folders: `name=...`, else that of the config file."""
        given = [word.removeprefix("name=") for word in self.overrides if word.startswith("name=")]
        return given[-1] if given else self.config.rpartition("/")[2].removesuffix(".yaml")


@dataclass(frozen=True)
class Column:
    """A column: a metric on a data set (in retrieval in one direction), or the mean of other columns."""

    key: str
    label: str
    dataset: str | None = None
    direction: str | None = None
    metric: str | None = None
    mean_of: Sequence[str] = ()
    num_samples: int | None = None  # of a data set whose size is not published


@dataclass(frozen=True)
class Row:
    """A method: its runs (none for methods that are not in this repository) and the paper's figures by column key."""

    group: str
    label: str
    runs: Sequence[PaperRun]
    paper: dict[str, float | None]
    doubtful: Sequence[str] = ()  # columns whose figure is most likely a slip of the paper

    def run_for(self, dataset: str) -> PaperRun | None:
        """The run that fills the columns of a data set."""
        return next((run for run in self.runs if dataset in run.datasets), None)


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper; `decimals` is how many digits after the point it prints."""

    key: str
    title: str
    task: str
    decimals: int
    columns: Sequence[Column]
    rows: Sequence[Row]

    @property
    def half_digit(self) -> float:
        """Half a unit of the last digit."""
        return 0.5 * 10**-self.decimals


def paper_tables(file: Path = PAPER_FILE) -> dict[str, PaperTable]:
    """The tables of a file by their key: table1, table2, table3."""
    tables: dict[str, PaperTable] = {}
    for key, table in json.loads(file.read_text(encoding="utf-8")).items():
        columns = [Column(**column) for column in table["columns"]]
        rows = [Row(**row | {"runs": [PaperRun(**run) for run in row["runs"]]}) for row in table["rows"]]
        tables[key] = PaperTable(key, **table | {"columns": columns, "rows": rows})
    return tables
