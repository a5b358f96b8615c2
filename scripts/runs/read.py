"""Reading run folders: their configuration, their summary, and their records one at a time. Nothing is written."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipscore.config.yaml12 import parse_yaml
from scripts.runs.rows import Row, T, read_rows, record_files, results

NEEDED = ("task", "dataset", "seed")  # of a run's configuration


@dataclass(frozen=True)
class Run:
    """A run folder, finished or not."""

    path: Path
    config: dict[str, Any]  # the resolved configuration
    about: dict[str, Any]  # what a reader of the records needs to know: root of the images, class names, gallery, ...
    environments: list[dict[str, Any]]  # versions and hardware of each process that wrote to it
    fingerprint: dict[str, str]  # hashes of weights and data
    summary: dict[str, Any] | None  # the figures of a finished run; None as long as samples are missing

    @property
    def name(self) -> str:
        """Its config's name, or the `name=...` it was given."""
        return str(self.config.get("name") or self.config["task"])

    @property
    def column(self) -> str:
        """The column of the paper's table: the data set, in retrieval with the direction."""
        dataset, direction = str(self.config["dataset"]), self.config.get("direction")
        return f"{dataset}/{direction}" if direction else dataset

    def records(self) -> Iterator[Row]:
        """Every record as it was written, errors and superseded ones included; ValueError: a line is damaged."""
        return (row for file in record_files(self.path) for row in read_rows(file))

    def collect(self, project: Callable[[Row], T]) -> dict[str, T]:
        """What `project` keeps of each sample's result, by id, whatever the order of the run; see `results`."""
        return dict(sorted(results(self.records(), project).items()))


def open_run(path: str | Path) -> Run:
    """A run folder; FileNotFoundError: there is no run in it, ValueError: one of its files is damaged."""
    path = Path(path).expanduser()
    if (config := read_file(path / "config.yaml")) is None:
        what = "holds no run (no config.yaml)" if path.is_dir() else "is no folder"
        raise FileNotFoundError(f"{path} {what}; expected a folder that `python -m scripts.run` wrote")
    if absent := [key for key in NEEDED if key not in config]:
        raise ValueError(f"{path}/config.yaml has no {' and no '.join(absent)}: it is not the configuration of a run")
    env, about = (read_file(path / name) or {} for name in ("env.json", "about.json"))
    summary = read_file(path / "summary.json")
    return Run(path, config, about, env.get("environments", []), env.get("fingerprint", {}), summary)


def find_runs(output_root: str | Path) -> list[Run]:
    """All run folders directly under an output root, by name; folders that hold no run are passed over."""
    folders = sorted(file.parent for file in Path(output_root).expanduser().glob("*/config.yaml"))
    return [open_run(folder) for folder in folders if (folder / "env.json").is_file()]


def read_file(file: Path) -> Row | None:
    """config.yaml, env.json, about.json or summary.json, None when it is not there; ValueError: it is damaged."""
    try:
        text = file.read_text(encoding="utf-8")
        found, problems = parse_yaml(text) if file.suffix == ".yaml" else (json.loads(text), [])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        found, problems = None, [str(error)]
    if problems or not isinstance(found, dict):
        why = "; ".join(problems) or "no keys"
        raise ValueError(f"{file} is damaged: {why}; move the folder away (summary.json alone may be deleted instead)")
    return found
