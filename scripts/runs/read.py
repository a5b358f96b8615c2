"""Reading run folders: their configuration, their summary, and their records one at a time.

Tables, statistics and reports are made from here. Nothing is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from clipscore.config.yaml12 import parse_yaml

Row = dict[str, Any]
T = TypeVar("T")

RECORD_FILES = "rows*.jsonl"  # rows.jsonl, and one more file per shard
NEEDED = ("task", "dataset", "seed")  # of a run's configuration


@dataclass(frozen=True)
class Run:
    """A run folder, finished or not.

    Attributes:
        path: the folder.
        config: the resolved configuration.
        about: what a reader of the records needs to know: root of the images, class names, gallery, ...
        environments: versions and hardware of each process that wrote to it.
        fingerprint: hashes of weights and data.
        summary: the figures of a finished run; None as long as samples are missing.
    """

    path: Path
    config: dict[str, Any]
    about: dict[str, Any]
    environments: list[dict[str, Any]]
    fingerprint: dict[str, str]
    summary: dict[str, Any] | None

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
        """Every record as it was written, errors and superseded ones included; a torn last line is passed over.

        Raises:
            ValueError: a line in the middle of a file is damaged.
        """
        for file in sorted(self.path.glob(RECORD_FILES)):
            with open(file, "rb") as stream:
                for number, line in enumerate(stream, start=1):
                    if not line.endswith(b"\n"):
                        break
                    try:
                        row = json.loads(line)
                    except ValueError:
                        row = None
                    if not isinstance(row, dict) or "id" not in row:
                        raise ValueError(f"{file}, line {number} is damaged: {line[:60]!r}; delete it")
                    yield row

    def collect(self, project: Callable[[Row], T]) -> dict[str, T]:
        """What is needed of each sample's record; the records themselves are not kept.

        Args:
            project: record -> what to keep of it. Called for good records only.

        Returns:
            By sample id, in the order of their first good record; of two good ones of an id the later counts. An error
            never takes the place of a result: another shard, or a resumed run, may have done the sample.
        """
        return {row["id"]: project(row) for row in self.records() if "error" not in row}


def open_run(path: str | Path) -> Run:
    """A run folder.

    Raises:
        FileNotFoundError: no such folder, or no run in it.
        ValueError: its config.yaml, or another of its files, is damaged.
    """
    path = Path(path).expanduser()
    config_file = path / "config.yaml"
    if not config_file.is_file():
        what = "holds no run (no config.yaml)" if path.is_dir() else "is no folder"
        raise FileNotFoundError(f"{path} {what}; expected a folder that `python -m scripts.run` wrote")
    config, problems = parse_yaml(config_file.read_text(encoding="utf-8"))
    if problems or not isinstance(config, dict):
        raise ValueError(f"{config_file} is damaged: {'; '.join(problems) or 'no keys'}; run it again elsewhere")
    absent = [key for key in NEEDED if key not in config]
    if absent:
        raise ValueError(f"{config_file} has no {' and no '.join(absent)}: it is not the configuration of a run")
    env = _json(path / "env.json") or {}
    return Run(
        path, config, _json(path / "about.json") or {}, env.get("environments", []), env.get("fingerprint", {}),
        _json(path / "summary.json"),
    )  # fmt: skip


def find_runs(output_root: str | Path) -> list[Run]:
    """All run folders directly under an output root, by name; folders that hold no run are passed over."""
    root = Path(output_root).expanduser()
    folders = sorted(file.parent for file in root.glob("*/config.yaml")) if root.is_dir() else []
    return [open_run(folder) for folder in folders if (folder / "env.json").is_file()]


def _json(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{file} is damaged; the command that made the run writes it again")
    return found
