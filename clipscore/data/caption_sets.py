"""Find images with their captions on disk, in the folders and the forms that are in use; none is opened yet."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from clipscore.config.fields import CaptionFiles
from clipscore.data import caption_layouts, checks
from clipscore.data.caption_forms import JOIN_ENTRIES, Entry, of_listed, read_annotations
from clipscore.data.caption_layouts import DEMO_SETS, NOCAPS_DOMAINS, NOCAPS_FILE, CaptionLayout, Counts, find_layout

_COCO_STEM = re.compile(r"COCO_.+_(\d+)")


@dataclass(frozen=True)
class CaptionedImage:
    """One image with its captions."""

    id: str  # its path as the annotation file gives it, "val2014/COCO_val2014_000000391895.jpg" for example; unique
    path: Path
    captions: tuple[str, ...]  # at least one, as they are in the file and in its order
    image_id: int | str  # see `_image_id`
    domain: str | None = None  # nocaps only: in-domain, near-domain or out-domain


@dataclass(frozen=True)
class CaptionedImages:
    """A data set that was found."""

    name: str  # canonical id, or the user's own name
    root: Path  # folder that image paths are relative to
    annotations: Path  # the annotation file; the folder of the files when there are several
    layout: str  # which of the accepted layouts was found, one line for reports
    images: list[CaptionedImage]  # in the order in which the annotation file first names them
    published: Counts | None = None  # None where nothing is published
    faults: tuple[Exception, ...] = ()  # why it is not whole, each with its mend; not empty with partial=True only

    @property
    def counts(self) -> Counts:
        """What was found, to be held against `published`."""
        return Counts(len(self.images), sum(len(image.captions) for image in self.images))


def captions_fingerprint(data: CaptionedImages) -> str:
    """sha256 over ids and captions in order; the same wherever the files lie and whatever their form."""
    lines = (json.dumps([image.id, image.captions]) + "\n" for image in data.images)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@checks.explain_permission_error()
def find_captions(
    name: str, data_root: Path, files: CaptionFiles | None = None, split: str = "test", partial: bool = False
) -> CaptionedImages:
    """List the images of a data set with their captions.

    `name` is a built-in id or an alias, in any case (`coco`, `MSCOCO`, `f30k`, `nocaps/in`, `demo_scenes/clean`), whose
    `split` is looked for under `data_root`; or any other name together with `files`, the user's own with a split of
    their own. `partial`: go on without missing images, with other counts than published, and a changed annotation file.

    ValueError: unknown name or split; an annotation file of no known form, or changed; faulty entries.
    FileNotFoundError, PermissionError: the annotation file, or a listed image, is not there, or may not be read.

    Source: paper Tables 2 and 3; official caption/image_llm/datasets/coco_cap.py and caption/tools/convert_*_gt.py.
    """
    data_root = Path(data_root).expanduser()
    name = checks.choose_name(name, caption_layouts, files is not None)
    data = _built_in_set(name, data_root, split) if files is None else _own_set(name, data_root, files)
    checks.raise_or_warn(data.faults, partial)
    return data


def _built_in_set(name: str, data_root: Path, split: str) -> CaptionedImages:
    layout = find_layout(name)
    if split not in layout.splits:
        raise ValueError(f"data set {name} has no split {split!r}; choose one of {', '.join(layout.splits)}")
    files = [file.format(split=split) for file in layout.annotation_files]
    tried = [data_root / folder / file for folder in layout.folders for file in files]
    annotations = next((path for path in tried if path.is_file()), None)
    if annotations is None:
        styles = checks.describe_styles(data_root / DEMO_SETS) if name.startswith(f"{DEMO_SETS}/") else ""
        what = f"data set {name}, split {split}: no annotation file"
        raise checks.not_found(what, tried, "file", data_root, f"{styles}get the data from {layout.source}")
    if name == "nocaps" and annotations.name != NOCAPS_FILE:
        return _joined_nocaps(data_root, annotations.parent, split)
    form, entries = read_annotations(annotations, split, name)
    if annotations.name in caption_layouts.WHOLE_FILES:
        entries = of_listed(annotations, entries, split)
    if name.startswith("nocaps/"):
        entries = _of_domain(annotations, entries, name.removeprefix("nocaps/"))
    own_folder_first = sorted(layout.folders, key=lambda folder: not annotations.is_relative_to(data_root / folder))
    roots = [data_root / folder / images for folder in own_folder_first for images in layout.image_folders]
    data = _captioned_images(name, data_root, annotations, form, roots, entries)
    faults = (*data.faults, *_unlike_published(annotations, layout, split, entries))
    return replace(data, published=layout.published.get(split), faults=faults)


def _unlike_published(annotations: Path, layout: CaptionLayout, split: str, entries: list[Entry]) -> list[Exception]:
    """Faults by count and md5, most often of a file that was cut to five captions per image."""
    faults, published = [], layout.published.get(split)
    found = Counts(len(entries), sum(len(entry.captions) for entry in entries))
    if published not in (None, found):
        there = f"{found.num_images:,} images and {found.num_captions:,} captions"
        faults.append(f"lists {there}, published are {published.num_images:,} and {published.num_captions:,}")
    expected = published_md5(annotations, layout, split)
    md5 = hashlib.md5(annotations.read_bytes(), usedforsecurity=False).hexdigest() if expected else None
    if md5 != expected:
        faults.append(f"its md5 is {md5}, the published file's is {expected}")
    return [ValueError(f"{annotations}: {fault}; get the original file from {layout.source}") for fault in faults]


def published_md5(annotations: Path, layout: CaptionLayout, split: str) -> str | None:
    """The md5 of an annotation file, when it is a published one that holds this split alone."""
    names = {Path(file.format(split=split)).name for file in layout.annotation_files if "{split}" in file}
    return layout.md5.get(split) if annotations.name in names else None


def _joined_nocaps(data_root: Path, folder: Path, split: str) -> CaptionedImages:
    """All of nocaps from the converted lists, one domain after the other."""
    parts = [_built_in_set(f"nocaps/{domain}", data_root, split) for domain in NOCAPS_DOMAINS]
    images = [image for part in parts for image in part.images]
    checks.check_repeated(folder, [image.id for image in images], JOIN_ENTRIES)
    layout, published = "; ".join(part.layout for part in parts), find_layout("nocaps").published[split]
    faults = tuple(fault for part in parts for fault in part.faults)
    return CaptionedImages("nocaps", parts[0].root, folder, layout, images, published, faults)


def _of_domain(annotations: Path, entries: list[Entry], domain: str) -> list[Entry]:
    """The official file says which domain an image is of; a converted list holds one, and only its name says which."""
    if annotations.name != NOCAPS_FILE:
        return [entry._replace(domain=domain) for entry in entries]
    chosen = [entry for entry in entries if entry.domain == domain]
    if not chosen:
        found = ", ".join(sorted({str(entry.domain) for entry in entries}))
        raise ValueError(f"{annotations}: no image has the domain {domain!r}, found: {found}; get the original file")
    return chosen


def _own_set(name: str, data_root: Path, files: CaptionFiles) -> CaptionedImages:
    annotations = checks.resolve(files.annotations, data_root, "dataset_files.annotations", "file with captions")
    images = files.images
    root = checks.resolve(images, data_root, "dataset_files.images", "folder") if images else annotations.parent
    form, entries = read_annotations(annotations, files.split, name)
    return _captioned_images(name, data_root, annotations, form, [root], entries)


def _captioned_images(
    name: str, data_root: Path, annotations: Path, form: str, roots: Sequence[Path], entries: list[Entry]
) -> CaptionedImages:
    """The entries with the paths of their images: as they are listed, or else the file names alone, under one root."""
    listed = [entry.image for entry in entries]
    names = [image.rpartition("/")[2] for image in listed]
    # Two listed images of one name would both become the same file.
    listings = [listed] if len(set(names)) < len(names) else [listed, names]
    root, files, faults = checks.locate_images(annotations, roots, listings)
    images = [
        CaptionedImage(entry.image, root / file, entry.captions, _image_id(entry), entry.domain)
        for entry, file in zip(entries, files, strict=True)
        if file
    ]
    place = checks.relative(root, data_root) + ("" if {*files} <= {None, *listed} else ", by file name")
    layout = f"{checks.relative(annotations, data_root)} ({form}{checks.origin(annotations.parent)}), images in {place}"
    return CaptionedImages(name, root, annotations, layout, images, faults=faults)


def _image_id(entry: Entry) -> int | str:
    """The number that the file states, or that COCO's file name ends in; else the text that it states, or the stem."""
    if isinstance(entry.image_id, int):
        return entry.image_id
    stem = PurePosixPath(entry.image).stem
    coco = _COCO_STEM.fullmatch(stem)  # BLIP's train lists say "coco_328757", the other lists say nothing
    return int(coco[1]) if coco else entry.image_id or stem
