"""The run folder: what a run writes, how a killed run goes on, and who may write to it.

    <output_root>/<name>__<column, / as ->__seed<seed>/
        config.yaml    the resolved configuration
        env.json       the run's identity, the fingerprint of weights and data, and each environment it ran in
        rows.jsonl     one line per sample, on disk before the next sample starts; the later of two rows of an id counts
        carry.pt       what a sequential task carries from sample to sample, and after how many samples
        summary.json   written last; a folder that has it is finished
        log.txt        the messages, with the tracebacks that the screen does not show

Rows are only ever added to a folder of the same identity (scripts/identity.py).
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import IO, Any

import yaml

from clipscore.config import RunConfig
from clipscore.yaml12 import parse_yaml
from scripts.identity import check_finite, config_differences, differences, identity

Row = dict[str, Any]
SUMMARY_KEYS = ("limit", "metrics", "metric_model")  # no row depends on them, the summary does


def run_path(config: RunConfig) -> Path:
    """The folder of a run: `<output_root>/<name>__<column>__seed<seed>`, the column being the data set.

    Raises:
        ValueError: the name cannot be a part of a folder's name.
    """
    name = config.name or config.task
    if name.startswith(".") or set(name) & set("/\\\0"):
        raise ValueError(f"name must be a plain folder name without slashes or a leading dot, got {name!r}")
    return Path(config.output_root) / f"{name}__{config.column.replace('/', '-')}__seed{config.seed}"


def finished_summary(config: RunConfig) -> Row | None:
    """The summary of a finished run with this configuration and limit, without errors to try again; None otherwise.

    It spares building the models, so a change of the weights or the data since then is not noticed here.
    """
    path = run_path(config)
    if not (path / "summary.json").is_file() or not (path / "config.yaml").is_file():
        return None
    recorded, wanted = _read_config(path), config.model_dump(mode="json")
    same = not config_differences(recorded, wanted) and all(recorded.get(k) == wanted.get(k) for k in SUMMARY_KEYS)
    summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    return summary if same and summary["num_errors"] == 0 else None


class RunFolder:
    """One run's folder, held by one process at a time.

    Args:
        config: the run's configuration.

    Raises:
        ValueError: on entry, the folder holds a run of another configuration.
        RuntimeError: on entry, another process holds the folder.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.path = run_path(config)
        self._lock: IO[str] | None = None
        self._rows: IO[bytes] | None = None

    def __enter__(self) -> RunFolder:
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.path / "lock")
        try:
            self.check()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._rows, self._lock):
            if file is not None:
                file.close()

    def begin(self, fingerprint: dict[str, str], environment: Row, about: Row) -> list[Row]:
        """Start or take up the run.

        Args:
            fingerprint: of the task's weights and data; part of the identity.
            environment: versions and hardware, for env.json.
            about: what a reader of the rows needs to know, for about.json.

        Returns:
            The rows that are already there, in the order they were written. A torn last line is dropped.

        Raises:
            ValueError: the folder's rows were made from other weights or data, or rows.jsonl is damaged.
        """
        env_file = self.path / "env.json"
        known = json.loads(env_file.read_text(encoding="utf-8")) if (self.path / "config.yaml").is_file() else {}
        if known and self._has_rows():
            self._refuse(differences(known["fingerprint"], fingerprint))
        (self.path / "summary.json").unlink(missing_ok=True)
        environments = known.get("environments", [])
        if environment not in environments[-1:]:
            environments.append(environment)
        config = self.config.model_dump(mode="json")
        record = {"identity": identity(config, fingerprint), "fingerprint": fingerprint, "environments": environments}
        _write(env_file, json.dumps(record, indent=2))
        _write(self.path / "about.json", json.dumps(about, indent=1, ensure_ascii=False))
        _write(self.path / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        self._rows = open(self.path / "rows.jsonl", "a+b")  # noqa: SIM115 - closed on exit
        return self._read_rows()

    def append(self, row: Row) -> None:
        """Add one row; it is on the disk when this returns.

        Raises:
            FloatingPointError: a number in the row is infinite or not a number.
        """
        check_finite(row)
        self._file.write((json.dumps(row, allow_nan=False) + "\n").encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def keep_rows(self, count: int) -> None:
        """Drop all lines of rows.jsonl after the first `count`."""
        self._file.seek(0)
        for _ in range(count):
            self._file.readline()
        self._file.truncate(self._file.tell())

    def load_carry(self) -> tuple[int, dict]:
        """How many samples carry.pt has seen and the task's state after them; (0, {}) when there is none."""
        import torch  # slow to import, and only sequential tasks have a carry

        file = self.path / "carry.pt"
        if not file.is_file():
            return 0, {}
        carry = torch.load(file, map_location="cpu", weights_only=True)
        return carry["rows"], carry["state"]

    def save_carry(self, num_rows: int, state: dict) -> None:
        """Keep a task's state after its first `num_rows` samples; an interrupted call leaves the last one in place."""
        import torch

        draft = self.path / "carry.pt.part"
        with open(draft, "wb") as file:
            torch.save({"rows": num_rows, "state": state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self.path / "carry.pt")

    def finish(self, summary: Row) -> None:
        """Write summary.json, which makes the run a finished one.

        Raises:
            FloatingPointError: a number in the summary is infinite or not a number.
        """
        check_finite(summary)
        _write(self.path / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False))

    @property
    def _file(self) -> IO[bytes]:
        assert self._rows is not None, "begin() comes first"
        return self._rows

    def check(self) -> None:
        """Refuse a folder that holds something else than this run. Writes nothing, and needs no lock.

        Raises:
            ValueError: a run of another configuration; the keys that differ are named.
        """
        if not self._has_rows():
            return  # nothing was computed with another configuration
        if (self.path / "config.yaml").is_file():
            self._refuse(config_differences(_read_config(self.path), self.config.model_dump(mode="json")))
        else:
            raise ValueError(f"{self.path} has rows.jsonl but no config.yaml: it is no run folder; move it away")

    def _has_rows(self) -> bool:
        file = self.path / "rows.jsonl"
        return file.is_file() and file.stat().st_size > 0

    def _refuse(self, found: list[str]) -> None:
        if found:
            raise ValueError(
                f"{self.path} holds a run of another configuration: {'; '.join(found)}. "
                "Give this run name=OTHER or output_root=ELSEWHERE, or delete the folder."
            )

    def _read_rows(self) -> list[Row]:
        """All complete rows; what a kill left of a line is cut off, because the next row must start on its own line."""
        self._file.seek(0)
        data = self._file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self._file.truncate(whole)
        rows = []
        for number, line in enumerate(data[:whole].splitlines(), start=1):
            try:
                rows.append(json.loads(line))
            except ValueError:
                where = self.path / "rows.jsonl"
                raise ValueError(f"{where}, line {number} is damaged: {line[:60]!r}; delete that line") from None
        return rows


def _read_config(path: Path) -> Row:
    config, problems = parse_yaml((path / "config.yaml").read_text(encoding="utf-8"))
    if problems or not isinstance(config, dict):
        raise ValueError(f"{path / 'config.yaml'} is damaged: {'; '.join(problems) or 'no keys'}; move the folder away")
    return config


def _write(path: Path, text: str) -> None:
    """Write a text file so that it is there either whole or not at all."""
    draft = path.with_name(path.name + ".part")
    with open(draft, "w", encoding="utf-8") as file:
        file.write(text if text.endswith("\n") else text + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def _lock(path: Path) -> IO[str]:
    """Hold a lock file until it is closed or the process ends, however it ends.

    A POSIX record lock rather than flock(): the reader processes of a DataLoader would inherit the latter and keep it
    for seconds after the run itself was killed.
    """
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - closed by the caller
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise RuntimeError(
            f"another process ({holder}) is writing to {path.parent}; wait for it to end, or give this run name=OTHER"
        ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()}\n")
    file.flush()
    return file
