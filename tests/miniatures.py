"""Tiny copies, in their real forms and places, of every data set and weight file that the tables need.

    root = miniatures.build(tmp_path)      # root/data and root/pretrained, in about a second

Every class has one image, every caption set 24 images; the images are eight colours of 8 x 8 pixels, linked wherever
one is needed. The models are random. A run on them needs partial=true, or `as_published`, because they are not whole.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from classification.data import layouts as dataset_layouts
from classification.data.class_names import class_names, wnids
from classification.data.layouts import CORRUPTIONS, SEVERITIES, FolderLayout, SplitLayout
from clipscore.data import caption_layouts
from clipscore.data.caption_layouts import NOCAPS_DOMAINS, NOCAPS_FILE, Counts
from tests import miniature_weights

NUM_IMAGES = 24  # of each split with captions: more than any K of the retrieval configs
NUM_CAPTIONS = 5 * NUM_IMAGES + 1  # one image has six
COLOURS = ("red", "green", "blue", "white", "black", "yellow", "cyan", "magenta")
_FOLDERS_IN = {"stanford_cars": "cars_test/", "caltech101": "folder/"}  # what listed paths begin with, in some sets

Maker = Callable[[Path], None]


def build(root: Path) -> Path:
    """Everything in the first of its layouts: `root/data`, and `root/pretrained` with its own checksums.sha256."""
    for name in (*dataset_layouts.LAYOUTS, *CAPTION_SETS):
        next(layouts(name))[1](root / "data")
    miniature_weights.build(root / "pretrained")
    return root


def layouts(name: str) -> Iterator[tuple[str, Maker]]:
    """Every layout of a data set: a word for it, and what makes it under a data root.

    Args:
        name: a built-in id; `imagenet_c` and `nocaps` without their parts.
    """
    if name in CAPTION_SETS:
        yield from CAPTION_SETS[name]()
        return
    layout = dataset_layouts.LAYOUTS[name]
    if isinstance(layout, FolderLayout):
        folders = {"": wnids(name)}
        if name == "imagenet_v2":
            folders = {"": [str(label) for label in range(layout.num_classes)], ", wnids": wnids(name)}
        for words, names in folders.items():
            for place in layout.roots[:1] if words else layout.roots:
                make = _every_corruption if name == "imagenet_c" else _class_folders
                yield place + words, partial(make, place, names)
    elif name == "aircraft":
        for folder in layout.folders:
            yield folder, partial(_aircraft, folder)
    else:
        for folder in layout.folders:
            for images in layout.image_folders:
                yield f"{folder}/{images}", partial(_split_set, name, layout, folder, images)


def as_published(monkeypatch: pytest.MonkeyPatch, data_root: Path | None = None) -> None:
    """Let the miniatures count as whole, in this process.

    Args:
        monkeypatch: takes it back.
        data_root: where COCO's annotation files are, whose md5 is then theirs; None where it does not matter.
    """
    for name, layout in dataset_layouts.LAYOUTS.items():
        monkeypatch.setitem(dataset_layouts.LAYOUTS, name, replace(layout, num_images=layout.num_classes))
    for name, layout in caption_layouts.LAYOUTS.items():
        share = NUM_IMAGES // 3 if name.startswith("nocaps/") else NUM_IMAGES
        captions = 10 * share if name.startswith("nocaps") else NUM_CAPTIONS
        for split in layout.published:
            monkeypatch.setitem(layout.published, split, Counts(share, captions))
            files = sorted(data_root.glob(f"coco*/**/coco_karpathy_{split}.json")) if data_root else []
            monkeypatch.delitem(layout.md5, split, raising=False)
            if files and name == "coco":
                monkeypatch.setitem(layout.md5, split, hashlib.md5(files[0].read_bytes()).hexdigest())


def _link(data_root: Path, files: Sequence[Path]) -> None:
    """Make files links to the eight pictures, which lie beside the data root."""
    pictures = [data_root.parent / "pictures" / f"{colour}.jpg" for colour in COLOURS]
    if not pictures[0].parent.exists():
        pictures[0].parent.mkdir(parents=True)
        for colour, picture in zip(COLOURS, pictures, strict=True):
            Image.new("RGB", (8, 8), colour).save(picture)
    for folder in {file.parent for file in files}:
        folder.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(files):
        os.link(pictures[number % len(pictures)], file)


def write(path: Path, content: Any) -> Path:
    """A text, or anything else as JSON, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def touch(root: Path, *files: str) -> None:
    """Empty files."""
    for file in files:
        write(root / file, "")


