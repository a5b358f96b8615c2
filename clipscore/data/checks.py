"""What the readers of data sets share: names, paths, listings, and faults. Nothing is written into a data folder."""

import contextlib
import difflib
import itertools
import json
import logging
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")
START_BYTES = 256  # are enough to know what a file is
CONVERTED = "converted.json"  # beside images or annotations that scripts/convert copied


def unknown_data_set(name: str, ids: Mapping[str, str], valid: Iterable[str], own_files: str) -> ValueError:
    """The error for a data set that is not built in: with the nearest of `ids`, {a name in use: its id}."""
    nearest = difflib.get_close_matches(name.strip().lower(), ids, n=1, cutoff=0)[0]
    own = f"For your own images keep the name and give dataset_files.{own_files}"
    return ValueError(f"unknown data set {name!r}; nearest: {ids[nearest]!r}; valid: {', '.join(valid)}. {own}")


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
        raise ValueError(f"data set {name!r} is built in ({canonical}); drop dataset_files, or choose another name")
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


def describe_stand_in(start: bytes) -> str:
    """What lies in the place of a file, by its first `START_BYTES`: a pointer of git-lfs, a web page, or nothing."""
    if start.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not the file: `git lfs pull` gets it where it was cloned"
    if re.match(rb"\s*<(!doctype|html|head|\?xml)", start, re.IGNORECASE):
        return "is a web page, of a login or an error most likely, not the file"
    return ""


