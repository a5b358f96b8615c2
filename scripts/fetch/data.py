"""Fetch whole data sets, unpacked as runs look for them: `python -m scripts.fetch.data imagenet_a coco caltech101 ...`.

Names are those of dataset=..., and those of the doctor: table1, table2, table3, fine_grained, imagenet_c. A set that is
whole is left alone, and no file that is there is ever replaced. Archives stay in data_root/downloads until their set is
whole; the same command goes on where an earlier one ended. What takes a person is put there by hand, and stays.
"""

import argparse
import contextlib
import http.client
import logging
import os
import shutil
import sys
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from torchvision.datasets.imagenet import load_meta_file, parse_devkit_archive, parse_val_archive
from tqdm import tqdm

from classification.data import layouts
from classification.data.find import find_dataset
from clipscore.config.fields import StrictModel
from clipscore.config.load import roots
from clipscore.config.yaml12 import read_table
from clipscore.data.caption_layouts import NOCAPS_FILE
from clipscore.data.caption_sets import find_captions
from clipscore.data.checks import read_json
from clipscore.models.files import file_digest
from scripts.doctor.__main__ import asked_for
from scripts.fetch.__main__ import DONE, INCOMPLETE, find_place
from scripts.fetch.download import TIMEOUT_S, check_room, fetch, find_fault, locked, unpack
from scripts.fetch.manifest import FILES, RemoteFile
from scripts.runs.process import command, script_parser

MANIFEST = Path(__file__).with_name("datasets.yaml")
PASSING = (ValueError, OSError, http.client.HTTPException)  # the next source or set may do better
CONNECTIONS = 8  # for single images
NOCAPS_KEYS = ("coco_url", "file_name")  # of each image in the official file

log = logging.getLogger("scripts.fetch")  # __name__ is __main__ under python -m


class Item(StrictModel):
    """One entry of datasets.yaml, which explains the keys."""

    address: str | None = None
    name: str = ""
    by_hand: str = ""
    file: str | None = None
    images: str | None = None
    into: str = ""
    size: int | None = None
    checksum: str | None = None
    only: list[str] = []

    def as_remote(self, dataset: str, checksum: str | None = None) -> RemoteFile:
        """The archive as `download.fetch` takes it."""
        name = self.name or PurePosixPath(self.address or "").name
        return RemoteFile(dataset, name, "", self.address, "", self.size, self.checksum or checksum)


Source = list[Item]


def read_manifest(path: Path) -> dict[str, list[Source]]:
    """The sources of each data set; ValueError: no such file's form."""
    content = read_table(path)
    mirror = content.pop("mirror", "")
    for item in (item for sources in content.values() for source in sources for item in source):
        if str(item.get("address")).startswith("mirror/"):
            item["address"] = mirror + item["address"].removeprefix("mirror")
    return {name: [[Item(**item) for item in source] for source in sources] for name, sources in content.items()}


def find_faults(dataset: str, root: Path) -> list[str]:
    """Why a data set is not whole; FileNotFoundError: it is not there, ValueError: something else is in its place."""
    find = find_dataset if layouts.canonical_name(dataset) else find_captions
    logging.disable(logging.WARNING)  # which tell of the faults
    try:
        return [str(fault) for fault in find(dataset, root, partial=True).faults]
    finally:
        logging.disable(logging.NOTSET)


def read_images(path: Path) -> list[dict[str, str]]:
    """The images of nocaps' official annotation file; ValueError: another file."""
    content = read_json(path)
    images: Any = content.get("images") if isinstance(content, dict) else None
    for image in images or [None]:
        found: list[Any] = [image.get(key) for key in NOCAPS_KEYS] if isinstance(image, dict) else [None]
        if not all(isinstance(value, str) for value in found) or PurePosixPath(found[0]).name != found[1]:
            raise ValueError(f"{path}: an image with {', '.join(NOCAPS_KEYS)} expected, got {image}; get {NOCAPS_FILE}")
    return images


