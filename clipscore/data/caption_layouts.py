"""Names, annotation files, image folders and published sizes of the built-in image-caption data sets."""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from clipscore.data.checks import demo_id, unknown_data_set

NOCAPS_DOMAINS = ("in-domain", "near-domain", "out-domain")
NOCAPS_FILE = "nocaps_val_4500_captions.json"
DEMO_SETS = "demo_scenes"
KARPATHY_ZIP = "caption_datasets.zip"
FLICKR_TABLES = ("results_20130124.token", "results.csv")
WHOLE_FILES = {"captions_val2014.json", *FLICKR_TABLES}  # of all images; a list beside them says which are a split's


class Counts(NamedTuple):
    """How many images, and how many captions of them all together."""

    num_images: int
    num_captions: int


@dataclass(frozen=True)
class CaptionLayout:
    """Where a data set with captions may lie."""

    folders: tuple[str, ...]  # under the data root, tried in this order
    annotation_files: tuple[str, ...]  # inside such a folder, tried in this order; `{split}` is filled in
    image_folders: tuple[str, ...]  # inside such a folder, the listed image paths may be relative to them
    splits: tuple[str, ...]
    source: str  # pages that offer images and annotations
    published: dict[str, Counts] = field(default_factory=dict)  # by split
    md5: dict[str, str] = field(default_factory=dict)  # of the splits' own annotation files in BLIP's form


def _both_places(*files: str) -> tuple[str, ...]:
    return tuple(f"{place}{file}" for file in files for place in ("annotations/", ""))


def _nocaps(num_images: int, *files: str) -> CaptionLayout:
    """Only the validation images have public captions, and papers test on them: `test` and `val` are the same."""
    published = Counts(num_images, 10 * num_images)  # ten reference captions for each image
    return CaptionLayout(
        ("nocaps",), _both_places(*files), ("", "val", "images", "images/val"), ("test", "val"),
        "https://nocaps.org/download", {"test": published, "val": published},
    )  # fmt: skip


_BLIP = "https://github.com/salesforce/BLIP"
_NOCAPS_LISTS = {  # converted lists, one per domain
    domain: (num_images, f"nocaps_val_{num_images}_{domain}.json")
    for domain, num_images in zip(NOCAPS_DOMAINS, (417, 2_670, 1_413), strict=True)
}

LAYOUTS: dict[str, CaptionLayout] = {
    "coco": CaptionLayout(
        ("coco2014", "coco"),
        _both_places("coco_karpathy_{split}.json", "dataset_coco.json", KARPATHY_ZIP, "captions_val2014.json"),
        ("", "images"),
        ("test", "val", "train"),
        f"https://cocodataset.org/#download (2014 images) and {_BLIP} (coco_karpathy_*.json)",
        {"train": Counts(113_287, 566_747), "val": Counts(5_000, 25_010), "test": Counts(5_000, 25_010)},
        {
            "train": "aa31ac474cf6250ebb81d18348a07ed8",
            "val": "b273847456ef5580e33713b1f7de52a0",
            "test": "3ff34b0ef2db02d01c37399f6a2a6cd1",
        },
    ),
    "flickr30k": CaptionLayout(
        ("flickr30k",),
        _both_places("flickr30k_{split}.json", "{split}.json", "dataset_flickr30k.json", KARPATHY_ZIP, *FLICKR_TABLES),
        ("", "flickr30k-images", "flickr30k_images", "images"),
        ("test", "val", "train"),
        f"https://shannon.cs.illinois.edu/DenotationGraph (images) and {_BLIP} (flickr30k_*.json)",
        {"train": Counts(29_000, 145_000), "val": Counts(1_014, 5_070), "test": Counts(1_000, 5_000)},
    ),
    "nocaps": _nocaps(4_500, NOCAPS_FILE, *(file for _, file in _NOCAPS_LISTS.values())),
    **{
        f"nocaps/{domain}": _nocaps(num_images, NOCAPS_FILE, file)
        for domain, (num_images, file) in _NOCAPS_LISTS.items()
    },
}

ALIASES = {
    "mscoco": "coco", "ms_coco": "coco", "coco2014": "coco", "coco_2014": "coco", "mscoco2014": "coco",
    "coco_karpathy": "coco", "coco_caption": "coco", "coco_captions": "coco",
    "flickr": "flickr30k", "f30k": "flickr30k", "flickr_30k": "flickr30k",
}  # fmt: skip


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
