"""Who may write to a run folder: one process for the whole run, or one for each shard of the same number of shards.

Shard i of n holds the file lock-<i>-of-<n>, the whole run the file `lock`; its text says which process that is. These
are POSIX record locks rather than flock(): the system takes them back however the process ends, and the readers of a
DataLoader do not inherit them. A process loses them when it closes any handle of the file, so it opens its own once.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from io import FileIO
from pathlib import Path
from typing import Any

from scripts.runs.compare_configs import differences
from scripts.runs.shards import Shard

HELD, GATE = 0, 1  # bytes of a file: its process is at work; in `lock`: someone looks at the folder as a whole


class FolderBusy(OSError):
    """Other processes write to the folder. The message says who, and what to do."""


class FolderLock:
    """The lock files of an existing folder, for a process that does this shard, or that only looks."""

    def __init__(self, folder: Path, shard: Shard) -> None:
        self.folder, self.shard, self._own = folder, shard, shard.file_name("lock", "")
        names = {"lock", self._own}
        self._files = {name: open(folder / name, "a+b", buffering=0) for name in names}  # noqa: SIM115 - see `close`
        self._is_held = False

    def close(self) -> None:
        """Give everything back."""
        for file in self._files.values():
            file.close()

    def hold(self, terms: dict[str, Any]) -> None:
        """Take the shard until `close`, on terms that all at work share; inside `gate`.

        FolderBusy: another process has it, or shards that it shares samples with, or works on other terms.
        """
        part = f"shard {self.shard}" if self.shard.is_part else ""
        for shard, process, their_terms in self.others():
            if shard == self.shard:
                raise FolderBusy(
                    f"another process ({process}) is writing to {self.folder}{part and f' as {part}'}; wait for "
                    "it to end, or give this run name=OTHER"
                )
            if shard.count != self.shard.count:
                raise FolderBusy(
                    f"{self.folder} is being written by {process}, which has samples of {part or 'the whole run'} too; "
                    "wait for it to end, go on in as many shards as there, or give this run name=OTHER"
                )
            if their_terms is not None and (found := differences(their_terms, terms)):
                raise FolderBusy(
                    f"shards that run at the same time must agree: {'; '.join(found)}; {self.folder} is being written "
                    f"by {process}"
                )
        file = self._files[self._own]
        self._is_held = _take(file)
        file.truncate(0)
        file.write(json.dumps([f"process {os.getpid()} on {socket.gethostname()}", terms]).encode())

    def others(self) -> list[tuple[Shard, str, dict[str, Any] | None]]:
        """Shard, name and terms of each other process at work; None when a full disk has cut them. Inside `gate`."""
        found = []
        for path in sorted(self.folder.glob("lock*")):
            if path.name == self._own and self._is_held:
                continue
            known = self._files.get(path.name)
            with nullcontext(known) if known else open(path, "r+b", buffering=0) as file:
                if _take(file):
                    fcntl.lockf(file, fcntl.LOCK_UN, 1, HELD)
                    continue
                file.seek(0)
                text = file.read()
            try:
                process, terms = json.loads(text)
            except ValueError:
                process, terms = "another process", None
            found.append((Shard.of_file(path), process, terms))
        return found

    def is_last(self) -> bool:
        """Whether no other process is at work in the folder. When one is, this one's shard is given back."""
        with self.gate():
            if not self.others():
                return True
            fcntl.lockf(self._files[self._own], fcntl.LOCK_UN, 1, HELD)
            self._is_held = False
            return False

    @contextmanager
    def gate(self) -> Iterator[None]:
        """Be the only one that looks at the folder as a whole, for moments; OSError: the file system has no locks."""
        file = self._files["lock"]
        try:
            fcntl.lockf(file, fcntl.LOCK_EX, 1, GATE)
        except OSError as error:
            raise OSError(
                f"{file.name} cannot be locked ({error.strerror}), so nothing would keep two processes from one run; "
                "choose an output_root on a file system with POSIX locks"
            ) from error
        try:
            yield
        finally:
            fcntl.lockf(file, fcntl.LOCK_UN, 1, GATE)


def is_anyone_at_work(folder: Path) -> bool:
    """Whether a process is writing to a run folder, this one aside."""
    if not (folder / "lock").is_file():
        return False
    with closing(FolderLock(folder, Shard())) as lock, lock.gate():
        return bool(lock.others())


def _take(file: FileIO) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, HELD)
    except (BlockingIOError, PermissionError):  # either one, depending on the system
        return False
    return True
