"""Who may write to a run folder: one process for the whole run, or one for each shard of the same number of shards."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.runs.compare_configs import differences
from scripts.runs.shards import Shard

FILE = "lock"
GATE, SLOTS = 0, 1  # bytes of the file: for those who look at the folder as a whole, and from there one per shard


class FolderBusy(OSError):
    """Other processes write to the folder. The message says who, and what to do."""


@dataclass(frozen=True)
class Holder:
    """A line of the lock file: a process, its shard, and the terms on which all that write at the same time agree."""

    shard: Shard
    process: str
    terms: dict[str, Any]

    @classmethod
    def parse(cls, line: bytes) -> Holder | None:
        """None for a line that a full disk has cut."""
        try:
            shard, process, terms = json.loads(line)
        except ValueError:
            return None
        return cls(Shard.parse(shard), process, terms)

    def __str__(self) -> str:
        return json.dumps([str(self.shard), self.process, self.terms])


class FolderLock:
    """The lock file of a folder. Its bytes are locked, by their number; its text says who holds them.

    POSIX record locks rather than flock(): the system takes them back when the process ends, however it ends, while the
    reader processes of a DataLoader would inherit the latter and keep it for seconds. A process loses its locks when it
    closes the file, so it opens it once at a time.

    Args:
        folder: exists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = open(folder / FILE, "a+b", buffering=0)  # noqa: SIM115 - see `close`

    def close(self) -> None:
        """Give everything back."""
        self._file.close()

    def hold(self, shard: Shard, terms: dict[str, Any]) -> None:
        """Take a shard until `close`; inside `gate`.

        Args:
            shard: of this process.
            terms: what JSON can hold; those of all processes at work are the same.

        Raises:
            FolderBusy: another process has it, or shards that it shares samples with, or works on other terms.
        """
        listed = self._listed()
        if not self._take(_slot(shard)):
            part = f" as shard {shard}" if shard.is_part else ""
            raise FolderBusy(
                f"another process ({_names([one for one in listed if one.shard == shard])}) is writing to "
                f"{self.folder}{part}; wait for it to end, or give this run name=OTHER"
            )
        start, end = _slots(shard.count)
        others = [one for one in listed if one.shard != shard and self._is_busy(one.shard)]
        if not (self._is_free(SLOTS, start) and self._is_free(end)):
            raise FolderBusy(
                f"{self.folder} is being written by {_names([one for one in others if one.shard.count != shard.count])}"
                f", which has samples of {_title(shard)} too; wait for it to end, go on in as many shards as there, or "
                "give this run name=OTHER"
            )
        for other in others:
            if found := differences(other.terms, terms):
                raise FolderBusy(
                    f"shards that run at the same time must agree: {'; '.join(found)}; {self.folder} is being written "
                    f"by {_names([other])}"
                )
        lines = [*others, Holder(shard, f"process {os.getpid()} on {socket.gethostname()}", terms)]
        self._file.truncate(0)
        self._file.write("".join(f"{line}\n" for line in lines).encode())

    def has_others(self, shard: Shard | None) -> bool:
        """Whether other processes are at work in the folder; inside `gate`, with the own shard, if one is held."""
        if shard is None:
            return not self._is_free(SLOTS)
        own = _slot(shard)
        return not (self._is_free(SLOTS, own) and self._is_free(own + 1))

    def release(self, shard: Shard) -> None:
        """Give the own shard back; inside `gate`."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _slot(shard))

    @contextmanager
    def gate(self) -> Iterator[None]:
        """Be the only process that looks at the folder as a whole; for moments, so that others may wait for it.

        Raises:
            OSError: the file system has no locks.
        """
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, GATE)
        except OSError as error:
            raise OSError(
                f"{self._file.name} cannot be locked ({error.strerror}), so nothing would keep two processes from one "
                "run; choose an output_root on a file system with POSIX locks"
            ) from error
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, GATE)

    def _take(self, start: int, length: int = 1) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
        except (BlockingIOError, PermissionError):  # either one, depending on the system
            return False
        return True

    def _is_free(self, start: int, end: int | None = None) -> bool:
        """Whether no other process has a byte from `start` on, before `end`; an own lock there would be lost."""
        if start == end:
            return True
        length = 0 if end is None else end - start  # 0: without an end
        free = self._take(start, length)
        if free:
            fcntl.lockf(self._file, fcntl.LOCK_UN, length, start)
        return free

    def _is_busy(self, shard: Shard) -> bool:
        """Whether another process has a shard that this one has not."""
        return not self._is_free(_slot(shard), _slot(shard) + 1)

    def _listed(self) -> list[Holder]:
        self._file.seek(0)
        found = map(Holder.parse, self._file.read().splitlines())
        return [holder for holder in found if holder is not None]


def is_anyone_at_work(folder: Path) -> bool:
    """Whether a process is writing to a run folder, this one aside."""
    if not (folder / FILE).is_file():
        return False
    lock = FolderLock(folder)
    try:
        with lock.gate():
            return lock.has_others(None)
    finally:
        lock.close()


def _title(shard: Shard) -> str:
    return f"shard {shard}" if shard.is_part else "the whole run"


def _names(holders: Sequence[Holder]) -> str:
    """The processes, for a message."""
    found = [one.process + (f" (shard {one.shard})" if len(holders) > 1 else "") for one in holders]
    return " and ".join(found) or "another process"


def _slots(count: int) -> tuple[int, int]:
    """First byte of the shards of a run in `count`, and the byte after their last: behind those of smaller counts."""
    start = SLOTS + count * (count - 1) // 2
    return start, start + count


def _slot(shard: Shard) -> int:
    return _slots(shard.count)[0] + shard.index
