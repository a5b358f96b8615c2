"""List the addresses of nocaps' validation images: `python -m scripts.nocaps --missing --images list.txt`.

The list is for `wget --continue --input-file list.txt --directory-prefix DATA_ROOT/nocaps/val` or any other program
that takes one address per line. Nothing else needs preparing: the data sets nocaps/in-domain, nocaps/near-domain and
nocaps/out-domain are parts of the same official file, told apart by its `domain` field when a run reads it.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from clipscore.cli import print_text
from clipscore.config.load import roots
from clipscore.data.caption_layouts import NOCAPS_DOMAINS, NOCAPS_FILE, CaptionLayout, find_layout
from scripts.fetch.manifest import NOCAPS_FILES
from scripts.runs.process import messages

DONE, REFUSED = 0, 2  # exit codes
NEEDED = {"file_name": str, "coco_url": str, "domain": str}  # of each image in the official file

log = logging.getLogger("scripts.nocaps")  # __name__ is __main__ under python -m


@dataclass(frozen=True)
class NocapsImage:
    """One image of the official file.

    Attributes:
        name: file name, which is also the last part of the address.
        address: where it can be downloaded.
        domain: in-domain, near-domain or out-domain.
    """

    name: str
    address: str
    domain: str


def read_images(path: Path) -> list[NocapsImage]:
    """The images of the official annotation file, in its order.

    Raises:
        ValueError: another file.
    """
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: not valid json ({error}); get it again from {NOCAPS_FILES}/{NOCAPS_FILE}") from error
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not images:
        raise ValueError(f"{path} has no list of images; expected nocaps' official {NOCAPS_FILE}")
    return [_read_image(path, index, image) for index, image in enumerate(images)]


def _read_image(path: Path, index: int, image: Any) -> NocapsImage:
    if not isinstance(image, dict) or not all(isinstance(image.get(key), kind) for key, kind in NEEDED.items()):
        raise ValueError(f"{path}: image {index} lacks one of {', '.join(NEEDED)}; expected nocaps' official file")
    found = NocapsImage(image["file_name"], image["coco_url"], image["domain"])
    if PurePosixPath(found.address).name != found.name or found.domain not in NOCAPS_DOMAINS:
        raise ValueError(f"{path}: image {index} is {found}; expected an address that ends in the name, and a domain")
    return found


def find_annotations(data_root: Path) -> Path:
    """The official file, where a run would find it.

    Raises:
        FileNotFoundError: with the places.
    """
    layout = find_layout("nocaps")
    places = [f"{folder}/{file}" for folder in layout.folders for file in layout.annotation_files]
    tried = [data_root / place for place in places if PurePosixPath(place).name == NOCAPS_FILE]
    found = next((path for path in tried if path.is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"no {NOCAPS_FILE}; tried {', '.join(map(str, tried))}; get it with `bash scripts/fetch_pretrained.sh "
            f"nocaps --annotations`, from {NOCAPS_FILES}/{NOCAPS_FILE}, or name it: --file FILE"
        )
    return found


def find_missing(images: Sequence[NocapsImage], data_root: Path) -> list[NocapsImage]:
    """The images that are in none of the folders where a run looks for them; an empty file counts as missing."""
    layout: CaptionLayout = find_layout("nocaps")
    folders = [data_root / folder / inner for folder in layout.folders for inner in layout.image_folders]
    there = {
        path.name
        for folder in folders
        if folder.is_dir()
        for path in folder.iterdir()
        if path.is_file() and path.stat().st_size
    }
    return [image for image in images if image.name not in there]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.nocaps", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--file", type=Path, help=f"{NOCAPS_FILE}; default: the one under data_root")
    parser.add_argument("--images", type=Path, metavar="LIST", help="file for the addresses; default: print them")
    parser.add_argument("--domain", choices=NOCAPS_DOMAINS, help="one domain only")
    parser.add_argument("--missing", action="store_true", help="only images that are not under data_root yet")
    args = parser.parse_args(arguments)
    with messages(()):
        try:
            data_root = Path(roots()["data_root"])
            images = read_images(args.file or find_annotations(data_root))
            if args.domain:
                images = [image for image in images if image.domain == args.domain]
            listed = find_missing(images, data_root) if args.missing else images
            text = "".join(f"{image.address}\n" for image in listed)
            if args.images:
                args.images.write_text(text, encoding="utf-8")
            elif listed:
                print_text(text.removesuffix("\n"))
        except (ValueError, OSError) as error:
            log.error("error: %s", error)
            return REFUSED
        counts = Counter(image.domain for image in images), Counter(image.domain for image in listed)
        for domain in counts[0]:
            log.info("%s: %d of %d images listed", domain, counts[1][domain], counts[0][domain])
        return DONE


if __name__ == "__main__":
    sys.exit(main())
