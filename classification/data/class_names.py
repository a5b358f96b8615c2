"""Which label has which class name: the built-in data sets, and class-name files."""

import json
from collections import Counter
from functools import lru_cache
from pathlib import Path

from clipscore.data.checks import read_json


@lru_cache(maxsize=1)
def _tables() -> dict[str, dict[str, list[str]]]:
    return json.loads(Path(__file__).with_name("class_names.json").read_text(encoding="utf-8"))


def wnids(dataset: str) -> list[str]:
    """Class folders of an ImageNet set, given by its canonical id, in label order, which is ascending.

    imagenet_a and imagenet_r hold 200 of the 1000 classes, all others all of them.
    """
    subsets = _tables()["wnids"]
    if dataset in subsets:
        return list(subsets[dataset])
    from timm.data import ImageNetInfo  # slow to import

    return list(ImageNetInfo("imagenet-1k").label_names())


def class_names(dataset: str) -> list[str]:
    """Class names of a built-in data set, given by its canonical id, in label order, spelled as in its source.

    Source: fine-grained names as in CoOp's split files; ImageNet names are CLIP's curated list.
    """
    fine_grained = _tables()["class_names"]
    if dataset in fine_grained:
        return list(fine_grained[dataset])
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES  # slow to import

    name_of = dict(zip(wnids("imagenet"), IMAGENET_CLASSNAMES, strict=True))
    return [name_of[wnid] for wnid in wnids(dataset)]


def read_class_names(path: Path, folders: list[str]) -> dict[str, str]:
    """Read the class names of the class folders that exist. -> {folder: class name}; the n-th entry is label n

    The file has `<folder> <class name>` on each line, or is a json object of these; or it has one class name on each
    line, or is a json list of these, in the order of the sorted folders and of their number. ValueError for unreadable
    json, a repeated folder, a mixture of the forms, or a list of the wrong length.
    """
    if path.suffix.lower() == ".json":
        content = read_json(path)
        names = list(content.values()) if isinstance(content, dict) else content
        if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
            raise ValueError(f"{path}: expected a json list of class names or an object {{folder: class name}}")
        return content if isinstance(content, dict) else _plain_list(path, names, folders)
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
        counts = f"{path}: {len(names)} class names for {len(folders)} class folders"
        raise ValueError(f"{counts}; write one per folder, sorted by folder, or '<folder> <class name>' on each line")
    return dict(zip(sorted(folders), names, strict=True))
