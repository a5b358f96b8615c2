"""The doctor's look at data sets: by the functions that runs find them with, so that both say the same sentences."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from classification.data import layouts as dataset_layouts
from classification.data.find import LabelledImages, find_dataset
from clipscore.data import caption_layouts
from clipscore.data import checks as data_checks
from clipscore.data.caption_sets import CaptionedImages, find_captions, published_md5
from scripts.doctor.checks import Check, wrong

FINE_GRAINED = tuple(
    name for name, layout in dataset_layouts.LAYOUTS.items() if isinstance(layout, dataset_layouts.SplitLayout)
)
# scripts/classification/rlcf_imagenet_c.sh: the 15 corruptions of the benchmark, the other four are for development.
IMAGENET_C = tuple(f"imagenet_c/{corruption}/5" for corruption in dataset_layouts.CORRUPTIONS[:15])
TABLES = {
    "table1": ("imagenet", "imagenet_a", "imagenet_v2", "imagenet_r", "imagenet_sketch"),
    "table2": ("coco", "flickr30k"),
    "table3": ("flickr30k", *(f"nocaps/{domain}" for domain in caption_layouts.NOCAPS_DOMAINS)),
}
GROUPS = {**TABLES, "fine_grained": FINE_GRAINED, "imagenet_c": IMAGENET_C}
IMAGES = {"coco": "coco2014/val2014", "flickr30k": "flickr30k/flickr30k-images", "nocaps": "nocaps/val"}
_SPLIT = "test"
_SHOWN_CLASSES = 3


def canonical(name: str) -> str:
    """The id of a built-in data set of any task.

    Raises:
        ValueError: there is none of this name.
    """
    found = dataset_layouts.canonical_name(name) or caption_layouts.canonical_name(name)
    if found is None:
        raise ValueError(f"{dataset_layouts.unknown_name(name)}\n{caption_layouts.unknown_name(name)}")
    return found


def check_data(name: str, data_root: Path, deep: bool = False) -> Check:
    """Look at one data set.

    Args:
        name: canonical id.
        data_root: folder of the data sets.
        deep: decode every image.
    """
    title = f"{name}, for {needed_by(name)}"
    try:
        with _quiet():
            data = _find(name, data_root)
    except (ValueError, OSError) as error:
        return wrong(title, error, *_mend(name, data_root))
    parts = _parts(data)
    for fault in data.faults:
        first, *more = str(fault).splitlines()
        parts.append(wrong(first, *more))
    if deep:
        from scripts.doctor.deep import check_images  # slow to import

        parts.append(check_images(name, [image.path for image in data.images]))
    return Check(title, "ok", (f"found: {data.layout}, in {data_root}",), tuple(parts))


def needed_by(name: str) -> str:
    """Tables of the paper, or rows of the README, that a data set is for."""
    if name in FINE_GRAINED:
        return "the fine-grained rows"
    if name.startswith("imagenet_c/"):
        return "the ImageNet-C rows"
    tables = [
        f"Table {group[-1]}" for group, names in TABLES.items() if any(f"{n}/".startswith(f"{name}/") for n in names)
    ]
    return " and ".join(tables) or "the demo"


def _is_captions(name: str) -> bool:
    return dataset_layouts.canonical_name(name) is None


def _find(name: str, data_root: Path) -> LabelledImages | CaptionedImages:
    if _is_captions(name):
        return find_captions(name, data_root, split=_SPLIT, partial=True)
    return find_dataset(name, data_root, partial=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What a partial data set lacks is in its faults; the doctor says it in its own place."""
    log, level = data_checks.log, data_checks.log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _parts(data: LabelledImages | CaptionedImages) -> list[Check]:
    if isinstance(data, CaptionedImages):
        images, captions = data.published or (None, None)
        parts = [_counted("images", len(data.images), images), _counted("captions", data.counts[1], captions)]
        return [*parts, _md5(data)]
    num_classes = len({image.label for image in data.images})
    shown = ", ".join(data.class_names[:_SHOWN_CLASSES])
    return [
        _counted("classes with images", num_classes, len(data.class_names)),
        _counted("images", len(data.images), data.published),
        Check(f"class names: {len(data.class_names)} ({shown}, ...)"),
    ]


def _counted(what: str, found: int, published: int | None) -> Check:
    if published is None:
        return Check(f"{what}: {found:,}, nothing is published")
    return Check(f"{what}: {found:,} of {published:,}", "ok" if found == published else "wrong")


def _md5(data: CaptionedImages) -> Check:
    expected = published_md5(data.annotations, caption_layouts.find_layout(data.name), _SPLIT)
    if expected is None:
        return Check(f"md5 of {data.annotations.name}: none is published", "note")
    is_other = any("md5" in str(fault) for fault in data.faults)
    return Check(f"md5 of {data.annotations.name}: expected {expected}", "wrong" if is_other else "ok")


def _mend(name: str, data_root: Path) -> list[str]:
    """The place where a data set belongs, and where it is obtained."""
    if name.startswith("demo"):
        return ["from: bash scripts/quickstart.sh, which draws it under output/demo_data"]
    if _is_captions(name):
        captions = caption_layouts.find_layout(name)
        file, source = captions.annotation_files[0].format(split=_SPLIT), captions.source
        places = [f"{captions.folders[0]}/{file}", IMAGES[name.split("/")[0]]]
    else:
        layout = dataset_layouts.find_layout(name)
        source = layout.source
        if isinstance(layout, dataset_layouts.FolderLayout):
            places = [layout.roots[0]]
        else:
            places = [
                f"{layout.folders[0]}/{part}".rstrip("/") for part in (layout.split_file, layout.image_folders[0])
            ]
    place = " and ".join(str(data_root / place) for place in places)
    return [f"place: {place}", f"from: {source}; pretrained/DATA.md has addresses and checksums"]
