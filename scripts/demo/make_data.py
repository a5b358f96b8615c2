"""Write the demo's test sets to disk: `python -m scripts.demo.make_data OUT_DIR [--with-train]`, safe to repeat.

    OUT_DIR/demo/clean/images/<class>/*.png and split_zhou_Demo.json    CoOp's split format, with a test list only
    OUT_DIR/demo/<style>/<class>/*.png and classnames.txt               "<class> <class name>" per line, in label order
    OUT_DIR/demo_scenes/<style>/images/*.png                            scenes of two or three digits, for retrieval
    OUT_DIR/demo_scenes/<style>/annotations/test.json                   LAVIS's form, [{"image", "caption": [3 texts]}]
    OUT_DIR/demo_scenes/clean/train/*.png and annotations/train.json    with --with-train, to learn captioning: COCO's
                                                                        form, [{"caption", "image", "image_id"}]
    OUT_DIR/<either>/manifest.json                                      severities, and a digest of each style

Each style of `demo` has 240 pictures of 24 x 24 pixels, 4 of each of the 60 classes; class folders sort in label order.
Each style of `demo_scenes` has the same 200 scenes. A folder appears complete or not at all.
"""

import argparse
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from scripts.demo.arrangements import captions_of, random_scene
from scripts.demo.scenes import CLASS_NAMES
from scripts.demo.styles import RETRIEVAL_SEVERITY, TEST_SEVERITY, render, retrieval_pictures, test_pictures

SPLIT_FILE = "split_zhou_Demo.json"
MANIFEST = "manifest.json"
N_TRAIN_SCENES = 1800

CLASS_FOLDERS = [f"{label:02d}_{name.replace(' ', '_')}" for label, name in enumerate(CLASS_NAMES)]  # 07_red_seven

TestSet = tuple[list[Image.Image], list[int]]  # pictures and their classes
CaptionedSet = tuple[list[Image.Image], list[list[str]]]  # pictures and the captions of each
Set = TypeVar("Set", TestSet, CaptionedSet)


def write_images(test_set: TestSet, folder: Path) -> list[tuple[str, int, str]]:
    """Write the pictures as PNG; the relative path, the class and its name of each."""
    written = []
    for number, (picture, label) in enumerate(zip(*test_set, strict=True)):
        relative = f"{CLASS_FOLDERS[label]}/{number:03d}.png"
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        picture.save(folder / relative)
        written.append((relative, label, CLASS_NAMES[label]))
    return written


def write_classes(test_set: TestSet, style: str, root: Path) -> None:
    """One test set as a folder per class and a list of class names; the clean one with CoOp's split file instead."""
    if style == "clean":
        lists = {"train": [], "val": [], "test": write_images(test_set, root / style / "images")}
        (root / style / SPLIT_FILE).write_text(json.dumps(lists), encoding="utf-8")
    else:
        write_images(test_set, root / style)
        lines = [f"{folder} {name}\n" for folder, name in zip(CLASS_FOLDERS, CLASS_NAMES, strict=True)]
        (root / style / "classnames.txt").write_text("".join(lines), encoding="utf-8")


def write_captioned(captioned: CaptionedSet, folder: Path, split: str) -> None:
    """Pictures and annotations of one split, "test" or "train"; paths in the annotations are relative to `folder`."""
    (images := folder / ("images" if split == "test" else split)).mkdir(parents=True)
    entries: list[dict[str, str | list[str]]] = []
    for number, (picture, captions) in enumerate(zip(*captioned, strict=True)):
        picture.save(images / f"{number:05d}.png")
        path = f"{images.name}/{number:05d}.png"
        if split == "test":
            entries.append({"image": path, "caption": captions})
        else:
            entries += [{"caption": text, "image": path, "image_id": f"demo_{number:05d}"} for text in captions]
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / f"{split}.json").write_text(json.dumps(entries, indent=0), encoding="utf-8")


def training_set(number: int, seed: int | Sequence[int]) -> CaptionedSet:
    """Clean scenes of training digits, with all their captions."""
    rng = np.random.default_rng(seed)
    scenes = [random_scene("train", rng) for _ in range(number)]
    return [render(scene, seed=index) for index, scene in enumerate(scenes)], [captions_of(scene) for scene in scenes]


def publish(
    target: Path, sets: Mapping[str, Set], severity: dict[str, float], write: Callable[[Set, str, Path], None]
) -> None:
    """`write` these sets by name into a folder, which becomes `target` when it is whole, if they are not there already.

    ValueError: the target is there but holds no manifest, so it was not written here.
    """
    digests = {
        name: hashlib.sha256(b"".join(p.tobytes() for p in pictures) + json.dumps(about).encode()).hexdigest()
        for name, (pictures, about) in sets.items()
    }
    manifest = json.dumps({"severity": severity, "sha256": digests}, indent=2) + "\n"
    if target.exists() and not (target / MANIFEST).is_file():
        why = f"{target} exists and has no {MANIFEST}, so it is not a demo folder"
        raise ValueError(f"{why}; choose another OUT_DIR or move it")
    if target.exists() and (target / MANIFEST).read_text(encoding="utf-8") == manifest:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".demo-", dir=target.parent) as workplace:
        fresh = Path(workplace) / "new"
        for name, content in sets.items():
            write(content, name, fresh)
        (fresh / MANIFEST).write_text(manifest, encoding="utf-8")
        if target.exists():
            target.rename(Path(workplace) / "old")
        fresh.rename(target)


def make_scene_data(out_dir: Path, with_train: bool = False) -> Path:
    """Write OUT_DIR/demo_scenes and return it; see `publish`. Training scenes once written are kept."""
    target = out_dir / "demo_scenes"
    sets = {style: retrieval_pictures(style) for style in RETRIEVAL_SEVERITY}
    if with_train or (target / "clean" / "annotations" / "train.json").exists():
        sets["train"] = training_set(N_TRAIN_SCENES, 1)

    def write(captioned: CaptionedSet, name: str, folder: Path) -> None:
        style, split = ("clean", "train") if name == "train" else (name, "test")
        write_captioned(captioned, folder / style, split)

    publish(target, sets, RETRIEVAL_SEVERITY, write)
    return target


def make_data(out_dir: Path, with_train: bool = False) -> Path:
    """Write both folders; see `publish`. Returns OUT_DIR/demo."""
    make_scene_data(out_dir, with_train)
    sets = {style: test_pictures(style) for style in TEST_SEVERITY}
    publish(out_dir / "demo", sets, TEST_SEVERITY, write_classes)
    return out_dir / "demo"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out_dir", type=Path, help="data root; the sets go to OUT_DIR/demo and OUT_DIR/demo_scenes")
    parser.add_argument("--with-train", action="store_true", help="write the training scenes too")
    arguments = parser.parse_args()
    print("demo test sets:", make_data(arguments.out_dir, arguments.with_train))
    print("demo scenes:", arguments.out_dir / "demo_scenes")
