"""Who may write to a run folder: one process for the whole run, or one for each shard of the same number of shards.

Shard i of n holds the file lock-<i>-of-<n>, the whole run the file `lock`; its text says which process that is. These
are POSIX record locks rather than flock(): the system takes them back however the process ends, and the readers of a
DataLoader do not inherit them. A process loses them when it closes any handle of the file, so it opens each file once.
"""

import fcntl
import functools
import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from scripts.runs.compare_configs import differences
from scripts.runs.shards import Shard

HELD, GATE = 0, 1  # bytes of a file: its process is at work; in `lock`: someone looks at the folder as a whole


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
