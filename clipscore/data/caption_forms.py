"""Read an annotation file of images and captions, in any of the forms that are in use.

[{"image": path, "caption": [str, ...]}, ...]                        val and test lists of BLIP and LAVIS
[{"image": path, "caption": str, "image_id": str}, ...]              their train lists: one entry per caption
{"images": [{"filepath", "filename", "split", "cocoid", "sentences": [{"raw"}]}]}    Karpathy's dataset_*.json
{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}          COCO and nocaps ("domain")
caption_datasets.zip                                                 Karpathy's json of several sets, as he offers them
1.jpg#0 TAB caption                                                  Flickr's results_20130124.token
image,caption                                                        Kaggle's captions.txt of Flickr8k
image_name| comment_number| comment                                  Kaggle's results.csv of Flickr30k
"""

import csv
import posixpath
import re
import reprlib
from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from clipscore.data.checks import check_repeated, list_some, read_json

_FORMS = (
    'known forms: a list of {"image", "caption"}, {"images": [{"filename", "split", "sentences"}]}, '
    'and {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}; and tables of image and caption'
)
TABLES = (".csv", ".txt", ".token")
JOIN_ENTRIES = ", expected one entry per image with all its captions; join the entries"
_SHORT = reprlib.Repr()
_SHORT.maxdict, _SHORT.maxlist, _SHORT.maxstring = 8, 2, 60


class Entry(NamedTuple):
    """One image of an annotation file: its listed path, all its captions, and what else the file says of it."""

    image: str
    captions: tuple[str, ...]
    image_id: int | str | None
    domain: str | None = None


def read_annotations(path: Path, split: str, dataset: str = "") -> tuple[str, list[Entry]]:
    """Name of the form and the checked entries of an annotation file, or of one split of it, in file order.

    `dataset` says which of the files in a zip archive it is. ValueError for a file that is empty, no json, of no known
    form, without the split, or with faulty entries.
    """
    member = f"dataset_{dataset}.json" if path.suffix == ".zip" else None
    content: Any = _read_table(path) if path.suffix in TABLES else read_json(path, member)
    parts = content if isinstance(content, dict) else {}
    images, annotations = (part if isinstance(part, list) else [] for part in map(parts.get, ("images", "annotations")))
    if isinstance(content, list) and (not content or _any_has(content, "image", "caption")):
        form, entries = _read_list(path, content)
    elif isinstance(parts.get("images"), list) and _any_has(annotations, "caption"):
        form, entries = "COCO's form", _read_coco(path, images, annotations)
    elif _any_has(images, "sentences"):
        form, entries = f"Karpathy's form, split {split}", _read_karpathy(path, images, split)
    else:
        raise ValueError(f"{path}: found {_shown(content)}, which is no known form; {_FORMS}; convert the file")
    if not entries:
        raise ValueError(f"{path}: the file lists no images; get it again")
    check_repeated(path, [posixpath.normpath(entry.image) for entry in entries], JOIN_ENTRIES)
    return form, entries


