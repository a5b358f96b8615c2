"""Which label has which class name: the built-in data sets, class-name files and split files."""

from __future__ import annotations

import json
from collections import Counter
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

_FILE = Path(__file__).with_name("class_names.json")


class SplitEntry(NamedTuple):
    """One line of a split file."""

    path: str
    label: int
    class_name: str


@lru_cache(maxsize=1)
def _tables() -> dict[str, dict[str, list[str]]]:
    return json.loads(_FILE.read_text(encoding="utf-8"))


def wnids(dataset: str) -> list[str]:
    """Class folders of an ImageNet set, in label order.

    Args:
        dataset: canonical id. imagenet_a and imagenet_r hold 200 of the 1000 classes, all others all of them.

    Returns:
        wnids in ascending order, which is ImageNet's label order.
    """
    subsets = _tables()["wnids"]
    return list(subsets[dataset]) if dataset in subsets else _imagenet_wnids()


def class_names(dataset: str) -> list[str]:
    """Class names of a built-in data set, in label order, spelled as in its source (underscores kept).

    Args:
        dataset: canonical id (`imagenet_c/fog/3` has ImageNet's names).

    Source: fine-grained names as in CoOp's split files; ImageNet names are CLIP's curated list.
    """
    fine_grained = _tables()["class_names"]
    if dataset in fine_grained:
        return list(fine_grained[dataset])
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES  # slow to import

    name_of = dict(zip(_imagenet_wnids(), IMAGENET_CLASSNAMES, strict=True))
    return [name_of[wnid] for wnid in wnids(dataset)]


def _imagenet_wnids() -> list[str]:
    from timm.data import ImageNetInfo  # slow to import

    return list(ImageNetInfo("imagenet-1k").label_names())


def read_class_names(path: Path, folders: list[str]) -> dict[str, str]:
    """Read a class-name file that belongs to class folders.

    Three forms are read: `<folder> <class name>` on each line, in label order (the first word of every line is a
    folder); one class name per line, in the order of the sorted folders; json, a list in the order of the sorted
    folders or an object {folder: class name} in label order.

    Args:
        path: a .txt or .json file.
        folders: the class folders that exist.

    Returns:
        {folder: class name}; the n-th entry is label n. Folders may be missing or surplus, except in plain lists.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable json, a repeated folder, a mixture of the forms, or a list of the wrong length.
    """
    if not path.is_file():
        raise FileNotFoundError(f"class-name file not found: {path}")
    if path.suffix.lower() == ".json":
        content = _read_json(path)
        names = content.values() if isinstance(content, dict) else content
        if not isinstance(content, dict | list) or not all(isinstance(name, str) and name.strip() for name in names):
            raise ValueError(f"{path}: expected a json list of class names or an object {{folder: class name}}")
        return content if isinstance(content, dict) else _plain_list(path, content, folders)
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    return _folder_lines(path, lines, folders) or _plain_list(path, lines, folders)


def _folder_lines(path: Path, lines: list[str], folders: list[str]) -> dict[str, str] | None:
    pairs = [line.split(maxsplit=1) for line in lines]
    existing = set(folders)
    known = [len(pair) == 2 and pair[0] in existing for pair in pairs]
    if not any(known):
        return None
    if not all(known):
        raise ValueError(
            f"{path}: {sum(known)} of {len(lines)} lines start with a class folder, line {known.index(False) + 1} "
            f"does not: {lines[known.index(False)]!r}; write '<folder> <class name>' on every line, or json"
        )
    repeated = [folder for folder, count in Counter(folder for folder, _ in pairs).items() if count > 1]
    if repeated:
        raise ValueError(f"{path}: class folder {repeated[0]!r} has two lines; give it one class name")
    return dict(pairs)


def _plain_list(path: Path, names: list[str], folders: list[str]) -> dict[str, str]:
    if len(names) != len(folders):
        raise ValueError(
            f"{path}: {len(names)} class names for {len(folders)} class folders; write one name per folder, in the "
            "order of the sorted folders, or '<folder> <class name>' on each line"
        )
    return dict(zip(sorted(folders), names, strict=True))


def _read_json(path: Path) -> object:
    """Read a json file; ValueError names the file and the place of a syntax error."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid json ({error}); download or write it again") from error


def read_split(path: Path, split: str) -> list[SplitEntry]:
    """One split of a CoOp-style file {"train": [[path, label, class name], ...], "val": [...], "test": [...]}.

    Returns:
        Its entries in the file's order, paths in posix form.

    Raises:
        ValueError: not json, no such split, an empty split, or a malformed entry (also a path that leaves the folder).
    """
    content = _read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get(split), list):
        found = ", ".join(content) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path}: no list named {split!r}, found: {found}; take a complete split file")
    if not content[split]:
        raise ValueError(f"{path}: the split {split!r} lists no images")
    return [_split_entry(path, entry) for entry in content[split]]


def _split_entry(path: Path, entry: object) -> SplitEntry:
    fits = isinstance(entry, list) and [type(part) for part in entry] == [str, int, str]
    if not fits or entry[0].startswith("/") or ".." in PurePosixPath(entry[0]).parts:
        raise ValueError(f"{path}: expected [path inside the image folder, label, class name], got {entry!r}")
    return SplitEntry(PurePosixPath(entry[0]).as_posix(), entry[1], entry[2])


def read_aircraft_split(split_file: Path) -> list[SplitEntry]:
    """FGVC Aircraft's list: lines `<image number> <variant>`; a variant's label is its line in variants.txt.

    Raises:
        FileNotFoundError: variants.txt is not beside the list.
        ValueError: an unknown variant, or no images.
    """
    variants_file = split_file.with_name("variants.txt")
    if not variants_file.is_file():
        raise FileNotFoundError(f"not found: {variants_file}; it comes with {split_file.name}")
    variants = [line.strip() for line in variants_file.read_text(encoding="utf-8").splitlines() if line.strip()]
    labels = {variant: label for label, variant in enumerate(variants)}
    entries = []
    for line in split_file.read_text(encoding="utf-8").splitlines():
        number, _, variant = line.strip().partition(" ")
        if number and variant not in labels:
            raise ValueError(f"{split_file}: variant {variant!r} of image {number!r} is not in {variants_file}")
        if number:
            entries.append(SplitEntry(f"{number}.jpg", labels[variant], variant))
    if not entries:
        raise ValueError(f"{split_file}: lists no images; unpack the data set again")
    return entries


def names_in_split(path: Path) -> list[str]:
    """Class names in label order, from all splits of a CoOp-style file.

    Raises:
        ValueError: a label with two names, or labels that are not 0, 1, 2, ... without a gap.
    """
    content = _read_json(path)
    splits = content.values() if isinstance(content, dict) else []
    names: dict[int, str] = {}
    for entry in (_split_entry(path, entry) for split in splits if isinstance(split, list) for entry in split):
        if names.setdefault(entry.label, entry.class_name) != entry.class_name:
            raise ValueError(
                f"{path}: label {entry.label} has two class names, {names[entry.label]!r} and {entry.class_name!r}"
            )
    if sorted(names) != list(range(len(names))):
        raise ValueError(f"{path}: {len(names)} labels, expected 0 to {len(names) - 1}, got {sorted(names)}")
    return [names[label] for label in range(len(names))]
