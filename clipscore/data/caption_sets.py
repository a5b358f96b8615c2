"""Find images with their captions on disk, in the folders and the json forms that are in use.

Everything is checked before the first image is opened: the entries of the annotation file, their number against the
published one, the md5 of known files, and that every listed image is there. Nothing is written into a data folder.
Captions are returned as they are in the file, all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from clipscore.data.caption_forms import Entry, check_repeated, read_annotations
from clipscore.data.caption_layouts import (
    DEMO_SETS,
    NOCAPS_DOMAINS,
    NOCAPS_FILE,
    CaptionLayout,
    Counts,
    canonical_name,
    find_layout,
    unknown_name,
)
from clipscore.data.captioned_images import CaptionedImage, CaptionedImages, captioned_set, captions_fingerprint
from clipscore.data.checks import no_root, resolve, settle, told_when_refused, what_is_there

if TYPE_CHECKING:
    from clipscore.config.fields import CaptionFiles

__all__ = ["CaptionedImage", "CaptionedImages", "captions_fingerprint", "find_captions"]


@told_when_refused()
def find_captions(
    name: str, data_root: Path, files: CaptionFiles | None = None, split: str = "test", partial: bool = False
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
        partial: go on with what is there of a set that is not whole: without the images that are missing, with other
            counts than the published ones, and with a changed annotation file.

    Raises:
        ValueError: unknown name or split; an annotation file that is not of a known form, or not the published one;
            faulty entries; other counts than the published ones.
        FileNotFoundError: the annotation file, or a listed image, is not there; every path tried is named.
        PermissionError: a file or folder of it may not be read.

    Source: paper Tables 2 and 3; official caption/image_llm/datasets/coco_cap.py and caption/tools/convert_*_gt.py.
    """
    data_root = Path(data_root).expanduser()
    canonical = canonical_name(name)
    if files is None and canonical is None:
        raise unknown_name(name)
    if files is not None and canonical is not None:
        raise ValueError(
            f"data set {name!r} is built in ({canonical}); drop dataset_files, or choose another name for your own data"
        )
    data = _built_in_set(canonical, data_root, split) if canonical else _own_set(name, data_root, files)
    settle(data.faults, partial)
    return data


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
    data = captioned_set(name, data_root, annotations, form, roots, entries)
    published = layout.published.get(split)
    if published is None:
        return data
    faults = _unlike_published(annotations, layout, split, entries)
    return replace(data, published=published.counts, faults=(*data.faults, *faults))


def _unlike_published(
    annotations: Path, layout: CaptionLayout, split: str, entries: Sequence[Entry]
) -> list[Exception]:
    """Most often a file that was cut to five captions per image."""
    published, faults = layout.published[split], []
    found = Counts(len(entries), sum(len(entry.captions) for entry in entries))
    if found != published.counts:
        faults.append(
            f"{annotations}: lists {found.num_images:,} images and {found.num_captions:,} captions, published are "
            f"{published.num_images:,} and {published.num_captions:,}"
        )
    expected = published_md5(annotations, layout, split)
    md5 = hashlib.md5(annotations.read_bytes(), usedforsecurity=False).hexdigest() if expected else None
    if md5 != expected:
        faults.append(f"{annotations}: its md5 is {md5}, the published file's is {expected}")
    return [ValueError(f"{fault}; get the original file from {layout.source}") for fault in faults]


def published_md5(annotations: Path, layout: CaptionLayout, split: str) -> str | None:
    """The md5 of an annotation file, when it is a published one that holds this split alone."""
    names = {Path(file.format(split=split)).name for file in layout.annotation_files if "{split}" in file}
    return layout.published[split].md5 if split in layout.published and annotations.name in names else None


def _annotation_file(name: str, layout: CaptionLayout, data_root: Path, split: str) -> Path:
    tried = [
        data_root / folder / file.format(split=split) for folder in layout.folders for file in layout.annotation_files
    ]
    found = next((path for path in tried if path.is_file()), None)
    if found:
        return found
    demo = data_root / DEMO_SETS
    styles = sorted(path.name for path in demo.iterdir() if path.is_dir()) if demo.is_dir() else []
    there = f"styles there: {', '.join(styles) or 'none'}; " if name.startswith(f"{DEMO_SETS}/") else ""
    where = "".join(f"\n  {path}{what_is_there(path, 'file')}" for path in tried)
    raise FileNotFoundError(
        f"data set {name}, split {split}: no annotation file; tried:{where}\n{no_root(data_root)}{there}"
        f"get the data from {layout.source}, or set data_root to the folder that holds your data sets"
    )


def _joined_nocaps(data_root: Path, folder: Path, split: str) -> CaptionedImages:
    """All of nocaps from the converted lists, one domain after the other."""
    parts = [_built_in_set(f"nocaps/{domain}", data_root, split) for domain in NOCAPS_DOMAINS]
    images = [image for part in parts for image in part.images]
    check_repeated(folder, [image.id for image in images])
    layout = "; ".join(part.layout for part in parts)
    faults = tuple(fault for part in parts for fault in part.faults)
    published = find_layout("nocaps").published[split].counts
    return CaptionedImages("nocaps", parts[0].root, folder, layout, images, published, faults)


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
    annotations = resolve(files.annotations, data_root, "dataset_files.annotations")
    if not annotations.is_file():
        raise ValueError(f"dataset_files.annotations: expected a json file, got the folder {annotations}")
    root = resolve(files.images, data_root, "dataset_files.images") if files.images else annotations.parent
    if not root.is_dir():
        raise ValueError(f"dataset_files.images: expected a folder, got the file {root}")
    form, entries = read_annotations(annotations, files.split)
    return captioned_set(name, data_root, annotations, form, [root], entries)