def _read_table(path: Path) -> list[dict[str, str]]:
    """Flickr's tables, as BLIP's train lists: one entry per caption."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        head = file.readline()
        file.seek(0)
        if "\t" in head:
            lines = (line.partition("\t") for line in file if line.strip())
            return [{"image": image.rpartition("#")[0], "caption": text.rstrip("\r\n")} for image, _, text in lines]
        # Quotes are part of captions between bars; between commas they are the table's.
        options: Any = {"delimiter": "|", "quoting": csv.QUOTE_NONE} if "|" in head else {}
        columns, *rows = ([cell.strip() for cell in row] for row in csv.reader(file, **options) if row)
        if columns not in (["image", "caption"], ["image_name", "comment_number", "comment"]):
            raise ValueError(f"{path}: its columns are {', '.join(columns)}; name them image,caption in its first line")
        if "|" in head:  # one row of Kaggle's file lacks a bar: `2199200615.jpg| 4   A dog runs across the grass .`
            rows = [row if len(row) > 2 else [row[0], *row[1].split(maxsplit=1)] for row in rows]
    if faulty := [number for number, row in enumerate(rows, start=2) if len(row) != len(columns)]:
        raise ValueError(f"{path}: row {faulty[0]} has not {len(columns)} columns; put quotes around its caption")
    return [{"image": row[0], "caption": row[-1]} for row in rows]


def of_listed(path: Path, entries: list[Entry], split: str) -> list[Entry]:
    """Of a file that holds all images, those of a split, in the order of a list that lies beside it.

    A line of the list begins with an image's file name or number. COCO's images get the folder that Karpathy gives
    them. FileNotFoundError without a list; ValueError for images that the file has not.
    """
    names = (f"karpathy_{split}_images.txt", f"karpathy_{split}.txt", f"coco_{split}.txt", f"flickr30k_{split}.txt")
    found = next((place for name in names if (place := path.with_name(name)).is_file()), None)
    if found is None:
        mend = f"put Karpathy's list of them there as {names[0]}, a file name or number on each line, or his own json"
        what = f"{path} holds all images, and nothing beside it says which are the {split} set"
        raise FileNotFoundError(f"{what}; {mend}")
    known = {_number(entry.image): entry for entry in entries}
    wanted = [line.split()[0] for line in found.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if lost := [image for image in wanted if _number(image) not in known]:
        raise ValueError(f"{found}: {len(lost)} images are not in {path.name}{list_some(lost)}; get both again")
    chosen = [known[_number(image)] for image in wanted]
    folders = [re.fullmatch(r"COCO_(\w+)_\d+\.\w+", entry.image) for entry in chosen]
    return [e._replace(image=f"{at[1]}/{e.image}") if at else e for e, at in zip(chosen, folders, strict=True)]


def _number(image: str) -> str:
    """What a file name or number of Flickr's or COCO's has in common: `COCO_val2014_000000391895.jpg`, `391895`."""
    return PurePosixPath(image).name.partition(".")[0].rpartition("_")[2].lstrip("0")


def _read_list(path: Path, content: list) -> tuple[str, list[Entry]]:
    items = _objects(path, "the list", content)
    one_each = isinstance(next((item["caption"] for item in items if "caption" in item), None), str)
    entries, grouped = [], dict[str, Entry]()  # at the place where the image is first named
    for index, item in enumerate(items):
        captions = [item["caption"]] if one_each and "caption" in item else item.get("caption")
        entry = _entry(path, index, item.get("image"), captions, item.get("image_id"))
        entries.append(entry)
        first = grouped.get(entry.image, entry._replace(captions=()))
        grouped[entry.image] = first._replace(captions=first.captions + entry.captions)
    return ("one entry per caption", [*grouped.values()]) if one_each else ("caption lists", entries)


def _read_karpathy(path: Path, content: list, split: str) -> list[Entry]:
    images = _objects(path, "images", content)
    # "restval": images of COCO's validation set that Karpathy's split adds to the training set.
    splits = ["train" if image.get("split") == "restval" else str(image.get("split")) for image in images]
    if split not in splits:
        found = ", ".join(f"{name} ({count} images)" for name, count in Counter(splits).items())
        raise ValueError(f"{path}: the split {split!r} is not in the file, found: {found}; choose one of them")
    entries = []
    for index, image in enumerate(images):
        if splits[index] == split:
            file, folder, sentences = image.get("filename"), image.get("filepath"), image.get("sentences")
            listed = f"{folder}/{file}" if isinstance(file, str) and folder else file
            if isinstance(sentences, list):
                sentences = [item.get("raw") if isinstance(item, dict) else item for item in sentences]
            entries.append(_entry(path, index, listed, sentences, image.get("cocoid")))
    return entries


def _read_coco(path: Path, images: list, annotations: list) -> list[Entry]:
    images = _objects(path, "images", images)
    captions = defaultdict(list)
    for annotation in _objects(path, "annotations", annotations):
        captions[_stated_id(annotation.get("image_id"))].append(annotation.get("caption"))
    ids = [_stated_id(image.get("id")) for image in images]
    if None in ids:
        where = f"{path}: entry {ids.index(None)} of images"
        raise ValueError(f"{where} has no id, expected a number or a text; get the file again")
    check_repeated(path, ids, JOIN_ENTRIES)
    if unknown := sorted(map(str, captions.keys() - set(ids))):
        counts = f"{len(unknown)} values of image_id are no id of an image{list_some(unknown)}"
        raise ValueError(f"{path}: captions without images: {counts}; restore the missing entries")
    return [
        _entry(path, index, image.get("file_name"), captions.get(ids[index]), ids[index], image.get("domain"))
        for index, image in enumerate(images)
    ]


def _entry(path: Path, index: int, image: Any, captions: Any, image_id: Any, domain: Any = None) -> Entry:
    """A checked entry; faults are named with the place in the file."""
    where = f"{path}: entry {index}"
    if not isinstance(image, str) or not image.strip():
        raise ValueError(f"{where} has no image (got {_shown(image)}), expected its path; add it or drop the entry")
    where += f" ({image})"
    if captions is None or captions == []:
        raise ValueError(f"{where} has no captions, expected at least one; add it or drop the entry")
    if not isinstance(captions, list):
        raise ValueError(f"{where}: caption is {_shown(captions)}, expected a list of texts; correct the entry")
    for caption in captions:
        if not isinstance(caption, str):
            raise ValueError(f"{where}: a caption is {_shown(caption)}, expected a text; correct the entry")
        if not caption.strip():
            raise ValueError(f"{where}: an empty caption ({caption!r}), expected words; correct or drop it")
    return Entry(image, tuple(captions), _stated_id(image_id), domain if isinstance(domain, str) else None)


def _stated_id(value: Any) -> int | str | None:
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def _objects(path: Path, where: str, entries: list) -> list[dict]:
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(f"{path}: entry {index} of {where} is {_shown(entry)}, expected an object; correct it")
    return entries


def _any_has(entries: list, *keys: str) -> bool:
    return any(isinstance(entry, dict) and any(key in entry for key in keys) for entry in entries)


def _shown(value: Any) -> str:
    return f"{_SHORT.repr(value)} ({type(value).__name__})"
