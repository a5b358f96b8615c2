"""Data sets whose images are listed in a file: hold the list against the class names and the files on disk."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from classification.data.class_names import SplitEntry, class_names, read_aircraft_split, read_split
from classification.data.labelled_images import LabelledImage, LabelledImages
from classification.data.layouts import SplitLayout
from clipscore.data.checks import missing_files, no_root, relative, some, what_is_there


def find_split_set(name: str, data_root: Path, layout: SplitLayout) -> LabelledImages:
    """One of the fine-grained sets, in the first of its layouts; arguments as in `find_dataset`.

    Raises:
        FileNotFoundError: no split file, or none of its images; every path tried is named.
        ValueError: the split file does not fit the classes.
    """
    tried = [data_root / folder / layout.split_file for folder in layout.folders]
    split_file = next((path for path in tried if path.is_file()), None)
    if split_file is None:
        raise split_not_found(
            name, data_root, tried, f"get the images and {layout.split_file} as told in {layout.source}"
        )
    names = class_names(name)
    entries = read_aircraft_split(split_file) if name == "aircraft" else read_split(split_file, "test")
    for entry in entries:
        if not 0 <= entry.label < len(names) or _plain(entry.class_name) != _plain(names[entry.label]):
            expected = repr(names[entry.label]) if 0 <= entry.label < len(names) else f"a label below {len(names)}"
            raise ValueError(
                f"{split_file}: {entry.path} has label {entry.label} and class name {entry.class_name!r}, expected "
                f"{expected}; get the original file as told in {layout.source}"
            )
    roots = [split_file.parent / folder for folder in layout.image_folders]
    return listed_set(name, data_root, split_file, roots, names, entries, layout)


def listed_set(
    name: str,
    data_root: Path,
    split_file: Path,
    roots: list[Path],
    names: list[str],
    entries: list[SplitEntry],
    layout: SplitLayout | None = None,
) -> LabelledImages:
    """The images of a split file, under the first of several roots that holds the most of them.

    Args:
        name: of the data set.
        data_root: for reports.
        split_file: where the entries are from.
        roots: folders that the listed paths may be relative to.
        names: class names.
        entries: checked entries.
        layout: of a built-in set, which has a published size.

    Raises:
        FileNotFoundError: none of the images is there.
        ValueError: an image is listed more than once.
    """
    repeated = [path for path, count in Counter(entry.path for entry in entries).items() if count > 1]
    if repeated:
        raise ValueError(
            f"{split_file}: {len(repeated)} images are listed more than once{some(repeated)}; get the original file"
        )
    root, missing = _fullest(roots, [entry.path for entry in entries])
    if len(missing) == len(entries):
        where = "".join(f"\n  {place / entries[0].path}{what_is_there(place, 'folder')}" for place in roots)
        raise FileNotFoundError(
            f"data set {name}: {split_file} is there, the images it lists are not; tried, for example:{where}\n"
            "unpack the images there, or link the folder"
        )
    faults: list[Exception] = []
    if missing:
        faults.append(
            FileNotFoundError(
                f"{split_file}: {len(missing)} of {len(entries)} listed images are missing in {root}"
                f"{some(entry.path for entry in entries if entry.path in missing)}; unpack the images again"
            )
        )
    if layout and len(entries) != layout.num_images:
        faults.append(
            ValueError(
                f"{split_file}: lists {len(entries):,} test images, published are {layout.num_images:,}; get the "
                f"original file as told in {layout.source}"
            )
        )
    images = [
        LabelledImage(entry.path, root / entry.path, entry.label) for entry in entries if entry.path not in missing
    ]
    found = f"{relative(root, data_root)} + {relative(split_file, data_root)}"
    return LabelledImages(name, root, found, names, images, layout.num_images if layout else None, tuple(faults))


def _fullest(roots: list[Path], files: list[str]) -> tuple[Path, set[str]]:
    """The first root where the fewest files are missing, and those files."""
    best, fewest = roots[0], set(files)
    for root in roots:
        missing = missing_files(root, files)
        if len(missing) < len(fewest):
            best, fewest = root, missing
        if not fewest:
            break
    return best, fewest


def split_not_found(name: str, data_root: Path, tried: list[Path], what_to_do: str) -> FileNotFoundError:
    """The error for a data set without its split file."""
    where = "".join(f"\n  {path}{_state(path, data_root)}" for path in tried)
    return FileNotFoundError(
        f"data set {name} not found; tried:{where}\n{no_root(data_root)}{what_to_do}; or set data_root to the folder "
        "that holds your data sets"
    )


def _state(path: Path, data_root: Path) -> str:
    beside = " (its folder is there)" if path.parent != data_root and path.parent.is_dir() else ""
    return what_is_there(path, "file") or what_is_there(path.parent, "folder") or beside


def _plain(class_name: str) -> str:
    return class_name.lower().replace("_", " ").strip()
