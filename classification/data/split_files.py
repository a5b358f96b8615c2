"""Data sets whose images are listed in a file: hold the list against the class names and the files on disk."""

import logging
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from classification.data.class_names import check_distinct, class_names
from classification.data.labelled_images import LabelledImage, LabelledImages
from classification.data.layouts import SplitLayout
from clipscore.data import checks

log = logging.getLogger(__name__)


class SplitEntry(NamedTuple):
    """One line of a split file."""

    path: str
    label: int
    class_name: str


def read_split(path: Path, split: str) -> list[SplitEntry]:
    """One split of a CoOp-style file {"train": [[path, label, class name], ...], ...}, in the file's order.

    ValueError: not json, no such split, an empty split, or a malformed entry (also a path that leaves the folder).
    """
    content = checks.read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get(split), list):
        found = ", ".join(content) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path}: no list named {split!r}, found: {found}; take a complete split file")
    if not content[split]:
        raise ValueError(f"{path}: the split {split!r} lists no images")
    return [_split_entry(path, entry) for entry in content[split]]


def _split_entry(path: Path, entry: Any) -> SplitEntry:
    fits = isinstance(entry, list) and [type(part) for part in entry] == [str, int, str]
    if not fits or entry[0].startswith("/") or ".." in PurePosixPath(entry[0]).parts:
        raise ValueError(f"{path}: expected [path inside the image folder, label, class name], got {entry!r}")
    return SplitEntry(PurePosixPath(entry[0]).as_posix(), entry[1], entry[2])


def read_aircraft_split(split_file: Path) -> list[SplitEntry]:
    """FGVC Aircraft's list of `<number> <variant>`; labels are lines of variants.txt. ValueError: another variant."""
    variants_file = split_file.with_name("variants.txt")
    if not variants_file.is_file():
        raise FileNotFoundError(f"not found: {variants_file}; it comes with {split_file.name}")
    variants = [line.strip() for line in checks.read_text(variants_file).splitlines() if line.strip()]
    labels = {variant: label for label, variant in enumerate(variants)}
    entries = []
    for line in checks.read_text(split_file).splitlines():
        number, _, variant = line.strip().partition(" ")
        if number and variant not in labels:
            raise ValueError(f"{split_file}: variant {variant!r} of image {number!r} is not in {variants_file}")
        if number:
            entries.append(SplitEntry(f"{number}.jpg", labels[variant], variant))
    if not entries:
        raise ValueError(f"{split_file}: lists no images; unpack the data set again")
    return entries


def read_cars_annotations(path: Path, names: Sequence[str]) -> list[SplitEntry]:
    """Stanford's own list of the Cars test images, which copies on Kaggle have; ValueError: another file."""
    from scipy.io import loadmat  # slow to import

    try:
        rows = loadmat(path, squeeze_me=True)["annotations"]
        numbered = [(str(row["fname"]), int(row["class"]) - 1) for row in rows]
        return [SplitEntry(f"cars_test/{file}", label, names[label]) for file, label in numbered]
    except (ValueError, KeyError, IndexError) as error:
        raise ValueError(f"{path} is not Stanford's list of test images with labels ({error}); get it again") from error


def names_in_split(path: Path) -> list[str]:
    """Class names in label order, of a CoOp-style file's splits; ValueError: labels with two names, or with gaps."""
    content = checks.read_json(path)
    splits = content.values() if isinstance(content, dict) else []
    names: dict[int, str] = {}
    for entry in (_split_entry(path, entry) for split in splits if isinstance(split, list) for entry in split):
        if names.setdefault(entry.label, entry.class_name) != entry.class_name:
            both = f"{names[entry.label]!r} and {entry.class_name!r}"
            raise ValueError(f"{path}: label {entry.label} has two class names, {both}")
    if sorted(names) != list(range(len(names))):
        raise ValueError(f"{path}: {len(names)} labels, expected 0 to {len(names) - 1}, got {sorted(names)}")
    check_distinct(str(path), list(names.values()))
    return [names[label] for label in range(len(names))]


def find_split_set(name: str, data_root: Path, layout: SplitLayout) -> LabelledImages:
    """One of the fine-grained sets, in the first of its layouts; arguments and errors as in `find_dataset`."""
    files = (layout.split_file, *layout.other_files)
    tried = [data_root / folder / file for file in files for folder in layout.folders]
    split_file = next((path for path in tried if path.is_file()), None)
    if split_file is None:
        mend = f"get the images and {layout.split_file} as told in {layout.source}"
        raise checks.not_found(f"data set {name} not found", tried, "file", data_root, mend)
    names = class_names(name)
    if split_file.suffix == ".mat":
        entries = read_cars_annotations(split_file, names)
    else:
        entries = read_aircraft_split(split_file) if name == "aircraft" else read_split(split_file, "test")
    _check_names(split_file, entries, names, layout)
    roots = [split_file.parent / folder for folder in layout.image_folders]
    return listed_set(name, data_root, split_file, roots, names, entries, layout)


def _check_names(split_file: Path, entries: Sequence[SplitEntry], names: Sequence[str], layout: SplitLayout) -> None:
    """A warning for class names that we spell otherwise; ValueError for a label that is none, or is another class's.

    Source: the official code never looks at the names in split files.
    """
    known, others = {_plain(name): name for name in names}, {}
    for entry in entries:
        own = names[entry.label] if 0 <= entry.label < len(names) else None
        if own is None or known.get(_plain(entry.class_name), own) != own:
            expected = f"a label below {len(names)}" if own is None else repr(own)
            raise ValueError(
                f"{split_file}: {entry.path} has label {entry.label} and class name {entry.class_name!r}, expected "
                f"{expected}; get the original file as told in {layout.source}"
            )
        if _plain(entry.class_name) not in known:
            others[entry.label] = f"{entry.class_name!r} for {own!r}"
    if others:
        text = "%s: %d class names are not the published ones, which the prompts are made of%s"
        log.warning(text, split_file, len(others), checks.list_some(others.values()))


def listed_set(
    name: str,
    data_root: Path,
    split_file: Path,
    roots: list[Path],
    names: list[str],
    entries: list[SplitEntry],
    layout: SplitLayout | None = None,
) -> LabelledImages:
    """Images of a list, under the root with most. FileNotFoundError: none is there; ValueError: one is listed twice."""
    listed = [entry.path for entry in entries]
    checks.check_repeated(split_file, listed, "; get the original file")
    root, files, faults = checks.locate_images(split_file, roots, [listed])
    published = layout.num_images if layout else None
    if layout and len(entries) != published:
        counts = f"{split_file}: lists {len(entries):,} test images, published are {published:,}"
        faults = (*faults, ValueError(f"{counts}; get the original file as told in {layout.source}"))
    images = [LabelledImage(e.path, root / file, e.label) for e, file in zip(entries, files, strict=True) if file]
    found = f"{checks.relative(root, data_root)} + {checks.relative(split_file, data_root)}"
    return LabelledImages(name, root, found, names, images, published, faults)


def _plain(class_name: str) -> str:
    return class_name.lower().replace("_", " ").strip()
