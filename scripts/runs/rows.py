"""Files of a run folder, written so that a kill or a full disk loses nothing: lines of records, and whole texts."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from scripts.runs.read import RECORD_FILES

Row = dict[str, Any]
FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFull(OSError):
    """There is no room for what must be written. The message says what is safe."""


@contextmanager
def told_when_full(folder: Path) -> Iterator[None]:
    """Put a full disk into one sentence.

    Raises:
        DiskFull: no room, or no quota, for something inside the folder.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch.save hides the first behind the second
        causes = (error, error.__context__)
        if not any(isinstance(cause, OSError) and cause.errno in FULL for cause in causes):
            raise
        raise DiskFull(
            f"the disk of {folder} is full; every sample that was finished is safe in it, and when room is made the "
            "same command goes on from there"
        ) from error


class RecordFile:
    """One process's records: JSON lines that are only ever added, each on the disk before `append` returns.

    Args:
        path: made if it is missing.
        size: bytes of the whole lines in it; what a kill left behind them is cut off.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 - see `close`
        self._file.truncate(size)

    def append(self, row: Row) -> None:
        """Add one record. When that fails, the file is as it was before."""
        line = memoryview((json.dumps(row, allow_nan=False) + "\n").encode())
        size = os.fstat(self._file.fileno()).st_size
        try:
            while line:
                line = line[self._file.write(line) :]
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(size)
            raise

    def keep(self, count: int) -> None:
        """Drop all lines after the first `count`."""
        with open(self.path, "rb") as file:
            end = sum(len(file.readline()) for _ in range(count))
        self._file.truncate(end)

    def close(self) -> None:
        """Nothing is written after this."""
        self._file.close()


def record_files(folder: Path) -> list[Path]:
    """The record files of all processes that wrote to a run folder."""
    return sorted(folder.glob(RECORD_FILES))


def read_rows(path: Path, start: int = 0) -> tuple[list[Row], int]:
    """The whole lines of a record file.

    Args:
        path: the file.
        start: byte of the first line.

    Returns:
        The rows in the order they were written, and the byte after the last whole line: another process may be in the
        middle of the next one.

    Raises:
        ValueError: a line is damaged.
    """
    rows, end = [], start
    with open(path, "rb") as file:
        file.seek(start)
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                rows.append(json.loads(line))
            except ValueError:
                raise ValueError(f"{path}, line {number} is damaged: {line.strip()[:60]!r}; delete that line") from None
            end += len(line)
    return rows, end


def merged(rows: Iterable[Row]) -> dict[str, Row]:
    """The record of each sample: the later of two counts, unless it is an error and the earlier is none."""
    found: dict[str, Row] = {}
    for row in rows:
        if "error" not in row or "error" in found.get(row["id"], row):
            found[row["id"]] = row
    return found


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that is there whole or not at all; an interrupted block leaves the earlier one in place."""
    draft = path.with_name(path.name + ".part")
    try:
        with open(draft, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except (OSError, RuntimeError):
        draft.unlink(missing_ok=True)
        raise


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that it is there either whole or not at all."""
    with whole_file(path) as file:
        file.write((text if text.endswith("\n") else text + "\n").encode())
