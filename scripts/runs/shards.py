"""Which part of a run a process does: shard i of n by `shard=i/n`, or by its place among the processes of torchrun.

And who may write to a run folder: one process for the whole run, or one for each shard of the same number of shards.
Shard i of n holds the file lock-<i>-of-<n>, the whole run the file `lock`; its text says which process that is. These
are POSIX record locks rather than flock(): the system takes them back however the process ends, and the readers of a
DataLoader do not inherit them. A process loses them when it closes any handle of the file, so it opens each file once.
"""

from __future__ import annotations

import fcntl
import functools
import json
import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from clipscore.config.fields import RunConfig
from scripts.runs.compare_configs import differences

HELD, GATE = 0, 1  # bytes of a file: its process is at work; in `lock`: someone looks at the folder as a whole

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """Every `count`-th sample of a run, from number `index` on. Shard 0 of 1 is the whole run."""

    index: int = 0
    count: int = 1

    @classmethod
    def of(cls, config: RunConfig) -> Shard:
        """The shard of a configuration, by its i/n; ValueError when there is no such shard."""
        match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", config.shard or "0/1")
        if match is None or not int(match[1]) < int(match[2]):
            raise ValueError(f"shard={config.shard}: expected i/n with i from 0 to n - 1, n at most 9999, like 0/4")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def file_name(self, stem: str, suffix: str) -> str:
        """rows.jsonl of the whole run, rows-0-of-4.jsonl of a part."""
        return f"{stem}-{self.index}-of-{self.count}{suffix}" if self.count > 1 else stem + suffix


@dataclass(frozen=True)
class Rank:
    """A process among those that torchrun started; without torchrun the only one."""

    index: int = 0
    count: int = 1
    local: int = 0  # among those on this machine

    @classmethod
    def of_this_process(cls) -> Rank:
        """As torchrun's environment variables say; those of the same names that a cluster sets mean no such thing."""
        values = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
        is_torchrun = "TORCHELASTIC_RUN_ID" in os.environ and all(value.isdigit() for value in values)
        return cls(*map(int, values)) if is_torchrun else cls()

    def place(self, config: RunConfig) -> RunConfig:
        """The configuration with this process's shard and GPU; ValueError: more processes than the GPUs can share."""
        if self.count == 1:
            return config
        import torch  # slow to import, and only torchrun's processes choose a GPU

        given, device = Shard.of(config), config.device
        shard = Shard(given.index + given.count * self.index, given.count * self.count)
        if device in ("auto", "cuda") and (num_gpus := torch.cuda.device_count()):
            gpu, most = self.local // config.procs_per_gpu, num_gpus * config.procs_per_gpu
            if gpu >= num_gpus:
                there = f"{num_gpus} CUDA device(s) for {config.procs_per_gpu} each (procs_per_gpu)"
                what = f"torchrun started more than {most} processes on this machine, which has {there}"
                raise ValueError(f"{what}; start fewer, or raise it")
            device = f"cuda:{gpu}"
            if config.procs_per_gpu > 1 and not self.index:
                _say_if_processes_take_turns()
        return config.model_copy(update={"shard": str(shard), "device": device})


@functools.cache
def _say_if_processes_take_turns() -> None:
    pipes = os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")
    if not Path(pipes, "control").exists():
        mend = "`nvidia-cuda-mps-control -d` starts it (looked for in %s), or set NPROC to the number of GPUs"
        log.warning(f"several processes share a GPU without NVIDIA's MPS, so that they take turns; {mend}", pipes)


class FolderLock(ExitStack):
    """The lock files of an existing folder, for the process that does this shard; `close` gives everything back."""

    def __init__(self, folder: Path, shard: Shard) -> None:
        super().__init__()
        self.folder, self.shard = folder, shard
        self._open = functools.cache(lambda path: self.enter_context(FileIO(path, "a+")))  # each file once
        self._gate, self._own = self._open(folder / "lock"), self._open(folder / shard.file_name("lock", ""))
        self._is_held = False

    def hold(self, terms: dict[str, Any]) -> None:
        """Take the shard until `close`, on terms that all at work share; inside `gate`.

        BlockingIOError: another process has it, or shards that it shares samples with, or works on other terms.
        """
        for shard, process, their_terms in self.others():
            part = f"shard {shard}" if shard.count > 1 else "all of it"
            theirs = f"{self.folder} is being written by {process}, which does {part}"
            if shard == self.shard or shard.count != self.shard.count:
                raise BlockingIOError(f"{theirs}; wait for it to end, or give this run name=OTHER")
            if their_terms is not None and (found := differences(their_terms, terms)):
                raise BlockingIOError(f"{theirs}; shards that run at the same time must agree: {'; '.join(found)}")
        fcntl.lockf(self._own, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, HELD)
        self._is_held = True
        self._own.truncate(0)
        process = f"process {os.getpid()} on {socket.gethostname()}"
        self._own.write(json.dumps([process, terms]).encode())

    def others(self) -> list[tuple[Shard, str, dict[str, Any] | None]]:
        """Shard, name and terms of each other process at work; None when a full disk has cut them. Inside `gate`."""
        found = []
        for path in sorted(self.folder.glob("lock*")):
            file = self._open(path)
            if self._is_held and file is self._own:
                continue
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, HELD)
                fcntl.lockf(file, fcntl.LOCK_UN, 1, HELD)
            except (BlockingIOError, PermissionError):  # someone has it; which of the two depends on the system
                file.seek(0)
                shard = Shard(*map(int, re.findall(r"\d+", path.name)))
                try:
                    found.append((shard, *json.loads(file.read())))
                except ValueError:
                    found.append((shard, "another process", None))
        return found

    def is_last(self) -> bool:
        """Whether no other process is at work in the folder. When one is, this one's shard is given back."""
        with self.gate():
            if self.others():
                fcntl.lockf(self._own, fcntl.LOCK_UN, 1, HELD)
                self._is_held = False
            return self._is_held

    @contextmanager
    def gate(self) -> Iterator[None]:
        """Be the only one that looks at the folder as a whole, for moments; OSError: the file system has no locks."""
        try:
            fcntl.lockf(self._gate, fcntl.LOCK_EX, 1, GATE)
        except OSError as error:
            why = f"{self.folder}/lock cannot be locked ({error.strerror}), so two processes could write one run"
            raise OSError(f"{why}; choose an output_root on a file system with POSIX locks") from error
        try:
            yield
        finally:
            fcntl.lockf(self._gate, fcntl.LOCK_UN, 1, GATE)
