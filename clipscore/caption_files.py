"""Find images with their captions on disk, in the folders and the json forms that are in use.

Everything is checked before the first image is opened: the entries of the annotation file, and that every listed image
is there. Nothing is written into a data folder. Captions are returned as they are in the file, all of them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from clipscore.caption_forms import Entry, check_repeated, read_annotations, some
from clipscore.caption_layouts import (
    DEMO_SETS,
    NOCAPS_DOMAINS,
    NOCAPS_FILE,
    CaptionLayout,
    canonical_name,
    find_layout,
    unknown_name,
)

if TYPE_CHECKING:
    from clipscore.config import CaptionFiles

log = logging.getLogger(__name__)

_COCO_STEM = re.compile(r"COCO_.+_(\d+)")
_PROBES = 10  # images looked for under every candidate folder before all are checked under the best one


@dataclass(frozen=True)
class CaptionedImage:
    """One image with its captions.

    Attributes:
        id: image path as the annotation file gives it, e.g. "val2014/COCO_val2014_000000391895.jpg"; unique.
        path: where it is.
        captions: all of them, as they are in the file and in its order; at least one.
        image_id: an integer that the file states; for COCO's file names the digits after the last "_"; else the text
            that the file states; else the stem of the file name.
        domain: nocaps only: in-domain, near-domain or out-domain.
    """

    id: str
    path: Path
    captions: tuple[str, ...]
    image_id: int | str
    domain: str | None = None


@dataclass(frozen=True)
class CaptionedImages:
    """A data set that was found.

    Attributes:
        name: canonical id, or the user's own name.
        root: folder that image paths are relative to.
        annotations: the annotation file; the folder of the files when there are several.
        layout: which of the accepted layouts was found, one line for reports.
        images: in the order in which the annotation file first names them.
    """

    name: str
    root: Path
    annotations: Path
    layout: str
    images: list[CaptionedImage]


def find_captions(
    name: str, data_root: Path, files: CaptionFiles | None = None, split: str = "test"
) -> CaptionedImages:
    """List the images of a data set with their captions.

    Args:
        name: a built-in id or an alias, in any case (`coco`, `MSCOCO`, `f30k`, `nocaps/in`, `demo_scenes/clean`), or
            any other name together with `files`.
        data_root: folder that holds the built-in data sets.
        files: the user's own annotation file and image folder; paths may be absolute, relative to the working
            directory, or relative to the data root.
        split: of a built-in set. The user's own files state theirs in `files.split`, which only files in Karpathy's
            form are asked for: any other file is one split.

    Raises:
        ValueError: unknown name or split; an annotation file that is not of a known form; faulty entries.
        FileNotFoundError: the annotation file, or a listed image, is not there; every path tried is named.

    Source: paper Tables 2 and 3; official caption/image_llm/datasets/coco_cap.py and caption/tools/convert_*_gt.py.
    """
    data_root = Path(data_root).expanduser()
    canonical = canonical_name(name)
    if files is None:
        if canonical is None:
            raise unknown_name(name)
        data = _built_in_set(canonical, data_root, split)
        _warn_of_other_counts(data, split)
        return data
    if canonical is not None:
        raise ValueError(
            f"data set {name!r} is built in ({canonical}); drop dataset_files, or choose another name for your own data"
        )
    return _own_set(name, data_root, files)


def captions_fingerprint(data: CaptionedImages) -> str:
    """sha256 over ids and captions in order; the same wherever the files lie and whatever their form."""
    digest = hashlib.sha256()
    for image in data.images:
        digest.update(json.dumps([image.id, image.captions]).encode() + b"\n")
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------- where the files lie


def _built_in_set(name: str, data_root: Path, split: str) -> CaptionedImages:
    layout = find_layout(name)
    if split not in layout.splits:
        raise ValueError(f"data set {name} has no split {split!r}; choose one of {', '.join(layout.splits)}")
    annotations = _annotation_file(name, layout, data_root, split)
    if name == "nocaps" and annotations.name != NOCAPS_FILE:
        return _joined_nocaps(data_root, annotations.parent, split)
    form, entries = read_annotations(annotations, split)
    if name.startswith("nocaps/"):
        entries = _of_domain(annotations, entries, name.removeprefix("nocaps/"))
    own_folder_first = sorted(layout.folders, key=lambda folder: not annotations.is_relative_to(data_root / folder))
    roots = [data_root / folder / images for folder in own_folder_first for images in layout.image_folders]
    return _captioned_set(name, data_root, annotations, form, roots, entries)


def _warn_of_other_counts(data: CaptionedImages, split: str) -> None:
    """Most often a file that was cut to five captions per image."""
    published = find_layout(data.name).published.get(split)
    found = len(data.images), sum(len(image.captions) for image in data.images)
    if published and found != (published.num_images, published.num_captions):
        log.warning(
            "%s: %d images and %d captions, published are %d and %d; figures will not be comparable",
            data.annotations, *found, published.num_images, published.num_captions,
        )  # fmt: skip


def _annotation_file(name: str, layout: CaptionLayout, data_root: Path, split: str) -> Path:
    tried = [
        data_root / folder / file.format(split=split) for folder in layout.folders for file in layout.annotation_files
    ]
    found = next((path for path in tried if path.is_file()), None)
    if found:
        return found
    demo = data_root / DEMO_SETS
    styles = sorted(path.name for path in demo.iterdir() if path.is_dir()) if demo.is_dir() else []
    there = f"; styles there: {', '.join(styles) or 'none'}" if name.startswith(f"{DEMO_SETS}/") else ""
    no_root = "" if data_root.is_dir() else f"; the data root {data_root} itself does not exist"
    raise FileNotFoundError(
        f"data set {name}, split {split}: no annotation file; tried: {', '.join(map(str, tried))}{no_root}{there}; "
        f"get the data from {layout.source}, or set data_root to the folder that holds your data sets"
    )


def _joined_nocaps(data_root: Path, folder: Path, split: str) -> CaptionedImages:
    """All of nocaps from the converted lists, one domain after the other."""
    parts = [_built_in_set(f"nocaps/{domain}", data_root, split) for domain in NOCAPS_DOMAINS]
    images = [image for part in parts for image in part.images]
    check_repeated(folder, [image.id for image in images])
    return CaptionedImages("nocaps", parts[0].root, folder, "; ".join(part.layout for part in parts), images)


def _of_domain(annotations: Path, entries: list[Entry], domain: str) -> list[Entry]:
    """The official file holds all domains and says which; a converted list holds one, and only its name says which."""
    if annotations.name != NOCAPS_FILE:
        return [entry._replace(domain=domain) for entry in entries]
    chosen = [entry for entry in entries if entry.domain == domain]
    if not chosen:
        found = sorted({str(entry.domain) for entry in entries})
        raise ValueError(
            f"{annotations}: no image has the domain {domain!r}, found: {', '.join(found)}; get the original file"
        )
    return chosen


def _own_set(name: str, data_root: Path, files: CaptionFiles) -> CaptionedImages:
    annotations = _resolve(files.annotations, data_root, "dataset_files.annotations")
    if not annotations.is_file():
        raise ValueError(f"dataset_files.annotations: expected a json file, got the folder {annotations}")
    root = _resolve(files.images, data_root, "dataset_files.images") if files.images else annotations.parent
    if not root.is_dir():
        raise ValueError(f"dataset_files.images: expected a folder, got the file {root}")
    form, entries = read_annotations(annotations, files.split)
    return _captioned_set(name, data_root, annotations, form, [root], entries)


def _resolve(path: str, data_root: Path, key: str) -> Path:
    given = Path(path).expanduser()
    tried = [given] if given.is_absolute() else [Path.cwd() / given, data_root / given]
    for candidate in tried:
        if candidate.exists():
            return candidate
    raise FileNotFoundError(f"{key}={path} not found; tried: {', '.join(map(str, tried))}; give an existing path")


# ------------------------------------------------------------------------------------------ where the images lie


def _captioned_set(
    name: str, data_root: Path, annotations: Path, form: str, roots: Sequence[Path], entries: list[Entry]
) -> CaptionedImages:
    """The entries with the paths of their images, under the root where most of a few of them are found."""
    root, files = _image_files(annotations, roots, entries)
    images = [
        CaptionedImage(entry.image, path, entry.captions, _image_id(entry), entry.domain)
        for entry, path in zip(entries, (root / file for file in files), strict=True)
    ]
    _check_existing(annotations, roots, images)
    by_name = ", by file name" if files != [entry.image for entry in entries] else ""
    layout = f"{_relative(annotations, data_root)} ({form}), images in {_relative(root, data_root)}{by_name}"
    return CaptionedImages(name, root, annotations, layout, images)


def _image_files(annotations: Path, roots: Sequence[Path], entries: list[Entry]) -> tuple[Path, list[str]]:
    """The root that holds the images, and each image's file under it: the listed path, or the file name alone."""
    listed = [entry.image for entry in entries]
    names = [image.rpartition("/")[2] for image in listed]
    # Two listed images of one name would both become the same file.
    ways = [listed] if len(set(names)) < len(names) else [listed, names]
    candidates = [(root, files) for files in ways for root in roots]
    step = max(1, len(entries) // _PROBES)
    hits = [sum((root / file).is_file() for file in files[::step]) for root, files in candidates]
    if max(hits):
        return candidates[hits.index(max(hits))]
    tried = dict.fromkeys(str(root / files[0]) for root, files in candidates)
    raise FileNotFoundError(
        f"{annotations} lists {len(entries)} images, none of {len(listed[::step])} looked for is on disk; tried, for "
        f"example: {', '.join(tried)}; unpack the images there, or link the folder"
    )


def _check_existing(annotations: Path, roots: Sequence[Path], images: list[CaptionedImage]) -> None:
    """One directory listing per folder: asking for each file by itself takes minutes on a network drive."""
    in_folder = defaultdict(list)
    for image in images:
        in_folder[image.path.parent].append(image)
    missing = []
    for folder, expected in in_folder.items():
        existing = set(os.listdir(folder)) if folder.is_dir() else set()
        missing += [image.id for image in expected if image.path.name not in existing]
    if missing:
        raise FileNotFoundError(
            f"{annotations}: {len(missing)} of {len(images)} listed images are missing on disk{some(missing)}; tried "
            f"under: {', '.join(map(str, roots))}; unpack the images again"
        )


def _image_id(entry: Entry) -> int | str:
    if isinstance(entry.image_id, int):
        return entry.image_id
    stem = PurePosixPath(entry.image).stem
    coco = _COCO_STEM.fullmatch(stem)  # BLIP's train lists say "coco_328757", the other lists say nothing
    return int(coco[1]) if coco else entry.image_id or stem


def _relative(path: Path, data_root: Path) -> str:
    return (path.relative_to(data_root) if path.is_relative_to(data_root) else path).as_posix()
