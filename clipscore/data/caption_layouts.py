"""Names, annotation files, image folders and published sizes of the built-in image-caption data sets."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from clipscore.config.yaml12 import read_table
from clipscore.data.checks import demo_id, unknown_data_set

NOCAPS_DOMAINS = ("in-domain", "near-domain", "out-domain")
NOCAPS_FILE = "nocaps_val_4500_captions.json"
DEMO_SETS = "demo_scenes"
# Of all images; a list beside them says which are those of a split.
WHOLE_FILES = {"captions_val2014.json", "results_20130124.token", "results.csv"}


class Counts(NamedTuple):
    """How many images, and how many captions of them all together."""

    num_images: int
    num_captions: int


@dataclass(frozen=True)
class CaptionLayout:
    """Where a data set with captions may lie."""

    folders: Sequence[str]  # under the data root, tried in this order
    annotation_files: Sequence[str]  # inside such a folder, tried in this order; `{split}` is filled in
    image_folders: Sequence[str]  # inside such a folder, the listed image paths may be relative to them
    splits: Sequence[str]
    source: str  # pages that offer images and annotations
    published: dict[str, Counts] = field(default_factory=dict)  # by split
    md5: dict[str, str] = field(default_factory=dict)  # of the splits' own annotation files in BLIP's form


def _layout(annotation_files: Sequence[str], published: Mapping[str, Sequence[int]], **others: Any) -> CaptionLayout:
    places = [f"{folder}{file}" for file in annotation_files for folder in ("annotations/", "")]
    counts = {split: Counts(*numbers) for split, numbers in published.items()}
    return CaptionLayout(annotation_files=places, published=counts, **others)


_TABLE = read_table(Path(__file__).with_suffix(".yaml"))
ALIASES: dict[str, str] = _TABLE["aliases"]
LAYOUTS = {name: _layout(**entry) for name, entry in _TABLE["layouts"].items()}


def canonical_name(name: str) -> str | None:
    """The built-in data set that a name stands for: `MSCOCO` -> `coco`, `nocaps_in` -> `nocaps/in-domain`; or None.

    Names are read in any case, and `-` as `_`. ValueError for a demo id without a style.
    """
    lower = name.strip().lower()
    head, _, style = lower.partition("/")
    if head.replace("-", "_") == DEMO_SETS:
        return demo_id(name, DEMO_SETS, style)
    plain = lower.replace("-", "_")
    domain = re.fullmatch(r"nocaps[/_](in|near|out)(_?domain)?", plain)
    if domain:
        return f"nocaps/{domain[1]}-domain"
    plain = ALIASES.get(plain, plain)
    return plain if plain in LAYOUTS else None


def find_layout(name: str) -> CaptionLayout:
    """Layout of a built-in data set; ValueError for a name that is not a canonical id."""
    if name.startswith(f"{DEMO_SETS}/"):
        source = "`bash scripts/quickstart.sh`, which draws the demo sets; then give data_root=output/demo_data"
        return CaptionLayout((name,), ("annotations/{split}.json",), ("",), ("test", "train"), source)
    if name not in LAYOUTS:
        raise unknown_name(name)
    return LAYOUTS[name]


def unknown_name(name: str) -> ValueError:
    """The error for a data set id that is not built in."""
    ids = {key: key for key in LAYOUTS} | {DEMO_SETS: f"{DEMO_SETS}/<style>"}
    return unknown_data_set(name, ids | ALIASES, ids.values(), "annotations=FILE.json")
