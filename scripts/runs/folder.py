"""The run folder: what a run writes, how a killed run goes on, and who may write to it.

    <output_root>/<name>__<column, / as ->__seed<seed>/
        config.yaml    the resolved configuration
        env.json       the run's identity, the fingerprint of weights and data, and each environment it ran in
        rows.jsonl     one line per sample, on disk before the next sample starts
        rows-<i>-of-<n>.jsonl    the same by shard i of n; all these files together are the run, see `merged`
        carry.pt       what a sequential task carries from sample to sample, and after how many samples
        summary.json   written last; a folder that has it is finished
        log.txt        the messages, with the tracebacks that the screen does not show; log-<i>-of-<n>.txt of a shard
        lock           who writes at the moment (scripts/runs/lock.py)

Rows are only ever added to a folder of the same identity (scripts/runs/compare_configs.py).
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from clipscore.config.fields import RunConfig
from scripts.runs.compare_configs import check_finite, config_differences, differences, identity
from scripts.runs.finished import has_rows, read_config, read_environment, run_path, summary_keys
from scripts.runs.lock import FolderLock
from scripts.runs.rows import (
    RecordFile,
    Row,
    merged,
    read_rows,
    record_files,
    told_when_full,
    whole_file,
    write_whole,
)
from scripts.runs.shards import Shard


class RunFolder:
    """One run's folder, held by one process at a time, or by one for each shard.

    Args:
        config: the run's configuration.

    Raises:
        ValueError: on entry, the folder holds a run of another configuration.
        FolderBusy: on entry, other processes do samples of this one.
        DiskFull: on entry and from each method that writes.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config, self.path, self.shard = config, run_path(config), Shard.of(config)
        self._lock: FolderLock | None = None
        self._rows: RecordFile | None = None
        self._ends: dict[Path, int] = {}  # how far each record file has been read
        self._num_elsewhere = 0

    def __enter__(self) -> RunFolder:
        with told_when_full(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(self.path)
        try:
            with told_when_full(self.path), self._lock.gate():
                self._lock.hold(self.shard, summary_keys(self.config.model_dump(mode="json")))
                if not has_rows(self.path) and not self._lock.has_others(self.shard):
                    (self.path / "config.yaml").unlink(missing_ok=True)  # nothing was computed with it
            self.check()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._rows, self._lock):
            if file is not None:
                file.close()

    @property
    def log_file(self) -> Path:
        """Where this process's messages go."""
        return self.path / self.shard.file_name("log", ".txt")

    def begin(self, fingerprint: dict[str, str], environment: Row, about: Row) -> list[Row]:
        """Start or take up the run.

        Args:
            fingerprint: of the task's weights and data; part of the identity.
            environment: versions and hardware, for env.json.
            about: what a reader of the rows needs to know, for about.json.

        Returns:
            The rows that are already there, of all record files. A torn last line is dropped.

        Raises:
            ValueError: the folder's rows were made from other weights or data, or a record file is damaged.
        """
        config = self.config.model_dump(mode="json") | {"shard": None}
        with told_when_full(self.path), self._held.gate():
            known = read_environment(self.path)
            if (self.path / "config.yaml").is_file():  # there are rows, or processes that will write some
                found = differences(known.get("fingerprint", {}), fingerprint)
                self._refuse([*config_differences(read_config(self.path), config), *found])
            (self.path / "summary.json").unlink(missing_ok=True)
            environments = known.get("environments", [])
            if environment not in environments:
                environments.append(environment)
            record = {"identity": identity(config, fingerprint), "fingerprint": fingerprint}
            write_whole(self.path / "env.json", json.dumps(record | {"environments": environments}, indent=2))
            write_whole(self.path / "about.json", json.dumps(about, indent=1, ensure_ascii=False))
            write_whole(self.path / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
            rows = self._read_all()
            own = self.path / self.shard.file_name("rows", ".jsonl")
            self._rows = RecordFile(own, self._ends.get(own, 0))
        return rows

    def append(self, row: Row) -> None:
        """Add one row; it is on the disk when this returns.

        Raises:
            FloatingPointError: a number in the row is infinite or not a number.
        """
        check_finite(row)
        with told_when_full(self.path):
            self._file.append(row)

    def num_rows_elsewhere(self) -> int:
        """How many rows other processes have written since `begin`."""
        for path in record_files(self.path):
            if path != self._file.path:
                rows, self._ends[path] = read_rows(path, self._ends.get(path, 0))
                self._num_elsewhere += len(rows)
        return self._num_elsewhere

    def is_last(self) -> bool:
        """Whether no other process is at work on the run. When one is, this one's shard is given back."""
        with self._held.gate():
            last = not self._held.has_others(self.shard)
            if not last:
                self._held.release(self.shard)
        return last

    def rows(self) -> dict[str, Row]:
        """The record of each sample, whichever process wrote it."""
        return merged(self._read_all())

    def keep_rows(self, count: int) -> None:
        """Drop all lines of this process's records after the first `count`."""
        self._file.keep(count)

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

        with told_when_full(self.path), whole_file(self.path / "carry.pt") as file:
            torch.save({"rows": num_rows, "state": state}, file)

    def finish(self, summary: Row) -> None:
        """Write summary.json, which makes the run a finished one.

        Raises:
            FloatingPointError: a number in the summary is infinite or not a number.
        """
        check_finite(summary)
        text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)
        with told_when_full(self.path):
            write_whole(self.path / "summary.json", text)

    def check(self) -> None:
        """Refuse a folder that holds something else than this run. Writes nothing, and needs no lock.

        Raises:
            ValueError: a run of another configuration; the keys that differ are named.
        """
        if not has_rows(self.path):
            return  # nothing was computed with another configuration
        if (self.path / "config.yaml").is_file():
            self._refuse(config_differences(read_config(self.path), self.config.model_dump(mode="json")))
        else:
            raise ValueError(f"{self.path} has rows.jsonl but no config.yaml: it is no run folder; move it away")

    @property
    def _held(self) -> FolderLock:
        assert self._lock is not None, "the folder is entered"
        return self._lock

    @property
    def _file(self) -> RecordFile:
        assert self._rows is not None, "begin() comes first"
        return self._rows

    def _read_all(self) -> list[Row]:
        rows = []
        for path in record_files(self.path):
            found, self._ends[path] = read_rows(path)
            rows += found
        return rows

    def _refuse(self, found: list[str]) -> None:
        if found:
            raise ValueError(
                f"{self.path} holds a run of another configuration: {'; '.join(found)}. "
                "Give this run name=OTHER or output_root=ELSEWHERE, or delete the folder."
            )
