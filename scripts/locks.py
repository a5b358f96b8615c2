"""Who may write to a run folder: one process for the whole run, or one for each shard of the same number of shards."""

from __future__ import annotations

import fcntl
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.shards import Shard

FILE = "lock"
GATE, SLOTS = 0, 1  # bytes of the file: for those who look at the folder as a whole, and from there one per shard


class FolderBusy(OSError):
    """Other processes write to the folder. The message says who, and what to do."""


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

    def hold(self, shard: Shard) -> None:
        """Take a shard until `close`; inside `gate`.

        Raises:
            FolderBusy: another process has it, or shards that it shares samples with.
        """
        start, end = _slots(shard.count)
        if not self._take(_slot(shard)):
            part = f" as shard {shard}" if shard.is_part else ""
            raise FolderBusy(
                f"another process ({self._holders([shard])}) is writing to {self.folder}{part}; wait for it to end, or "
                "give this run name=OTHER"
            )
        if not (self._is_free(SLOTS, start) and self._is_free(end)):
            others = [one for one in self._listed() if one.count != shard.count and self._is_busy(one)]
            raise FolderBusy(
                f"{self.folder} is being written by {self._holders(others)}, which has samples of {_title(shard)} too; "
                "wait for it to end, go on in as many shards as there, or give this run name=OTHER"
            )
        lines = [line for line in self._lines() if _shard_of(line) != shard and self._is_busy(_shard_of(line))]
        lines.append(f"{shard} process {os.getpid()} on {socket.gethostname()}")
        self._file.truncate(0)
        self._file.write("".join(line + "\n" for line in lines).encode())

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

    def _lines(self) -> list[str]:
        self._file.seek(0)
        return [line for line in self._file.read().decode(errors="replace").splitlines() if re.match(r"\d+/\d+ ", line)]

    def _listed(self) -> list[Shard]:
        return [_shard_of(line) for line in self._lines()]

    def _holders(self, shards: list[Shard]) -> str:
        """The process of each shard, for a message."""
        named = {_shard_of(line): line.split(maxsplit=1)[1] for line in self._lines()}
        found = [named[one] + (f" (shard {one})" if len(shards) > 1 else "") for one in shards if one in named]
        return " and ".join(found) or "another process"


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


def _shard_of(line: str) -> Shard:
    return Shard.parse(line.split()[0])


def _slots(count: int) -> tuple[int, int]:
    """First byte of the shards of a run in `count`, and the byte after their last: behind those of smaller counts."""
    start = SLOTS + count * (count - 1) // 2
    return start, start + count


def _slot(shard: Shard) -> int:
    return _slots(shard.count)[0] + shard.index
