"""Files of a run folder, written so that a kill or a full disk loses nothing: lines of records, and whole texts."""

import errno
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

Row = dict[str, Any]
T = TypeVar("T")
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """Put a full disk, no room or no quota for something inside the folder, into one sentence: an OSError."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch.save hides the first behind the second
        causes = [cause for cause in (error, error.__context__) if isinstance(cause, OSError) and cause.errno in FULL]
        if not causes:
            raise
        safe = "every sample that was finished is safe in it, and when room is made the same command goes on from there"
        raise OSError(f"the disk of {folder} is full; {safe} ({causes[0]})") from error


class RecordFile(FileIO):
    """One process's records: JSON lines that are only ever added, each on the disk before `append` returns."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "a+")
        self.path = path
        self.keep()

    def append(self, row: Row) -> None:
        """Add one record. When that fails, the file is as it was before."""
        line = memoryview((json.dumps(row, allow_nan=False) + "\n").encode())
        size = os.fstat(self.fileno()).st_size
        with explain_full_disk(self.path.parent):
            try:
                while line:
                    line = line[self.write(line) :]
                os.fsync(self.fileno())
            except OSError:
                self.truncate(size)
                raise

    def keep(self, count: int | None = None) -> None:
        """Drop all lines after the first `count`, or else only what a kill left behind the whole lines."""
        with open(self.path, "rb") as file:
            end = sum(len(line) for line in itertools.islice(file, count) if line.endswith(b"\n"))
        self.truncate(end)


def record_files(folder: Path) -> list[Path]:
    """The record files of a run folder: rows.jsonl, and one more for each shard."""
    return sorted(folder.glob("rows*.jsonl"))


def has_rows(folder: Path) -> bool:
    """Whether a sample was finished in a run folder."""
    return any(file.stat().st_size for file in record_files(folder))


def read_rows(path: Path) -> Iterator[Row]:
    """The records of a file, without a last line that is not whole yet, or was cut; ValueError: a line is damaged."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict) or "id" not in row:
                raise ValueError(f"{path}, line {number} is damaged: {line.strip()[:60]!r}; delete that line")
            yield row


def results(rows: Iterable[Row], project: Callable[[Row], T]) -> dict[str, T]:
    """What is needed of each sample's result. Of two records of a sample the later counts; an error is no result."""
    return {row["id"]: project(row) for row in rows if "error" not in row}


def merged(rows: Sequence[Row]) -> dict[str, Row]:
    """The record of each sample: its result as in `results`, or else its last error."""
    return {row["id"]: row for row in rows if "error" in row} | results(rows, lambda row: row)


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
        file.write((text.removesuffix("\n") + "\n").encode())