def read_lines(path: str | Path, option: str) -> list[str]:
    """The lines of the user's text file; FileNotFoundError when there is none, ValueError as in `read_text`."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{option} {path}: there is no such file; give a text file")
    return read_text(Path(path)).splitlines()


def read_text(path: Path, member: str | None = None) -> str:
    """A text file, or one in a zip archive; ValueError, with its name, for one that is empty or not text in UTF-8."""
    try:
        content = zipfile.ZipFile(path).read(member) if member else path.read_bytes()
    except (KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no zip archive that holds {member} ({error}); get it again") from error
    if not content.strip():
        raise ValueError(f"{path}: the file is empty ({len(content)} bytes); get it again")
    if stand_in := describe_stand_in(content[:START_BYTES]):
        raise ValueError(f"{path} {stand_in}; get the file again")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        guess = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin1"
        mend = f"`iconv -f {guess} -t utf-8 {path}` writes it so, if {guess} is what it is in"
        raise ValueError(f"{path}: not text in UTF-8 ({error.reason} at byte {error.start}); {mend}") from error


def read_json(path: Path, member: str | None = None) -> Any:
    """The content of a json file; ValueError, with its name, for no text (`read_text`) or json, or a repeated key."""
    text = read_text(path, member)
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid json in utf-8 ({error}); correct it, or get the file again") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        [(key, _), *_] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{key!r} is there twice")
    return content


def subfolders(root: Path) -> list[str]:
    """Names of the visible folders in a folder, sorted, links to folders included; none when it is not there."""
    return sorted(_listing(root, lambda entry: not entry.name.startswith(".") and entry.is_dir()))


def file_names(folder: Path) -> set[str]:
    """Names of the files in a folder, links to files included; none when there is no such folder."""
    return set(_listing(folder, os.DirEntry.is_file))


def _listing(folder: Path, is_wanted: Callable[[os.DirEntry[str]], bool]) -> Iterator[str]:
    """Once for all names: asking for each by itself takes minutes on a network drive."""
    if folder.is_dir():
        with os.scandir(folder) as entries:
            yield from check_utf8(folder, (entry.name for entry in entries if is_wanted(entry)))


def list_pictures(folder: Path) -> list[str]:
    """The visible image files of a folder and of those in it, by sorted posix paths; what is left out is counted."""
    found: list[str] = []
    others: Counter[str] = Counter()
    for place, folders, names in os.walk(folder, followlinks=True):
        here = os.path.join(os.path.realpath(place), "")
        inner = {name: os.path.join(os.path.realpath(os.path.join(place, name)), "") for name in folders}
        # No link to a folder above.
        folders[:] = [name for name in folders if name[0] != "." and not here.startswith(inner[name])]
        for name in check_utf8(place, (name for name in names if not name.startswith("."))):
            if name.lower().endswith(IMAGE_SUFFIXES):
                found.append(Path(place, name).relative_to(folder).as_posix())
            else:
                others[Path(name).suffix.lower() or "without an ending"] += 1
    if others:
        kinds = ", ".join(f"{count} {ending}" for ending, count in others.most_common())
        log.warning("%s: %d files are left out, no images by their names: %s", folder, others.total(), kinds)
    return sorted(found)


def check_utf8(folder: str | Path, names: Iterable[str]) -> Iterator[str]:
    """The names of a folder; ValueError for one that is not in UTF-8, because no record could hold it."""
    for name in names:
        if not name.isascii() and re.search("[\udc80-\udcff]", name):
            mend = "rename it, all of them for example with `convmv -f latin1 -t utf8 -r --notest FOLDER`"
            raise ValueError(f"{os.fsencode(folder)!r}: the name {os.fsencode(name)!r} is not in UTF-8; {mend}")
        yield name


class Located(NamedTuple):
    """Where the images of a list are."""

    root: Path
    files: list[str | None]  # under it, one for each image of the list; None for a missing one
    faults: tuple[Exception, ...] = ()  # what is said about missing ones


def locate_images(source: Path, roots: Sequence[Path], listings: Sequence[Sequence[str]]) -> Located:
    """The images that the file `source` lists, under the root where the most of them are, the first of equally full.

    `listings` are ways to write all paths, relative to one of the `roots`; the first way is the file's own.
    FileNotFoundError when none of the images is anywhere.
    """
    images, ways = listings[0], list(itertools.product(listings, roots))
    best = Located(roots[0], [None] * len(images))
    for files, root in ways:
        folders = {file[: file.rfind("/") + 1] for file in files}
        there = {folder + name for folder in folders for name in file_names(root / folder)}
        found = Located(root, [file if file in there else None for file in files])
        best = min(best, found, key=lambda located: located.files.count(None))
        if None not in best.files:
            return best
    lost = [image for image, file in zip(images, best.files, strict=True) if file is None]
    if len(lost) == len(images):
        places = _list_paths((root / files[0] for files, root in ways), "file")
        what = f"{source} lists {len(images)} images, none of them is on disk; tried, for example:{places}"
        raise FileNotFoundError(f"{what}\nunpack the images there, or link the folder")
    fault = f"{source}: {len(lost)} of {len(images)} listed images are missing on disk{list_some(lost)}"
    tried = ", ".join(map(str, roots))
    return best._replace(faults=(FileNotFoundError(f"{fault}; tried under: {tried}; unpack the images again"),))


@contextlib.contextmanager
def explain_permission_error() -> Iterator[None]:
    """PermissionError that says what to do where a file or folder may not be read; also a decorator."""
    try:
        yield
    except PermissionError as error:
        mend = (
            "let its owner make it and the folders above it readable (chmod a+rX), or set data_root to a copy that is"
        )
        raise PermissionError(f"{error.filename}: permission denied for this user; {mend}") from error


def raise_or_warn(faults: Sequence[Exception], partial: bool) -> None:
    """Stop at a data set that is not whole, with all faults and the type of the first; or warn, with partial=true."""
    if faults and not partial:
        raise type(faults[0])("\n".join(map(str, faults)) + "; or partial=true to go on with what is there")
    for fault in faults:
        log.warning("partial=true: %s", fault)


def check_repeated(source: Path, items: Sequence[object], mend: str) -> None:
    """ValueError, with the mend, for images that are listed more than once."""
    if repeated := [str(item) for item, count in Counter(items).items() if count > 1]:
        raise ValueError(f"{source}: {len(repeated)} images are listed more than once{list_some(repeated)}{mend}")


def not_found(what: str, tried: Iterable[Path], kind: str, data_root: Path, mend: str) -> FileNotFoundError:
    """The error for a data set that is in none of the places tried, each a "file" or a "folder" of classes."""
    root = "" if data_root.is_dir() else f"there is no data root {data_root}{_what_is_there(data_root, 'folder')}; "
    places = _list_paths(tried, kind)
    return FileNotFoundError(f"{what}; tried:{places}\n{root}{mend}; or set data_root to the folder of your data sets")


def folder_fault(folder: Path) -> str:
    """Why nothing can be written into a folder, which need not be there yet; empty where nothing speaks against it."""
    place = next(place for place in (folder, *folder.parents) if place.exists() or place.is_symlink())
    if not place.exists():
        return f"{place} is a link to {os.readlink(place)}, which is not there"
    if not place.is_dir():
        return f"{place} is a file, expected a folder"
    return "" if os.access(place, os.W_OK) else f"{place} cannot be written to"


def _list_paths(tried: Iterable[Path], kind: str) -> str:
    return "".join(f"\n  {path}{_what_is_there(path, kind)}" for path in dict.fromkeys(tried))


def _what_is_there(path: Path, kind: str) -> str:
    """In brackets, what is at a path or above it, where a "file" or a "folder" of classes was looked for in vain."""
    place = next(place for place in (path, *path.parents) if place.exists() or place.is_symlink())
    if not place.exists():
        return f" (a link to {os.readlink(place)}, which is not there)"
    if not place.is_dir():
        return " (a file, expected a folder)"
    if place == path:
        return " (a folder, expected a file)" if kind == "file" else " (there, but holds no class folders)"
    return " (its folder is there)" if place == path.parent and kind == "file" else ""


def describe_styles(folder: Path) -> str:
    """The demo sets that were drawn."""
    return f"styles there: {', '.join(subfolders(folder)) or 'none'}; "


def list_some(names: Iterable[str]) -> str:
    """The first three names in brackets, or nothing."""
    shown = list(names)
    return f" ({', '.join(shown[:3])}{', ...' if len(shown) > 3 else ''})" if shown else ""


def origin(folder: Path) -> str:
    """For reports, of what a converted set was made: its ids, and so its views, are not those of the original files."""
    file = folder / CONVERTED
    return f", converted from {read_json(file)['source']}: ids and views are of that copy" if file.is_file() else ""


def relative(path: Path, data_root: Path) -> str:
    """A path for reports, short when it is under the data root."""
    return (path.relative_to(data_root) if path.is_relative_to(data_root) else path).as_posix()