def _class_folders(place: str, folders: Sequence[str], data_root: Path) -> None:
    _link(data_root, [data_root / place / folder / f"{folder}_1.JPEG" for folder in folders])


def _every_corruption(place: str, folders: Sequence[str], data_root: Path) -> None:
    """One of ImageNet-C's corruptions and severities; the others are links to it."""
    first = data_root / place / CORRUPTIONS[0] / str(SEVERITIES[0])
    _class_folders(str(first.relative_to(data_root)), folders, data_root)
    for corruption in CORRUPTIONS:
        for severity in SEVERITIES:
            other = data_root / place / corruption / str(severity)
            if other != first:
                other.parent.mkdir(exist_ok=True)
                other.symlink_to(first)


def _split_set(name: str, layout: SplitLayout, folder: str, images: str, data_root: Path) -> None:
    start = _FOLDERS_IN.get(name, "")
    entries = [[f"{start}image_{label}.jpg", label, words] for label, words in enumerate(class_names(name))]
    unseen = [[f"unseen/{path}", label, words] for path, label, words in entries]
    write(data_root / folder / layout.split_file, {"train": unseen, "val": [], "test": entries})
    _link(data_root, [data_root / folder / images / path for path, *_ in entries])


def _aircraft(folder: str, data_root: Path) -> None:
    names = class_names("aircraft")
    numbers = [f"{label:07}" for label in range(len(names))]
    _link(data_root, [data_root / folder / "images" / f"{number}.jpg" for number in numbers])
    lines = [f"{number} {name}\n" for number, name in zip(numbers, names, strict=True)]
    (data_root / folder / "images_variant_test.txt").write_text("".join(lines))
    (data_root / folder / "variants.txt").write_text("\n".join(names) + "\n")


def _captions(number: int, count: int = 5) -> list[str]:
    colour = COLOURS[number % len(COLOURS)]
    return [f"A {colour} picture, number {number}, in words {words}." for words in range(count)]


def _coco_images(split: str) -> list[str]:
    folder, start = {"train": ("train2014", 0), "val": ("val2014", 1000), "test": ("val2014", 2000)}[split]
    return [f"{folder}/COCO_{folder}_{start + number:012}.jpg" for number in range(NUM_IMAGES)]


def _flickr_images(split: str) -> list[str]:
    start = {"train": 10_000, "val": 20_000, "test": 30_000}[split]
    return [f"{start + number}.jpg" for number in range(NUM_IMAGES)]


def _lists(file: str, prefix: str, images: Callable[[str], list[str]], root: str, data_root: Path) -> None:
    """BLIP's and LAVIS's files: one entry per caption in the training list, one per image in the others."""
    for split in ("train", "val", "test"):
        named = [(image, _captions(number, 6 if number == 0 else 5)) for number, image in enumerate(images(split))]
        content: list[dict] = [{"image": prefix + image, "caption": texts} for image, texts in named]
        if split == "train":
            numbers = {image: f"coco_{int(Path(image).stem[-5:])}" for image, _ in named}
            rows = [(text, image) for image, texts in named for text in texts]
            content = [{"caption": text, "image": prefix + image, "image_id": numbers[image]} for text, image in rows]
        write(data_root / file.format(split=split), content)
        _link(data_root, [data_root / root / image for image, _ in named])


def karpathy(*images: tuple[str, str, str, Sequence[str]]) -> dict:
    """Karpathy's form from (split, folder, file, captions)."""
    entries = []
    for number, (split, folder, file, captions) in enumerate(images):
        sentences = [{"raw": caption, "tokens": [], "sentid": 0} for caption in captions]
        entries.append({"filename": file, "split": split, "imgid": number, "sentences": sentences})
        if folder:
            entries[-1] |= {"filepath": folder, "cocoid": 100 + number}
    return {"images": entries, "dataset": "any"}


