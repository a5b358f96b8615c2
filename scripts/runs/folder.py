"""The run folder: what a run writes, how a killed run goes on, and who may write to it.

scripts/README.md ("Runs") lists its files. Without rows, and without others at work, config.yaml counts for nothing;
summary.json is written last, so a folder that has it is finished. Rows are only ever added to a folder of the same
identity (scripts/runs/compare_configs.py); those of shard i of n are in rows-<i>-of-<n>.jsonl.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from clipscore.config.fields import RunConfig
from clipscore.data.checks import folder_fault
from scripts.runs.compare_configs import check_finite, config_differences, differences, identity, summary_terms
from scripts.runs.lock import FolderLock
from scripts.runs.rows import RecordFile, explain_full_disk, has_rows, read_rows, record_files, whole_file, write_whole
from scripts.runs.samples import Row, Run, open_run, read_file
from scripts.runs.shards import Shard

if TYPE_CHECKING:
    from clipscore.task import Task

log = logging.getLogger(__name__)


def run_path(config: RunConfig) -> Path:
    """The folder of a run; ValueError: the name cannot be a part of a folder's name."""
    name = config.name or config.task
    order = f"__order{config.order_seed}" if config.order_seed else ""
    folder = f"{name}__{config.column.replace('/', '-')}__seed{config.seed}{order}"
    if name.startswith(".") or set(name) & set("/\\\0") or len(folder.encode()) > 255:
        raise ValueError(f"name must be a plain folder name (not too long, no / or leading dot), got {name!r}")
    return Path(config.output_root) / folder


def recorded_summary(config: RunConfig) -> Row | None:
    """The summary that a run with this configuration and limit has in its folder, if any."""
    try:
        run = open_run(run_path(config))
    except (FileNotFoundError, NotADirectoryError):
        return None
    wanted = config.model_dump(mode="json")
    is_same = summary_terms(run.config) == summary_terms(wanted) and not method_differences(run, config)
    return run.summary if is_same and not config_differences(run.config, wanted, type(config)) else None


def method_differences(run: Run, config: RunConfig) -> list[str]:
    """What differs if the run is of a method of the user's that has been edited."""
    digest = getattr(config, "method_digest", None)
    recorded, wanted = ({"method": value} if value else {} for value in (run.fingerprint.get("method"), digest))
    return differences(recorded, wanted)


def finished_summary(config: RunConfig) -> Row | None:
    """The `recorded_summary` of a run without errors to try again. Weights and data are not looked at again."""
    summary = recorded_summary(config)
    return summary if summary is not None and summary["num_errors"] == 0 else None


class RunFolder:
    """One run's folder, held by one process at a time, or by one for each shard.

    Entry refuses a folder in which other processes do samples of this one, see `FolderLock.hold`. Entry and all that
    writes into it say in one sentence when its disk is full: an OSError.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config, self.path, self.shard = config, run_path(config), Shard.of(config)
        self.lock: FolderLock  # made on entry
        self.own: RecordFile  # this process's records, opened by `begin`
        self._num_before = 0  # rows of others that `begin` found

    def __enter__(self) -> RunFolder:
        self._check_place()
        with explain_full_disk(self.path), ExitStack() as stack:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock = stack.enter_context(FolderLock(self.path, self.shard))
            with self.lock.gate():
                self.lock.hold(summary_terms(self.config.model_dump(mode="json")))
                if not has_rows(self.path) and not self.lock.others():
                    (self.path / "config.yaml").unlink(missing_ok=True)  # nothing was computed with it
            self._open = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def check(self, fingerprint: dict[str, str] | None = None) -> list[dict[str, Any]]:
        """The run's environments so far; ValueError with the keys that differ: the folder has rows of something else.

        Given the `fingerprint` of weights and data, also when another process has begun something else. OSError: the
        folder cannot be written to.
        """
        self._check_place()
        if not has_rows(self.path) and (fingerprint is None or not (self.path / "config.yaml").is_file()):
            return []
        run = open_run(self.path)
        found = config_differences(run.config, self.config.model_dump(mode="json"), type(self.config))
        found += method_differences(run, self.config) if fingerprint is None else []
        if fingerprint is not None:
            found += differences(run.fingerprint, fingerprint)
        if found:
            mend = "Give this run name=OTHER or output_root=ELSEWHERE, or delete the folder."
            raise ValueError(f"{self.path} holds a run of another configuration: {'; '.join(found)}. {mend}")
        return run.environments

    def _check_place(self) -> None:
        if fault := folder_fault(self.path):
            raise OSError(f"{fault}; set output_root or RLCF_OUTPUT to a folder that can be written to")

    def begin(self, fingerprint: dict[str, str], environment: Row, about: Row) -> list[Row]:
        """Start or take up the run; the rows so far. ValueError: they are of another run, or a file is damaged."""
        with explain_full_disk(self.path), self.lock.gate():
            self.check(fingerprint)
            (self.path / "summary.json").unlink(missing_ok=True)
            environments = (read_file(self.path / "env.json") or {}).get("environments", [])
            if environment not in environments:
                environments.append(environment)
            env = {"identity": identity(self.config, fingerprint), "fingerprint": fingerprint}
            config = self.config.model_dump(mode="json") | {"shard": None}
            write_whole(self.path / "env.json", json.dumps(env | {"environments": environments}, indent=2))
            write_whole(self.path / "about.json", json.dumps(about, indent=1, ensure_ascii=False))
            write_whole(self.path / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
            self.own = RecordFile(self.path / self.shard.file_name("rows", ".jsonl"))
            self._open.callback(self.own.close)
            self._num_before = self.num_rows_elsewhere()
            return self.rows()

    def num_rows_elsewhere(self) -> int:
        """How many rows other processes have written since `begin`."""
        files = (path for path in record_files(self.path) if path != self.own.path)
        return sum(path.read_bytes().count(b"\n") for path in files) - self._num_before

    def rows(self) -> list[Row]:
        """All that is written."""
        return [row for path in record_files(self.path) for row in read_rows(path)]

    def take_up_sequence(self, task: Task, ids: Sequence[str]) -> list[Row]:
        """Go back to the last saved state; the rows until then. Those after it are dropped, and will come out again."""
        from clipscore.models.pickles import load_tensors  # imports torch, and only sequential tasks have a carry

        count = 0
        with suppress(FileNotFoundError):
            carry = load_tensors(self.path / "carry.pt")
            count = carry["rows"]
            task.load_state_dict(carry["state"])
        rows = self.rows()[:count]
        if [row["id"] for row in rows] != list(ids[:count]):
            fault = f"carry.pt was saved after {count} samples, but rows.jsonl does not start with these"
            raise ValueError(f"{self.path}: {fault}; delete the folder")
        self.own.keep(count)
        return rows

    def save_carry(self, num_rows: int, state: dict[str, Any]) -> None:
        """Keep a task's state after its first `num_rows` samples; an interrupted call leaves the last one in place."""
        import torch

        with explain_full_disk(self.path), whole_file(self.path / "carry.pt") as file:
            torch.save({"rows": num_rows, "state": state}, file)

    def finish(self, summary: Row) -> None:
        """Write summary.json, which makes the run a finished one. FloatingPointError: a number in it is not finite."""
        check_finite(summary)
        with explain_full_disk(self.path):
            write_whole(self.path / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False))
        log.info("wrote %s", self.path / "summary.json")