class Fetching:
    """The sets of one call; `root` is the data root."""

    def __init__(self, root: Path, manifest: dict[str, list[Source]]) -> None:
        self.root, self.manifest, self.downloads = root, manifest, root / "downloads"
        self.draft, self.record = self.downloads / "unpacking", self.downloads / "checksums.sha256"

    def sources(self, dataset: str) -> list[Source]:
        """Those of a data set, of ImageNet-C with the archive of its corruption only; ValueError: there are none."""
        head, *rest = dataset.split("/")
        if head not in self.manifest:
            raise ValueError(f"{dataset} is not fetched; bash scripts/quickstart.sh draws the demo's sets")
        return [[item for item in source if not item.only or rest[0] in item.only] for source in self.manifest[head]]

    def missing_bytes(self, item: Item) -> int:
        """To download of an archive, less what is there already; 0 for what no server tells."""
        places, size = self._places(item.as_remote("")), item.size
        if item.address is None or any(place.exists() for place in places):
            return 0
        if size is None:
            with contextlib.suppress(*PASSING):
                question = urllib.request.Request(item.address, method="HEAD", headers={"User-Agent": "rlcf-fetch"})
                with urllib.request.urlopen(question, timeout=TIMEOUT_S) as reply:
                    size = int(reply.headers.get("Content-Length", 0))
        part = places[0].with_name(f"{places[0].name}.part")
        return max(0, (size or 0) - (part.stat().st_size if part.exists() else 0))

    def tell_needs(self, datasets: Sequence[str]) -> None:
        """What is downloaded for these sets, from their first sources, and the room that it takes."""
        sizes: dict[str, int] = {}
        for item in (item for dataset in datasets for item in self.sources(dataset)[0]):
            if item.address and item.address not in sizes:
                sizes[item.address] = size = self.missing_bytes(item)
                log.info("%s: %s", item.address, f"{size:,} bytes to go" if size else "the size is not told")
            elif item.images:
                log.info("%s: the single images that its annotation file names; the size is not told", item.images)
        if sizes:
            total, most = sum(sizes.values()) / 1e9, max(sizes.values()) / 1e9
            text = "%.2f GB to download; with what is unpacked about %.2f GB are needed, %.2f GB are free in %s"
            log.info(text, total, total + most, shutil.disk_usage(self.root).free / 1e9, self.root)

    def is_whole(self, dataset: str) -> bool | None:
        """Whether a set is there and nothing is missing; None when something else is in its place."""
        try:
            faults = find_faults(dataset, self.root)
        except FileNotFoundError:
            return False
        except ValueError as error:
            log.error("wrong: %s; move it away to have the set fetched", error)
            return None
        log.info("%s: %s", "not whole" if faults else "whole", "; ".join([dataset, *faults]))
        return not faults

    def fetch(self, dataset: str) -> bool:
        """Fetch a set that is not there, from the first source that has it; whether it is whole now."""
        problems = []
        for source in self.sources(dataset):
            try:
                self._fetch(dataset, source)
                return bool(self.is_whole(dataset))
            except PASSING as error:
                problems.append(f"{type(error).__name__}: {error}")
            finally:
                shutil.rmtree(self.draft, ignore_errors=True)
        text = "missing: %s (%s); what was fetched stays, and an archive that you get elsewhere is looked for in %s"
        log.error(text, dataset, "; then ".join(problems), self.downloads)
        return False

    def _fetch(self, dataset: str, source: Source) -> None:
        """Get and unpack the items into a draft of the data root, and move what is new of it when it holds the set."""
        archives = []
        for item in source:
            if item.file:
                remote = next(file for file in FILES if file.path == item.file)
                place = find_place(remote, {"data_root": str(self.root)})
                if not place.exists():
                    fetch(remote, place)
                (self.draft / place.relative_to(self.root)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(place, self.draft / place.relative_to(self.root))
            elif item.images:
                self._fetch_images(self.draft / source[0].file, self.root / item.images)  # type: ignore[operator]
                return
            else:
                archives.append(self._get(item, dataset))
        if dataset == "imagenet":
            (folder := self.draft / "ImageNet").mkdir(parents=True)
            images, devkit = (str(archive.absolute()) for archive in archives)
            parse_devkit_archive(folder, devkit)
            parse_val_archive(folder, images, load_meta_file(folder)[1])  # in folders by wnid, as the devkit says
        else:
            for item, archive in zip((item for item in source if not item.file), archives, strict=True):
                unpack(archive, self.draft / item.into)
        try:
            find_faults(dataset, self.draft)
        except FileNotFoundError as error:
            found = ", ".join(sorted(path.name for path in self.draft.iterdir())[:5])
            raise ValueError(f"{', '.join(map(str, archives))}: holds {found}, which is not {dataset}") from error
        for path in sorted(self.draft.rglob("*")):
            target = self.root / path.relative_to(self.draft)
            if not os.path.lexists(target) and (path.is_symlink() or not path.is_dir()):
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)
        for archive in archives:
            if archive.parent != self.downloads:  # not put there by hand
                archive.unlink()

    def _places(self, archive: RemoteFile) -> tuple[Path, Path]:
        """Where an archive is downloaded, and where a person puts it."""
        return self.downloads / "fetched" / archive.path, self.downloads / archive.path

    def _get(self, item: Item, dataset: str) -> Path:
        """An archive of the right size and checksum; where none is published, that of the first download counts."""
        name = item.as_remote("").path
        lines = self.record.read_text().splitlines() if self.record.exists() else []
        recorded = {path: f"sha256:{digest}" for digest, path in map(str.split, lines)}
        archive = item.as_remote(dataset, recorded.get(name))
        target, by_hand = self._places(archive)
        if found := next((place for place in (by_hand, target) if place.exists()), None):
            if fault := find_fault(found, archive):
                raise ValueError(f"{found} {fault}; delete it, and give the command again")
            return found
        if archive.address is None:
            raise FileNotFoundError(f"{name} takes a person: get it {item.by_hand}; put it at {by_hand}")
        check_room(self.root, 2 * self.missing_bytes(item))  # about as much again when it is unpacked
        fetch(archive, target)
        if archive.checksum is None:
            with self.record.open("a") as file:
                file.write(f"{file_digest(target)}  {name}\n")
        return target

    def _fetch_images(self, annotations: Path, folder: Path) -> None:
        """The single images of nocaps, those that are not there, side by side."""
        folder.mkdir(parents=True, exist_ok=True)
        missing = [image for image in read_images(annotations) if not (folder / image["file_name"]).exists()]

        def load(image: dict[str, str]) -> None:
            draft = folder / f"{image['file_name']}.part"
            with urllib.request.urlopen(image["coco_url"], timeout=TIMEOUT_S) as reply:
                draft.write_bytes(reply.read())
            draft.rename(folder / image["file_name"])

        with ThreadPoolExecutor(CONNECTIONS) as pool:
            for _ in tqdm(pool.map(load, missing), "images", len(missing), disable=None):
                pass


def main(arguments: Sequence[str] | None = None) -> int:
    parser = script_parser("fetch.data", __doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help="data sets, or groups of them")
    parser.add_argument("--list", action="store_true", help="only say what would be downloaded, and how much that is")
    parser.add_argument("--manifest", type=Path, default=MANIFEST, metavar="FILE", help="other addresses, a mirror's")
    args = parser.parse_args(arguments)
    return command(lambda: _fetch_all(args), "where it ended")


def _fetch_all(args: argparse.Namespace) -> int:
    fetching = Fetching(Path(roots()["data_root"]), read_manifest(args.manifest))
    datasets, _ = asked_for(args.names)
    with locked(fetching.downloads / "lock"):
        whole = {dataset: fetching.is_whole(dataset) for dataset in datasets}
        missing = [dataset for dataset in datasets if whole[dataset] is False]
        fetching.tell_needs(missing)
        if args.list:
            return DONE
        for dataset in missing:  # one may have come with another's archive
            whole[dataset] = fetching.is_whole(dataset) or fetching.fetch(dataset)
    log.info("%d of %d data sets are whole", sum(map(bool, whole.values())), len(datasets))
    return DONE if all(whole.values()) else INCOMPLETE


if __name__ == "__main__":
    sys.exit(main())
