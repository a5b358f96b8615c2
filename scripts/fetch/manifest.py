"""The files that `python -m scripts.fetch` knows, by files.yaml: weights, and annotation files of the data sets."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classification.data.layouts import LAYOUTS as IMAGE_LAYOUTS
from classification.data.layouts import SplitLayout
from clipscore.config.load import REPOSITORY
from clipscore.config.yaml12 import read_table
from clipscore.data.caption_layouts import LAYOUTS as CAPTION_LAYOUTS
from clipscore.models.files import checksums


@dataclass(frozen=True)
class RemoteFile:
    """One file, where it comes from and where it goes."""

    group: str  # name under which several files are fetched together
    path: str  # relative to the weights folder; an annotation file's is relative to the data folder
    page: str  # that offers it
    address: str | None  # what is downloaded; None when it takes a person
    needed_by: str  # rows of the paper's tables; empty for extras, which are fetched only when they are named
    size: int | None = None  # bytes
    checksum: str | None = None  # "sha256:<hex>" or "md5:<hex>"
    other_paths: Sequence[str] = ()  # further places where a run finds it
    by_hand: str = ""  # what a person does with the download
    is_archived: bool = False  # the address is a zip archive that holds it, in a folder of its name or at the top
    is_annotation: bool = False  # it belongs to a data set, so it is written only when that is asked for


# Of weights those in pretrained/checksums.sha256, of COCO's captions those that runs hold theirs against.
_SUMS = {path: f"sha256:{found}" for path, found in checksums(REPOSITORY / "pretrained").items()}
_COCO = CAPTION_LAYOUTS["coco"]
_CAPTIONS = f"{_COCO.folders[0]}/{_COCO.annotation_files[0]}"
_SUMS |= {_CAPTIONS.format(split=split): f"md5:{found}" for split, found in _COCO.md5.items()}


def _files(group: str, shared: Mapping[str, Any]) -> Iterator[RemoteFile]:
    for name, own in shared["files"].items():
        values = {"address": None, "needed_by": "", **shared, **own}
        del values["files"]
        places = values.pop("places", [])
        if layout := IMAGE_LAYOUTS.get(values.pop("dataset", "")):
            assert isinstance(layout, SplitLayout)
            places = [f"{folder}/{layout.split_file}" for folder in layout.folders]
        path, *others = (place.format(name=name) for place in places)
        values |= {"path": path, "other_paths": others, "checksum": _SUMS.get(path)}
        if values["address"]:
            values["address"] = values["address"].format(name=name, sha256=_SUMS.get(path, "").removeprefix("sha256:"))
        yield RemoteFile(group, **values)


_TABLE = read_table(Path(__file__).with_name("files.yaml"))
FILES = tuple(file for group, shared in _TABLE.items() for file in _files(group, shared))
