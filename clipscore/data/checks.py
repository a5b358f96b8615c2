"""What the readers of data sets share: names, the user's paths, listings of folders, and the faults of a set.

Nothing is written into a data folder.
"""

import contextlib
import difflib
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")  # of files that are taken for images
GO_ON = "; or partial=true to go on with what is there"
_SHOWN = 3  # names listed in a message; the rest is counted


def unknown_data_set(name: str, ids: Mapping[str, str], valid: Iterable[str], own_files: str) -> ValueError:
    """The error for a data set that is not built in: with the nearest of `ids`, {a name in use: its id}."""
    nearest = difflib.get_close_matches(name.strip().lower(), ids, n=1, cutoff=0)[0]
    return ValueError(
        f"unknown data set {name!r}; nearest: {ids[nearest]!r}; valid: {', '.join(valid)}. "
        f"For your own images keep the name and give dataset_files.{own_files}"
    )


def demo_id(name: str, kind: str, style: str) -> str:
    """Id of a demo set, "demo/clean" for example; ValueError for a style that is no single word."""
    if not re.fullmatch(r"[a-z0-9_-]+", style):
        raise ValueError(f"data set {name!r}: expected {kind}/<style>, e.g. {kind}/clean")
    return f"{kind}/{style}"


def choose_name(name: str, layouts: ModuleType, has_own_files: bool) -> str:
    """The canonical id of a built-in set by the module that knows them, or the name of a set of the user's own.

    ValueError for the user's own files under a built-in name, and for an unknown name without files.
    """
    canonical = layouts.canonical_name(name)
    if canonical is None and not has_own_files:
        raise layouts.unknown_name(name)
    if canonical is not None and has_own_files:
        raise ValueError(
            f"data set {name!r} is built in ({canonical}); drop dataset_files, or choose another name for your own data"
        )
    return canonical or name


def resolve(path: str, data_root: Path, key: str, kind: str) -> Path:
    """A path that the user gave by a setting `key`: absolute, or relative to the working directory or the data root.

    FileNotFoundError, with what was tried; ValueError for one that is no `kind`, "folder" or a kind of file.
    """
    given = Path(path).expanduser()
    tried = [given] if given.is_absolute() else [Path.cwd() / given, data_root / given]
    found = next((candidate for candidate in tried if candidate.exists()), None)
    if found is None:
        raise FileNotFoundError(f"{key}={path} not found; tried: {', '.join(map(str, tried))}; give an existing path")
    if found.is_dir() != (kind == "folder"):
        raise ValueError(f"{key}: expected a {kind}, got the {'folder' if found.is_dir() else 'file'} {found}")
    return found


def read_json(path: Path) -> Any:
    """The content of a json file; ValueError, with the place, for one that is empty or no json."""
    content = path.read_bytes()
    if not content.strip():
        raise ValueError(f"{path}: the file is empty ({len(content)} bytes); get it again")
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # ValueError: bad json, or bytes that are not utf-8
        raise ValueError(f"{path}: not valid json in utf-8 ({error}); get the file again") from error


def subfolders(root: Path) -> list[str]:
    """Names of the visible folders in a folder, sorted, links to folders included; none when it is not there."""
    if not root.is_dir():
        return []
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())


def file_names(folder: Path) -> set[str]:
    """Names of the files in a folder, links to files included; none when there is no such folder.

    One listing per folder: asking for each file by itself takes minutes on a network drive.
    """
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.is_file()}


def missing_files(root: Path, files: Sequence[str]) -> set[str]:
    """Those of the posix paths under a folder at which there is no file."""
    parts = [file.rpartition("/") for file in files]
    existing = {folder: file_names(root / folder) for folder in {folder for folder, *_ in parts}}
    return {file for file, (folder, _, name) in zip(files, parts, strict=True) if name not in existing[folder]}


