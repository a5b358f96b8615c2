"""List the addresses of nocaps' validation images: `python -m scripts.nocaps --missing --images list.txt`.

The list is for `wget --continue --input-file list.txt --directory-prefix DATA_ROOT/nocaps/val` or any other program
that takes one address per line. Nothing else needs preparing: the data sets nocaps/in-domain, nocaps/near-domain and
nocaps/out-domain are parts of the same official file, told apart by its `domain` field when a run reads it.
"""

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from clipscore.cli import print_text
from clipscore.config.load import roots
from clipscore.data.caption_layouts import NOCAPS_DOMAINS, NOCAPS_FILE, find_layout
from clipscore.data.checks import read_json
from scripts.fetch.manifest import NOCAPS_FILES
from scripts.runs.process import messages

NEEDED = ("file_name", "coco_url", "domain")  # of each image in the official file

log = logging.getLogger("scripts.nocaps")  # __name__ is __main__ under python -m

Image = dict[str, str]  # the needed keys of an image; the address ends in the file name


def read_images(path: Path) -> list[Image]:
    """The images of the official annotation file, in its order; ValueError: another file."""
    content = read_json(path)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not images:
        raise ValueError(f"{path} has no list of images; expected nocaps' official {NOCAPS_FILE}")
    for index, image in enumerate(images):
        if not isinstance(image, dict) or not all(isinstance(image.get(key), str) for key in NEEDED):
            raise ValueError(f"{path}: image {index} lacks one of {', '.join(NEEDED)}; expected nocaps' official file")
        if PurePosixPath(image["coco_url"]).name != image["file_name"] or image["domain"] not in NOCAPS_DOMAINS:
            found = {key: image[key] for key in NEEDED}
            expected = "an address that ends in the name, and a domain"
            raise ValueError(f"{path}: image {index} is {found}; expected {expected}")
    return images


def find_annotations(data_root: Path) -> Path:
    """The official file, where a run would find it; FileNotFoundError: with the places."""
    layout = find_layout("nocaps")
    places = [f"{folder}/{file}" for folder in layout.folders for file in layout.annotation_files]
    tried = [data_root / place for place in places if PurePosixPath(place).name == NOCAPS_FILE]
    for path in tried:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"no {NOCAPS_FILE}; tried {', '.join(map(str, tried))}; get it with `bash scripts/fetch_pretrained.sh "
        f"nocaps --annotations`, from {NOCAPS_FILES}/{NOCAPS_FILE}, or name it: --file FILE"
    )


def find_missing(images: Sequence[Image], data_root: Path) -> list[Image]:
    """The images that are in none of the folders where a run looks for them; an empty file counts as missing."""
    layout = find_layout("nocaps")
    folders = [data_root / folder / inner for folder in layout.folders for inner in layout.image_folders]
    files = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    there = {path.name for path in files if path.is_file() and path.stat().st_size}
    return [image for image in images if image["file_name"] not in there]


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
    with messages():
        try:
            data_root = Path(roots()["data_root"])
            images = read_images(args.file or find_annotations(data_root))
            if args.domain:
                images = [image for image in images if image["domain"] == args.domain]
            listed = find_missing(images, data_root) if args.missing else images
            text = "".join(f"{image['coco_url']}\n" for image in listed)
            if args.images:
                args.images.write_text(text, encoding="utf-8")
            elif listed:
                print_text(text.removesuffix("\n"))
        except (ValueError, OSError) as error:
            log.error("error: %s", error)
            return 2
        num_listed = Counter(image["domain"] for image in listed)
        for domain, number in Counter(image["domain"] for image in images).items():
            log.info("%s: %d of %d images listed", domain, num_listed[domain], number)
        return 0


if __name__ == "__main__":
    sys.exit(main())
