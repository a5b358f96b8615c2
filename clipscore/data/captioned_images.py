"""Images with their captions that were found on disk, and where the listed images lie."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from clipscore.data.caption_forms import Entry
from clipscore.data.caption_layouts import Counts
from clipscore.data.checks import missing_files, relative, some, what_is_there

_COCO_STEM = re.compile(r"COCO_.+_(\d+)")


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
        published: published numbers of images and captions; None where nothing is published.
        faults: what keeps the set from being whole, each with its mend; not empty with partial=True only.
    """

    name: str
    root: Path
    annotations: Path
    layout: str
    images: list[CaptionedImage]
    published: Counts | None = None
    faults: tuple[Exception, ...] = ()

    @property
    def counts(self) -> Counts:
        """What was found, to be held against `published`."""
        return Counts(len(self.images), sum(len(image.captions) for image in self.images))


def captions_fingerprint(data: CaptionedImages) -> str:
    """sha256 over ids and captions in order; the same wherever the files lie and whatever their form."""
    digest = hashlib.sha256()
    for image in data.images:
        digest.update(json.dumps([image.id, image.captions]).encode() + b"\n")
    return digest.hexdigest()


def captioned_set(
    name: str, data_root: Path, annotations: Path, form: str, roots: Sequence[Path], entries: list[Entry]
) -> CaptionedImages:
    """The entries with the paths of their images, under the root where the most of them are found.

    Args:
        name: of the data set.
        data_root: for reports.
        annotations: where the entries are from.
        form: name of its form.
        roots: folders that the listed paths may be relative to.
        entries: checked entries.

    Raises:
        FileNotFoundError: none of the images is there.
    """
    root, files, missing = _image_files(annotations, roots, entries)
    images = [
        CaptionedImage(entry.image, root / file, entry.captions, _image_id(entry), entry.domain)
        for entry, file in zip(entries, files, strict=True)
        if file not in missing
    ]
    lost = [entry.image for entry, file in zip(entries, files, strict=True) if file in missing]
    fault = FileNotFoundError(
        f"{annotations}: {len(lost)} of {len(entries)} listed images are missing on disk{some(lost)}; tried "
        f"under: {', '.join(map(str, roots))}; unpack the images again"
    )
    by_name = ", by file name" if files != [entry.image for entry in entries] else ""
    layout = f"{relative(annotations, data_root)} ({form}), images in {relative(root, data_root)}{by_name}"
    return CaptionedImages(name, root, annotations, layout, images, faults=(fault,) if lost else ())


def _image_files(annotations: Path, roots: Sequence[Path], entries: list[Entry]) -> tuple[Path, list[str], set[str]]:
    """The root that holds the most images, each image's file under it (the listed path, or the file name alone), and
    those of the files that are not there."""
    listed = [entry.image for entry in entries]
    names = [image.rpartition("/")[2] for image in listed]
    # Two listed images of one name would both become the same file.
    ways = [listed] if len(set(names)) < len(names) else [listed, names]
    best = (roots[0], listed, set(listed))
    for root, files in ((root, files) for files in ways for root in roots):
        missing = missing_files(root, files)
        if len(missing) < len(best[2]):
            best = (root, files, missing)
        if not missing:
            break
    if len(best[2]) < len(entries):
        return best
    tried = dict.fromkeys(root / files[0] for files in ways for root in roots)
    where = "".join(f"\n  {path}{what_is_there(path.parent, 'folder')}" for path in tried)
    raise FileNotFoundError(
        f"{annotations} lists {len(entries)} images, none of them is on disk; tried, for example:{where}\n"
        "unpack the images there, or link the folder"
    )


def _image_id(entry: Entry) -> int | str:
    if isinstance(entry.image_id, int):
        return entry.image_id
    stem = PurePosixPath(entry.image).stem
    coco = _COCO_STEM.fullmatch(stem)  # BLIP's train lists say "coco_328757", the other lists say nothing
    return int(coco[1]) if coco else entry.image_id or stem
