"""Find a classification data set on disk and list its images with their labels.

Everything is checked before the first image is opened: folders against classes, listed images against files.
Nothing is written into a data folder.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from classification.class_names import (
    SplitEntry,
    class_names,
    names_in_split,
    read_aircraft_split,
    read_class_names,
    read_split,
    wnids,
)
from classification.dataset_layouts import FolderLayout, SplitLayout, canonical_name, find_layout, unknown_name

if TYPE_CHECKING:
    from classification.config import DatasetFiles

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_CLASS_FOLDER = re.compile(r"n\d{8}|\d{1,3}")
_DEMO_SPLIT = "split_zhou_Demo.json"
_SHOWN = 3  # names listed in a message; the rest is counted


@dataclass(frozen=True)
class LabelledImage:
    """One test image.

    Attributes:
        id: path relative to the set's image root, posix; unique and the same on every machine.
        path: where it is.
        label: index into the set's class names.
    """

    id: str
    path: Path
    label: int


@dataclass(frozen=True)
class LabelledImages:
    """A data set that was found.

    Attributes:
        name: canonical id.
        root: folder that the ids are relative to.
        layout: which of the accepted layouts was found, for reports.
        class_names: names in label order, spelled as in their source.
        images: class folders sorted by name (as strings: 0, 1, 10, 100, ...), then by file name; a split file's own
            order.
    """

    name: str
    root: Path
    layout: str
    class_names: list[str]
    images: list[LabelledImage]


def find_dataset(name: str, data_root: Path, files: DatasetFiles | None = None) -> LabelledImages:
    """List the test images of a data set with their labels.

    Args:
        name: a built-in id or its official letter, in any case (`imagenet_a`, `A`, `imagenet_c/fog/3`, `dtd`,
            `demo/sketch`), or any other name together with `files`.
        data_root: folder that holds the built-in data sets.
        files: where the user's own data set lies; its paths may be absolute, relative to the working directory, or
            relative to the data root.

    Raises:
        ValueError: unknown name; class folders, split file or class names that do not fit; no images.
        FileNotFoundError: the data, or a listed image, is not there; every path tried is named.

    Source: paper Sec. 4.1; official TPT/data/datautils.py and fewshot_datasets.py.
    """
    data_root = Path(data_root).expanduser()
    canonical = canonical_name(name)
    if canonical is None and files is None:
        raise unknown_name(name)
    if canonical is None:
        return _own_set(name, data_root, files)
    if files is not None:
        raise ValueError(
            f"data set {name!r} is built in ({canonical}); drop dataset_files, or choose another name for your own data"
        )
    if canonical.startswith("demo/"):
        return _demo_set(canonical, data_root)
    layout = find_layout(canonical)
    if isinstance(layout, FolderLayout):
        return _imagenet_set(canonical, data_root, layout)
    return _split_set(canonical, data_root, layout)


# ---------------------------------------------------------------------------------------------- class folders


def _imagenet_set(name: str, data_root: Path, layout: FolderLayout) -> LabelledImages:
    root, folders = _class_root(name, data_root, layout)
    names = class_names(name)
    labels = {wnid: label for label, wnid in enumerate(wnids(name))}
    kind = "wnid folders"
    if name == "imagenet_v2" and any(folder.isdecimal() for folder in folders):
        labels = {str(label): label for label in range(len(names))}
        kind = "folders named by label"
    images = _folder_images(name, root, folders, labels)
    return LabelledImages(name, root, f"{_relative(root, data_root)} ({kind})", names, images)


def _class_root(name: str, data_root: Path, layout: FolderLayout) -> tuple[Path, list[str]]:
    """The first folder that holds class folders; else the first that holds any folders, to say what is wrong there."""
    tried = [data_root / root for root in layout.roots]
    folders = {root: _subfolders(root) for root in tried if root.is_dir()}
    for accepts in (lambda found: any(_CLASS_FOLDER.fullmatch(folder) for folder in found), bool):
        for root, found in folders.items():
            if accepts(found):
                return root, found
    for root in folders:
        num_flat = len(_image_files(root))
        if num_flat:
            raise ValueError(
                f"{root}: {num_flat} images lie flat in this folder, but {name} needs one folder per class (n01440764, "
                "...), which is where the labels come from; sort them into class folders, for ImageNet's validation "
                "images with the script valprep.sh of soumith/imagenetloader.torch"
            )
    raise _not_found(name, data_root, tried, f"get the data from {layout.source}")


def _folder_images(name: str, root: Path, folders: list[str], labels: dict[str, int]) -> list[LabelledImage]:
    """All images of the class folders, after checking that the folders are the classes."""
    missing, surplus = sorted(labels.keys() - set(folders)), sorted(set(folders) - labels.keys())
    if missing or surplus:
        raise ValueError(
            f"{root}: the class folders are not those of {name}: expected {len(labels)}, found {len(folders)}; "
            f"{len(missing)} missing{_some(missing)}; {len(surplus)} surplus{_some(surplus)}; "
            "unpack the data again, or move what does not belong there"
        )
    files = {folder: _image_files(root / folder) for folder in sorted(labels)}
    empty = [folder for folder, found in files.items() if not found]
    if empty or not files:
        raise ValueError(
            f"{root}: {len(empty)} of {len(files)} class folders hold no images{_some(empty)}; images must lie "
            f"directly in their class folder and end in {' '.join(IMAGE_SUFFIXES)} (any case)"
        )
    return [
        LabelledImage(f"{folder}/{file}", root / folder / file, labels[folder])
        for folder, found in files.items()
        for file in found
    ]


def _subfolders(root: Path) -> list[str]:
    with os.scandir(root) as entries:
        return [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]


def _image_files(folder: Path) -> list[str]:
    names = os.listdir(folder)
    return sorted(name for name in names if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."))


# ------------------------------------------------------------------------------------------------ split files


def _split_set(name: str, data_root: Path, layout: SplitLayout) -> LabelledImages:
    tried = [data_root / folder / layout.split_file for folder in layout.folders]
    split_file = next((path for path in tried if path.is_file()), None)
    if split_file is None:
        raise _not_found(name, data_root, tried, f"get the images and {layout.split_file} as told in {layout.source}")
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
    return _listed_set(name, data_root, split_file, roots, names, entries)


def _listed_set(
    name: str, data_root: Path, split_file: Path, roots: list[Path], names: list[str], entries: list[SplitEntry]
) -> LabelledImages:
    """The images of a split file, under the first of several roots that holds the most of a few of them."""
    probes = entries[:: max(1, len(entries) // 10)]
    hits = [sum((root / probe.path).is_file() for probe in probes) for root in roots]
    root = roots[hits.index(max(hits))]
    if max(hits) == 0:
        where = "\n".join(f"  {candidate / probes[0].path}" for candidate in roots)
        raise FileNotFoundError(
            f"data set {name}: {split_file} is there, the images it lists are not; tried, for example:\n{where}\n"
            "unpack the images there, or link the folder"
        )
    _check_listed(split_file, root, entries)
    images = [LabelledImage(entry.path, root / entry.path, entry.label) for entry in entries]
    layout = f"{_relative(root, data_root)} + {_relative(split_file, data_root)}"
    return LabelledImages(name, root, layout, names, images)


def _check_listed(split_file: Path, root: Path, entries: list[SplitEntry]) -> None:
    repeated = [path for path, count in Counter(entry.path for entry in entries).items() if count > 1]
    if repeated:
        raise ValueError(f"{split_file}: {len(repeated)} images are listed more than once{_some(repeated)}")
    listed = defaultdict(list)
    for entry in entries:
        folder, _, file = entry.path.rpartition("/")
        listed[folder].append((file, entry.path))
    missing = []
    for folder, files in listed.items():
        existing = set(os.listdir(root / folder)) if (root / folder).is_dir() else set()
        missing += [path for file, path in files if file not in existing]
    if missing:
        raise FileNotFoundError(
            f"{split_file}: {len(missing)} of {len(entries)} listed images are missing in {root}{_some(missing)}; "
            "unpack the images again"
        )


# ---------------------------------------------------------------------------------------- demo and the user's own


def _demo_set(name: str, data_root: Path) -> LabelledImages:
    folder = data_root / name
    split_file, names_file = folder / _DEMO_SPLIT, folder / "classnames.txt"
    if split_file.is_file():
        names, entries = names_in_split(split_file), read_split(split_file, "test")
        return _listed_set(name, data_root, split_file, [folder / "images", folder], names, entries)
    if names_file.is_file():
        return _own_folders(name, data_root, folder, names_file)
    existing = _subfolders(data_root / "demo") if (data_root / "demo").is_dir() else []
    hint = f"styles there: {', '.join(sorted(existing)) or 'none'}; `bash scripts/quickstart.sh` draws them; "
    hint += "then give data_root=output/demo_data"
    raise _not_found(name, data_root, [split_file, names_file], hint)


def _own_set(name: str, data_root: Path, files: DatasetFiles) -> LabelledImages:
    root = _resolve(files.images, data_root, "dataset_files.images")
    if not root.is_dir():
        raise ValueError(f"dataset_files.images: expected a folder, got the file {root}")
    names_file = _resolve(files.class_names, data_root, "dataset_files.class_names") if files.class_names else None
    if not files.split_file:
        return _own_folders(name, data_root, root, names_file)
    if names_file:
        raise ValueError(
            "dataset_files: got class_names and split_file, expected one of them; a split file holds the class names"
        )
    split_file = _resolve(files.split_file, data_root, "dataset_files.split_file")
    entries = read_split(split_file, files.split)
    return _listed_set(name, data_root, split_file, [root], names_in_split(split_file), entries)


def _own_folders(name: str, data_root: Path, root: Path, names_file: Path | None) -> LabelledImages:
    folders = sorted(_subfolders(root))
    if not folders:
        raise ValueError(
            f"{root}: no class folders (images directly in it: {len(_image_files(root))}); put the images of each "
            "class into a folder of its own, or give a split file"
        )
    name_of = read_class_names(names_file, folders) if names_file else {folder: folder for folder in folders}
    labels = {folder: label for label, folder in enumerate(name_of)}
    images = _folder_images(name, root, folders, labels)
    layout = f"{_relative(root, data_root)} (class folders" + (f", {names_file.name})" if names_file else ")")
    return LabelledImages(name, root, layout, list(name_of.values()), images)


def _resolve(path: str, data_root: Path, key: str) -> Path:
    given = Path(path).expanduser()
    tried = [given] if given.is_absolute() else [Path.cwd() / given, data_root / given]
    for candidate in tried:
        if candidate.exists():
            return candidate
    raise FileNotFoundError(f"{key}={path} not found; tried: {', '.join(map(str, tried))}; give an existing path")


# --------------------------------------------------------------------------------------------------- messages


def _not_found(name: str, data_root: Path, tried: list[Path], what_to_do: str) -> FileNotFoundError:
    where = "\n".join(f"  {path}{_what_is_there(path, data_root)}" for path in tried)
    no_root = "" if data_root.is_dir() else f"\nthe data root {data_root} itself does not exist;"
    return FileNotFoundError(
        f"data set {name} not found; tried:\n{where}{no_root}\n{what_to_do}; or set data_root to the folder that holds "
        "your data sets"
    )


def _what_is_there(path: Path, data_root: Path) -> str:
    if path.exists():
        return " (there, but holds no class folders)"
    return " (its folder is there)" if path.parent != data_root and path.parent.is_dir() else ""


def _some(names: Iterable[str]) -> str:
    shown = list(names)
    if not shown:
        return ""
    return f" ({', '.join(shown[:_SHOWN])}{', ...' if len(shown) > _SHOWN else ''})"


def _relative(path: Path, data_root: Path) -> str:
    return (path.relative_to(data_root) if path.is_relative_to(data_root) else path).as_posix()


def _plain(class_name: str) -> str:
    return class_name.lower().replace("_", " ").strip()
