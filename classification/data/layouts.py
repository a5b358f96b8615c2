"""Names, folders, split files and published sizes of the built-in classification data sets."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clipscore.config.yaml12 import read_table
from clipscore.data.checks import demo_id, unknown_data_set

SEVERITIES = ("1", "2", "3", "4", "5")

COOP_PAGE = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"


@dataclass(frozen=True)
class FolderLayout:
    """A data set with one folder per class, named by wnid (or by label number in ImageNet-V2)."""

    roots: Sequence[str]  # under the data root, may hold the class folders; of equal ones the first is taken
    num_images: int  # published
    num_classes: int
    source: str  # page that offers the data


@dataclass(frozen=True)
class SplitLayout:
    """A data set whose test images are listed in a split file."""

    folders: Sequence[str]  # under the data root, may hold the split file; tried in this order
    image_folders: Sequence[str]  # beside the split file, the listed paths may be relative to them
    split_file: str
    num_images: int  # published number of test images
    num_classes: int
    source: str = COOP_PAGE  # page that offers the data
    other_files: Sequence[str] = ()  # that list the test images in another form


_TABLE = read_table(Path(__file__).with_suffix(".yaml"))
CORRUPTIONS: list[str] = _TABLE["corruptions"]  # of ImageNet-C
ALIASES: dict[str, str] = _TABLE["aliases"]
LAYOUTS: dict[str, FolderLayout | SplitLayout] = {
    name: FolderLayout(**entry) if "roots" in entry else SplitLayout(**entry)
    for name, entry in _TABLE["layouts"].items()
}


def canonical_name(name: str) -> str | None:
    """The built-in data set that a name stands for: `A` -> `imagenet_a`, `C/Fog/3` -> `imagenet_c/fog/3`; or None.

    Names are read in any case, and `-` as `_`. ValueError for an ImageNet-C id without a known corruption and
    severity, and for a demo id without a style.
    """
    head, *rest = name.strip().lower().split("/")
    head = head.replace("-", "_")
    head = ALIASES.get(head, head)
    if head == "demo":
        return demo_id(name, "demo", "/".join(rest))
    if head != "imagenet_c":
        return head if head in LAYOUTS and not rest else None
    if len(rest) == 2 and rest[0] in CORRUPTIONS and rest[1] in SEVERITIES:
        return "/".join([head, *rest])
    [nearest] = difflib.get_close_matches(rest[0], CORRUPTIONS, n=1, cutoff=0) if rest else ["fog"]
    near = f"nearest corruption: {nearest}; valid: {', '.join(CORRUPTIONS)}"
    raise ValueError(f"data set {name!r}: expected imagenet_c/<corruption>/<severity 1-5>; {near}")


def find_layout(name: str) -> FolderLayout | SplitLayout:
    """Layout of a built-in set, of ImageNet-C with corruption and severity; ValueError: unknown, or a demo set."""
    head, *rest = name.split("/")
    if head not in LAYOUTS:
        raise unknown_name(name)
    layout = LAYOUTS[head]
    if isinstance(layout, FolderLayout) and head == "imagenet_c":
        return replace(layout, roots=tuple("/".join([root, *rest]) for root in layout.roots))
    return layout


def unknown_name(name: str) -> ValueError:
    """The error for a data set id that is not built in."""
    ids = {key: key for key in LAYOUTS} | {alias: key for alias, key in ALIASES.items() if len(alias) > 1}
    valid = [*(key for key in LAYOUTS if key != "imagenet_c"), "imagenet_c/<corruption>/<1-5>", "demo/<style>"]
    return unknown_data_set(name, ids, valid, "images=DIR")
