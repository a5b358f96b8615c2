"""Write the demo's test sets to disk: `python -m scripts.demo.make_data OUT_DIR`, a few seconds, safe to repeat.

    OUT_DIR/demo/clean/images/<class>/*.png and split_zhou_Demo.json    CoOp's split format, with a test list only
    OUT_DIR/demo/<style>/<class>/*.png and classnames.txt               "<class> <class name>" per line, in label order
    OUT_DIR/demo/manifest.json                                          severities, and a digest of each style's pixels

Each style has 240 pictures of 24 x 24 pixels, 4 of each of the 60 classes, drawn from test digits only. Class folders
sort in label order. The folder appears complete or not at all: it is written under another name and renamed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import tempfile
from pathlib import Path

from PIL import Image

from scripts.demo.scenes import CLASS_NAMES
from scripts.demo.styles import TEST_SEVERITY, test_pictures

log = logging.getLogger(__name__)

SPLIT_FILE = "split_zhou_Demo.json"
MANIFEST = "manifest.json"

TestSet = tuple[list[Image.Image], list[int]]  # pictures and their classes


def class_folder(label: int) -> str:
    """Folder of a class, for example "07_red_seven"."""
    return f"{label:02d}_{CLASS_NAMES[label].replace(' ', '_')}"


def write_images(test_set: TestSet, folder: Path) -> list[tuple[str, int]]:
    """Write the pictures as PNG; returns the relative path and the class of each."""
    written = []
    for number, (picture, label) in enumerate(zip(*test_set, strict=True)):
        relative = f"{class_folder(label)}/{number:03d}.png"
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        picture.save(folder / relative)
        written.append((relative, label))
    return written


def write_split_format(test_set: TestSet, folder: Path) -> None:
    """One test set as CoOp stores its data sets: an images folder and a split file."""
    entries = [[path, label, CLASS_NAMES[label]] for path, label in write_images(test_set, folder / "images")]
    (folder / SPLIT_FILE).write_text(json.dumps({"train": [], "val": [], "test": entries}), encoding="utf-8")


def write_image_folder(test_set: TestSet, folder: Path) -> None:
    """One test set as a folder per class and a list of class names."""
    write_images(test_set, folder)
    lines = [f"{class_folder(label)} {name}\n" for label, name in enumerate(CLASS_NAMES)]
    (folder / "classnames.txt").write_text("".join(lines), encoding="utf-8")


def manifest_of(test_sets: dict[str, TestSet]) -> str:
    """Text that identifies the test sets, as JSON."""
    digests = {
        style: hashlib.sha256(b"".join(picture.tobytes() for picture in pictures)).hexdigest()
        for style, (pictures, _) in test_sets.items()
    }
    return json.dumps({"severity": TEST_SEVERITY, "sha256_of_pixels": digests}, indent=2) + "\n"


def make_data(out_dir: Path) -> Path:
    """Write OUT_DIR/demo; nothing is touched when the same test sets are there already.

    Returns:
        The demo folder.

    Raises:
        ValueError: OUT_DIR/demo is there but holds no manifest, so this function did not write it.
    """
    target = out_dir / "demo"
    test_sets = {style: test_pictures(style) for style in TEST_SEVERITY}
    manifest = manifest_of(test_sets)
    if target.exists():
        if not (target / MANIFEST).is_file():
            raise ValueError(
                f"{target} exists and has no {MANIFEST}, so it is not a demo folder; choose another OUT_DIR or move it"
            )
        if (target / MANIFEST).read_text(encoding="utf-8") == manifest:
            return target
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".demo-", dir=out_dir) as workplace:
        fresh = Path(workplace) / "new"
        for style, test_set in test_sets.items():
            (write_split_format if style == "clean" else write_image_folder)(test_set, fresh / style)
        (fresh / MANIFEST).write_text(manifest, encoding="utf-8")
        if target.exists():
            target.rename(Path(workplace) / "old")
        fresh.rename(target)
    return target


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out_dir", type=Path, help="data root; the sets go to OUT_DIR/demo")
    out_dir = parser.parse_args().out_dir
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    log.info("demo test sets: %s", make_data(out_dir))


if __name__ == "__main__":
    main()
