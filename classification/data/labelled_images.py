"""A data set that was found: its images with their labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LabelledImage:
    """One test image.

    Attributes:
        id: path relative to the set's image root, posix; unique and the same on every machine.
        path: where it is.
        label: index into the set's class names.
    """

    id: str
    path: Path
    label: int


@dataclass(frozen=True)
class LabelledImages:
    """A data set that was found.

    Attributes:
        name: canonical id.
        root: folder that the ids are relative to.
        layout: which of the accepted layouts was found, for reports.
        class_names: names in label order, spelled as in their source.
        images: class folders sorted by name (as strings: 0, 1, 10, 100, ...), then by file name; a split file's own
            order.
        published: published number of images; None for the demo and the user's own sets.
        faults: what keeps the set from being whole, each with its mend; not empty with partial=True only.
    """

    name: str
    root: Path
    layout: str
    class_names: list[str]
    images: list[LabelledImage]
    published: int | None = None
    faults: tuple[Exception, ...] = ()


Listed = tuple[list[LabelledImage], list[Exception]]
