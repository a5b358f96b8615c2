"""The paper's Tables 1 to 3, and the field's (with each row's source): published figures, and our run for each cell.

`python3 -m scripts.tables.paper table1 GPU [key=value ...]` prints the commands that fill a table, one per line. It
needs the standard library alone, so that a list does not wait for an installation.
"""

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PAPER_FILE, FIELD_FILE = (Path(__file__).with_name(f"{name}_tables.json") for name in ("paper", "field"))
SEVERITY = "5"  # of ImageNet-C


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
    """A method: its runs (none for methods that are not in this repository) and published figures by column key."""

    group: str
    label: str
    runs: Sequence[PaperRun]
    paper: dict[str, float | None]
    doubtful: Sequence[str] = ()  # columns whose figure is most likely a slip of the paper
    source: str = ""  # of the figures, if that is not the paper

    def run_for(self, dataset: str) -> PaperRun | None:
        """The run that fills the columns of a data set."""
        return next((run for run in self.runs if dataset in run.datasets), None)


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper, or of the field; `decimals` is how many digits after the point it prints."""

    key: str
    title: str
    task: str
    decimals: int
    columns: Sequence[Column]
    rows: Sequence[Row]
    reference: str = "paper"  # what the published figures are called
    has_baselines: bool = False  # each group of rows starts with the one that the others are compared with

    @property
    def half_digit(self) -> float:
        """Half a unit of the last digit."""
        return 0.5 * 10**-self.decimals


def paper_tables(file: Path = PAPER_FILE, severity: str = SEVERITY) -> dict[str, PaperTable]:
    """The tables of a file by their key: table1, table2, table3. A run fills all columns, if it names no data sets."""
    tables: dict[str, PaperTable] = {}
    for key, table in json.loads(file.read_text(encoding="utf-8").replace("SEVERITY", severity)).items():
        columns = [Column(**column) for column in table["columns"]]
        every = {"datasets": [column.dataset for column in columns if column.dataset]}
        rows = [Row(**row | {"runs": [PaperRun(**every | run) for run in row["runs"]]}) for row in table["rows"]]
        tables[key] = PaperTable(key, **table | {"columns": columns, "rows": rows})
    return tables


def find_tables(key: str, words: Sequence[str]) -> tuple[dict[str, PaperTable], list[str]]:
    """All tables, and the words that are left of those behind a key: `imagenet_c severity=3` is about that severity.

    ValueError: it is none of 1 to 5.
    """
    own = [word for word in words if key == "imagenet_c" and word.startswith("severity=")]
    severity = own[-1].removeprefix("severity=") if own else SEVERITY
    if severity not in tuple("12345"):
        raise ValueError(f"{own[-1]}: ImageNet-C has the severities 1 to 5")
    return paper_tables() | paper_tables(FIELD_FILE, severity), [word for word in words if word not in own]


def table_commands(table: PaperTable, gpu: str, words: Sequence[str] = ()) -> list[str]:
    """Shell commands that run every row and column of a table, in the order of its rows.

    `gpu` is the number of the CUDA device, several (0,1), or cpu; `words` are `key=value` overrides for all of them.
    ValueError: an override that would take the runs out of the table.
    """
    for word in words:
        if word.startswith("name="):
            raise ValueError(f"{word}: a table finds its runs by their names; output_root=DIR keeps runs apart")
    commands = []
    for run in (run for row in table.rows for run in row.runs):
        datasets = [] if table.reference == "paper" else [f"dataset={','.join(run.datasets)}"]  # the scripts' are those
        command = shlex.join(["bash", run.script, gpu, *run.overrides, *datasets, *words])
        commands.append(f"NPROC=1 {command}" if run.sequential else command)
    return list(dict.fromkeys(commands))


def main(arguments: Sequence[str]) -> int:
    key, gpu, *words = arguments
    try:
        tables, words = find_tables(key, words)
        print("\n".join(table_commands(tables[key], gpu, words)))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