def fullest_root(
    roots: Sequence[Path], listings: Sequence[Sequence[str]], nothing_there: str
) -> tuple[Path, Sequence[str], set[str]]:
    """The folder where the most of the listed files are, the listing that fits it, and its paths without a file.

    `listings` are ways to write the paths of all files, relative to one of the `roots`; the first of equally full
    folders is taken. FileNotFoundError, which begins with `nothing_there`, when none of the files is anywhere.
    """
    ways = [(root, files) for files in listings for root in roots]
    best, fewest = ways[0], set(listings[0])
    for root, files in ways:
        missing = missing_files(root, files)
        if len(missing) < len(fewest):
            best, fewest = (root, files), missing
        if not missing:
            break
    if len(fewest) < len(listings[0]):
        return *best, fewest

    def state(path: Path) -> str:
        return next(filter(None, (what_is_there(place, "folder") for place in path.parents)), "")

    raise FileNotFoundError(
        f"{nothing_there}; tried, for example:{_list_paths((root / files[0] for root, files in ways), state)}\n"
        "unpack the images there, or link the folder"
    )


@contextlib.contextmanager
def explain_permission_error() -> Iterator[None]:
    """PermissionError that says what to do where a file or folder may not be read; also a decorator."""
    try:
        yield
    except PermissionError as error:
        raise PermissionError(
            f"{error.filename}: permission denied for this user; let its owner make it and the folders above it "
            "readable (chmod a+rX), or set data_root to a copy that is"
        ) from error


def raise_or_warn(faults: Sequence[Exception], partial: bool) -> None:
    """Stop at a data set that is not whole, with all faults and the type of the first; or warn, with partial=true."""
    if faults and not partial:
        raise type(faults[0])("\n".join(map(str, faults)) + GO_ON)
    for fault in faults:
        log.warning("partial=true: %s", fault)


def check_repeated(source: Path, items: Sequence[object], mend: str) -> None:
    """ValueError, with the mend, for images that are listed more than once."""
    if repeated := [str(item) for item, count in Counter(items).items() if count > 1]:
        raise ValueError(f"{source}: {len(repeated)} images are listed more than once{list_some(repeated)}{mend}")


def not_found(
    what: str, tried: Iterable[Path], state: Callable[[Path], str], data_root: Path, mend: str
) -> FileNotFoundError:
    """The error for a data set that is in none of the places tried; `state` says what is there instead, in brackets."""
    root = ""
    if not data_root.is_dir():
        link = what_is_there(data_root, "folder")
        kind = "is a file, expected a folder" if data_root.exists() else f"itself does not exist{link}"
        root = f"the data root {data_root} {kind}; "
    return FileNotFoundError(
        f"{what}; tried:{_list_paths(tried, state)}\n{root}{mend}; or set data_root to the folder that holds your "
        "data sets"
    )


def file_not_found(what: str, tried: Iterable[Path], data_root: Path, mend: str) -> FileNotFoundError:
    """The error for a data set whose list of images is in none of the places tried."""

    def state(path: Path) -> str:
        beside = " (its folder is there)" if path.parent != data_root and path.parent.is_dir() else ""
        return what_is_there(path, "file") or what_is_there(path.parent, "folder") or beside

    return not_found(what, tried, state, data_root, mend)


def _list_paths(tried: Iterable[Path], state: Callable[[Path], str]) -> str:
    return "".join(f"\n  {path}{state(path)}" for path in dict.fromkeys(tried))


def what_is_there(path: Path, expected: str) -> str:
    """In brackets: a path is of another kind than expected, "file" or "folder", or a link to nothing; else nothing."""
    if path.is_dir() and expected == "file":
        return " (a folder, expected a file)"
    if path.is_file() and expected == "folder":
        return " (a file, expected a folder)"
    if path.is_symlink() and not path.exists():
        return f" (a link to {os.readlink(path)}, which is not there)"
    return ""


def describe_styles(folder: Path) -> str:
    """The demo sets that were drawn."""
    return f"styles there: {', '.join(subfolders(folder)) or 'none'}; "


def list_some(names: Iterable[str]) -> str:
    """The first few names in brackets, or nothing."""
    shown = list(names)
    return f" ({', '.join(shown[:_SHOWN])}{', ...' if len(shown) > _SHOWN else ''})" if shown else ""


def relative(path: Path, data_root: Path) -> str:
    """A path for reports, short when it is under the data root."""
    return (path.relative_to(data_root) if path.is_relative_to(data_root) else path).as_posix()
