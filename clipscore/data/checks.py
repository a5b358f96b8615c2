"""What the readers of data sets share: paths that a user gives, folder listings, and what to do when something lacks.

Nothing is written into a data folder.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")  # of files that are taken for images
GO_ON = "; or partial=true to go on with what is there"
_SHOWN = 3  # names listed in a message; the rest is counted


def settle(faults: Sequence[Exception], partial: bool) -> None:
    """Stop at a data set that is not whole, or warn of it when the user goes on with what is there.

    Args:
        faults: what keeps it from being whole, each with its mend.
        partial: go on.

    Raises:
        ValueError, FileNotFoundError: of the first fault's type, with all faults, one on each line.
    """
    if faults and not partial:
        raise type(faults[0])("\n".join(map(str, faults)) + GO_ON)
    for fault in faults:
        log.warning("partial=true: %s", fault)


@contextlib.contextmanager
def told_when_refused() -> Iterator[None]:
    """Say what to do where a file or folder may not be read; also a decorator.

    Raises:
        PermissionError: the same, with its mend.
    """
    try:
        yield
    except PermissionError as error:
        raise PermissionError(
            f"{error.filename}: permission denied for this user; let its owner make it and the folders above it "
            "readable (chmod a+rX), or set data_root to a copy that is"
        ) from error


def resolve(path: str, data_root: Path, key: str) -> Path:
    """A path that the user gave: absolute, or relative to the working directory or the data root.

    Raises:
        FileNotFoundError: it is in neither; both are named.
    """
    given = Path(path).expanduser()
    tried = [given] if given.is_absolute() else [Path.cwd() / given, data_root / given]
    for candidate in tried:
        if candidate.exists():
            return candidate
    raise FileNotFoundError(f"{key}={path} not found; tried: {', '.join(map(str, tried))}; give an existing path")


def file_names(folder: Path) -> set[str]:
    """Names of the files in a folder, links to files included; none when there is no such folder.

    One listing per folder: asking for each file by itself takes minutes on a network drive.
    """
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.is_file()}


def missing_files(root: Path, files: Iterable[str]) -> set[str]:
    """Those of the posix paths under a folder at which there is no file."""
    in_folder = defaultdict(list)
    for file in files:
        folder, _, name = file.rpartition("/")
        in_folder[folder].append((name, file))
    missing = set()
    for folder, expected in in_folder.items():
        existing = file_names(root / folder)
        missing |= {file for name, file in expected if name not in existing}
    return missing


def what_is_there(path: Path, expected: str) -> str:
    """In brackets: that a path is of another kind than expected, "file" or "folder"; else how much of it is there."""
    if path.is_dir() and expected == "file":
        return " (a folder, expected a file)"
    if path.is_file() and expected == "folder":
        return " (a file, expected a folder)"
    if path.is_symlink() and not path.exists():
        return f" (a link to {os.readlink(path)}, which is not there)"
    return ""


def no_root(data_root: Path) -> str:
    """That the data root itself is not there, when it is not."""
    if data_root.is_dir():
        return ""
    link = what_is_there(data_root, "folder")
    kind = "is a file, expected a folder" if data_root.exists() else f"itself does not exist{link}"
    return f"the data root {data_root} {kind}; "


def some(names: Iterable[str]) -> str:
    """The first few names in brackets, or nothing."""
    shown = list(names)
    return f" ({', '.join(shown[:_SHOWN])}{', ...' if len(shown) > _SHOWN else ''})" if shown else ""


def relative(path: Path, data_root: Path) -> str:
    """A path for reports, short when it is under the data root."""
    return (path.relative_to(data_root) if path.is_relative_to(data_root) else path).as_posix()
