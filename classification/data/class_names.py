"""Which label has which class name: the built-in data sets, and class-name files."""

import json
import re
from collections import Counter
from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path

from clipscore.data.checks import list_some, read_json, read_text


@lru_cache(maxsize=1)
def _tables() -> dict[str, dict[str, list[str]]]:
    return json.loads(Path(__file__).with_name("class_names.json").read_text(encoding="utf-8"))


def wnids(dataset: str) -> list[str]:
    """Class folders of an ImageNet set, in label order; imagenet_a and imagenet_r hold 200 of the 1000 classes."""
    subsets = _tables()["wnids"]
    if dataset in subsets:
        return list(subsets[dataset])
    from timm.data import ImageNetInfo  # slow to import

    return list(ImageNetInfo("imagenet-1k").label_names())


def class_names(dataset: str) -> list[str]:
    """Class names of a built-in set, in label order: as in CoOp's split files; ImageNet's are CLIP's curated list."""
    fine_grained = _tables()["class_names"]
    if dataset in fine_grained:
        return list(fine_grained[dataset])
    from clipscore.models.backends import open_clip  # slow to import

    name_of = dict(zip(wnids("imagenet"), open_clip.IMAGENET_CLASSNAMES, strict=True))
    return [name_of[wnid] for wnid in wnids(dataset)]


def names_of_wnids(root: Path, folders: Sequence[str]) -> dict[str, str]:
    """ImageNet's names of class folders that are called by its wnids; ValueError for one that is not."""
    known = dict(zip(wnids("imagenet"), class_names("imagenet"), strict=True))
    if unknown := sorted(folder for folder in folders if folder.lower() not in known):
        fault = f"{root}: {len(unknown)} class folders are none of ImageNet's 1000 wnids, as others are"
        raise ValueError(f"{fault}{list_some(unknown)}; give dataset_files.class_names, a file of names")
    return {folder: known[folder.lower()] for folder in sorted(folders)}


def read_class_names(path: Path, folders: list[str]) -> dict[str, str]:
    """Read the class names of the class folders that exist. -> {folder: class name}; the n-th entry is label n

    The file has `<folder> <class name>` on each line, with white space, a comma or a colon between them, or is a json
    object of these; or it has one class name on each line, or is a json list of these, in the order of the sorted
    folders and of their number. ValueError for unreadable json, a repeated folder or name, numbered lines, a mixture of
    the forms, or a list of the wrong length.
    """
    if path.suffix.lower() == ".json":
        content = read_json(path)
        names = list(content.values()) if isinstance(content, dict) else content
        if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
            raise ValueError(f"{path}: expected a json list of class names or an object {{folder: class name}}")
        found = content if isinstance(content, dict) else _plain_list(path, names, folders)
    else:
        lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
        found = _folder_lines(path, lines, folders) or _plain_list(path, lines, folders)
    check_distinct(str(path), list(found.values()))
    return found


def check_distinct(source: str, names: Sequence[str]) -> None:
    """ValueError for names that the text towers read as the same, so that the first would always win; or numbered."""
    read = Counter(" ".join(name.lower().replace("_", " ").split()) for name in names)
    if repeated := [name for name, count in read.items() if count > 1]:
        raise ValueError(f"{source}: {repeated[0]!r} is there twice; give each class once, and a name of its own")
    numbers = [re.match(r"(\d+|n\d{8})[\s,;:.)]+\S", name) for name in names]
    if len(names) > 1 and len({match[1] if match else "" for match in numbers} - {""}) == len(names):
        raise ValueError(f"{source}: each name begins with a number, {names[0]!r} and so on; take the numbers off")


def _folder_lines(path: Path, lines: list[str], folders: list[str]) -> dict[str, str] | None:
    existing = set(folders)
    pairs = [_folder_and_name(line, existing) for line in lines]
    if not any(pairs):
        return None
    if None in pairs:
        number = pairs.index(None) + 1
        raise ValueError(
            f"{path}: {len(lines) - pairs.count(None)} of {len(lines)} lines start with a class folder, line {number} "
            f"does not: {lines[number - 1]!r}; write '<folder> <class name>' on every line, or json"
        )
    repeated = [folder for folder, count in Counter(pair[0] for pair in pairs if pair).items() if count > 1]
    if repeated:
        raise ValueError(f"{path}: class folder {repeated[0]!r} has two lines; give it one class name")
    return dict(pair for pair in pairs if pair)


def _folder_and_name(line: str, folders: Collection[str]) -> tuple[str, str] | None:
    """The longest folder that a line begins with, and what follows it."""
    ends = [match.start() for match in re.finditer(r"[\s,;:=]", line) if line[: match.start()] in folders]
    name = line[max(ends) :].strip(' \t,;:="') if ends else ""
    return (line[: max(ends)], name) if name else None


def _plain_list(path: Path, names: list[str], folders: list[str]) -> dict[str, str]:
    advice = "write one per folder, sorted by folder, or '<folder> <class name>' on each line"
    if len(names) != len(folders):
        raise ValueError(f"{path}: {len(names)} class names for {len(folders)} class folders; {advice}")
    found = dict(zip(sorted(folders), names, strict=True))
    for folder, name in found.items():
        if name != folder and {name, re.split(r"[\s,;:=]", name)[-1]} & found.keys():
            raise ValueError(f"{path}: {name!r} would be the name of the class folder {folder!r}; {advice}")
    return found