def coco_form(*images: tuple[Any, str, Sequence[str]], **more: Any) -> dict:
    """COCO's form from (id, file name, captions)."""
    told = [{"id": 7, "image_id": number, "caption": text} for number, _, texts in images for text in texts]
    return {"images": [{"id": n, "file_name": file, **more} for n, file, _ in images], "annotations": told}


def _karpathy(file: str, images: Callable[[str], list[str]], root: str, data_root: Path) -> None:
    rows = []
    for split in ("train", "val", "test"):
        for number, image in enumerate(images(split)):
            folder, _, name = image.rpartition("/")
            rows.append((split, folder, name, _captions(number, 5 if number else 6)))
        _link(data_root, [data_root / root / image for image in images(split)])
    write(data_root / file, karpathy(*rows))


def _nocaps_images() -> list[tuple[str, str]]:
    return [(f"{number:016x}.jpg", NOCAPS_DOMAINS[number % 3]) for number in range(NUM_IMAGES)]


def _nocaps_official(place: str, images: str, data_root: Path) -> None:
    content = coco_form(*((n, name, _captions(n, 10)) for n, (name, _) in enumerate(_nocaps_images())))
    for entry, (_, domain) in zip(content["images"], _nocaps_images(), strict=True):
        entry["domain"] = domain
    write(data_root / "nocaps" / place / NOCAPS_FILE, content)
    _link(data_root, [data_root / "nocaps" / images / name for name, _ in _nocaps_images()])


def _nocaps_lists(place: str, images: str, data_root: Path) -> None:
    for domain, size in zip(NOCAPS_DOMAINS, (417, 2670, 1413), strict=True):
        numbered = [(number, name) for number, (name, found) in enumerate(_nocaps_images()) if found == domain]
        content = [{"image": name, "caption": _captions(n, 10), "image_id": n} for n, name in numbered]
        write(data_root / "nocaps" / place / f"nocaps_val_{size}_{domain}.json", content)
    _link(data_root, [data_root / "nocaps" / images / name for name, _ in _nocaps_images()])


def _coco() -> Iterator[tuple[str, Maker]]:
    places = [("coco2014", "coco2014"), ("coco/annotations", "coco/images")]
    for folder, root in [*places, ("coco2014/annotations", "coco2014"), ("coco/annotations", "coco2014")]:
        file = f"{folder}/coco_karpathy_{{split}}.json"
        yield f"{file}, {root}", partial(_lists, file, "", _coco_images, root)
    for folder, root in places:
        yield f"{folder}/dataset_coco.json", partial(_karpathy, f"{folder}/dataset_coco.json", _coco_images, root)


def _flickr30k() -> Iterator[tuple[str, Maker]]:
    for file, root in [
        ("annotations/flickr30k_{split}.json", "flickr30k-images"), ("flickr30k_{split}.json", "flickr30k-images"),
        ("annotations/{split}.json", "images"), ("annotations/{split}.json", "images/flickr30k-images"),
        ("{split}.json", "flickr30k_images"),
    ]:  # fmt: skip
        make = partial(_lists, f"flickr30k/{file}", "flickr30k-images/", _flickr_images, f"flickr30k/{root}")
        yield f"flickr30k/{file}, {root}", make
    for folder in ("", "annotations/"):
        file = f"flickr30k/{folder}dataset_flickr30k.json"
        yield file, partial(_karpathy, file, _flickr_images, "flickr30k/flickr30k-images")


def _nocaps() -> Iterator[tuple[str, Maker]]:
    for make in (_nocaps_official, _nocaps_lists):
        for place in ("", "annotations"):
            for images in ("val", "images", "images/val", ""):
                yield f"{make.__name__} {place or 'nocaps'}, {images or 'nocaps'}", partial(make, place, images)


CAPTION_SETS = {"coco": _coco, "flickr30k": _flickr30k, "nocaps": _nocaps}
