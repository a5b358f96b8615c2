"""A data set that was found: its images with their labels."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LabelledImage:
    """One test image."""

    id: str  # path relative to the set's image root, posix; unique and the same on every machine
    path: Path
    label: int  # index into the set's class names


@dataclass(frozen=True)
class LabelledImages:
    """A data set that was found."""

    name: str  # canonical id, or the user's own name
    root: Path  # folder that the ids are relative to
    layout: str  # which of the accepted layouts was found, for reports
    class_names: list[str]  # in label order, spelled as in their source
    images: list[LabelledImage]  # by class folder (0, 1, 10, ...), then file name; or as a split file has it
    published: int | None = None  # number of images; None for the demo and the user's own sets
    faults: tuple[Exception, ...] = ()  # why it is not whole, each with its mend; not empty with partial=True only


Listed = tuple[list[LabelledImage], list[Exception]]
