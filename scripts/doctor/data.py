"""The doctor's look at data sets: by the functions that runs find them with, so that both say the same sentences."""

import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from tqdm import tqdm

from classification.data import layouts
from classification.data.find import LabelledImages, find_dataset
from clipscore.config.explain import nearest
from clipscore.data import caption_layouts
from clipscore.data.caption_sets import CaptionedImages, find_captions, published_md5
from clipscore.data.checks import list_some
from clipscore.data.open_image import UnreadableImage, open_image
from clipscore.data.reading import reader_context
from scripts.doctor.checks import Check, wrong
from scripts.tables.paper import paper_tables

FINE_GRAINED = tuple(name for name, layout in layouts.LAYOUTS.items() if isinstance(layout, layouts.SplitLayout))
# scripts/classification/rlcf_imagenet_c.sh: the 15 corruptions of the benchmark, the other four are for development.
IMAGENET_C = tuple(f"imagenet_c/{corruption}/5" for corruption in layouts.CORRUPTIONS[:15])
TABLES = {
    key: tuple(dict.fromkeys(column.dataset for column in table.columns if column.dataset))
    for key, table in paper_tables().items()
}
GROUPS = {**TABLES, "fine_grained": FINE_GRAINED, "imagenet_c": IMAGENET_C}
IMAGES = {"coco": "coco2014/val2014", "flickr30k": "flickr30k/flickr30k-images", "nocaps": "nocaps/val"}


def canonical(name: str) -> str:
    """The id of a built-in data set of any task; ValueError: there is none of this name."""
    found = layouts.canonical_name(name) or caption_layouts.canonical_name(name)
    if found is None:
        known = [*GROUPS, "weights", *layouts.LAYOUTS, *caption_layouts.LAYOUTS]
        raise ValueError(f"no data set or group {name!r}; nearest: {nearest(name, known)!r}; valid: {', '.join(known)}")
    return found


def check_data(name: str, data_root: Path, deep: bool = False) -> Check:
    """Look at one data set, by its canonical id; `deep`: decode every image."""
    title = f"{name}, for {needed_by(name)}"
    data: LabelledImages | CaptionedImages
    try:
        if layouts.canonical_name(name):
            data = find_dataset(name, data_root, partial=True)
        else:
            data = find_captions(name, data_root, split="test", partial=True)
    except (ValueError, OSError) as error:
        images = IMAGES.get(name.split("/")[0])  # what the sentence of a run does not say
        place = [f"place of the images: {data_root / images}"] if images else []
        return wrong(title, error, *place, "places, addresses and checksums: pretrained/DATA.md")
    parts = _parts(data) + [wrong(*str(fault).splitlines()) for fault in data.faults]
    if deep:
        parts.append(check_images(name, [image.path for image in data.images]))
    return Check(title, "ok", (f"found: {data.layout}, in {data_root}",), tuple(parts))


def needed_by(name: str) -> str:
    """Tables of the paper, or rows of a README, that a data set is for."""
    if name in FINE_GRAINED:
        return "the fine-grained rows"
    if name.startswith("imagenet_c/"):
        return "the ImageNet-C rows"
    tables = [f"Table {key[-1]}" for key, names in TABLES.items() if any(f"{n}/".startswith(f"{name}/") for n in names)]
    return " and ".join(tables) or "the demo"


def check_images(title: str, paths: Sequence[Path]) -> Check:
    """Decode every image, in as many processes as there are cores; `title` is for the progress bar."""
    num_processes = min(os.cpu_count() or 1, 1 + len(paths) // 100)
    bar = tqdm(total=len(paths), desc=title, unit="image", file=sys.stderr, disable=not sys.stderr.isatty())
    faults, cut = [], []
    # An interrupt is for this process alone, which ends the others; unlike a Pool, this notices when one of them dies.
    silent = signal.signal, (signal.SIGINT, signal.SIG_IGN)
    with bar, ProcessPoolExecutor(num_processes, reader_context(__name__), *silent) as pool:
        try:
            for path, (fault, is_cut) in zip(paths, pool.map(_decode, paths, chunksize=50), strict=True):
                faults += [fault] if fault else []
                cut += [path.name] if is_cut else []
                bar.update()
        except BrokenProcessPool:
            return wrong(f"decoded: a process died after {bar.n:,} of {len(paths):,} images, for want of memory?")
        finally:
            pool.shutdown(cancel_futures=True)
    more = f"; {len(cut):,} are cut off, and are read as far as they go{list_some(cut)}" if cut else ""
    if faults:
        return wrong(f"decoded: {len(faults):,} of {len(paths):,} images are unreadable{more}", *faults)
    return Check(f"decoded: all {len(paths):,} images{more}")


def _decode(path: Path) -> tuple[str, bool]:
    """Why an image is unreadable, and whether it is cut off."""
    try:
        return "", "truncated" in open_image(path).info
    except UnreadableImage as error:
        return str(error), False


def _parts(data: LabelledImages | CaptionedImages) -> list[Check]:
    if isinstance(data, CaptionedImages):
        images, captions = data.published or (None, None)
        counts = [_counted("images", len(data.images), images), _counted("captions", data.counts[1], captions)]
        expected = published_md5(data.annotations, caption_layouts.find_layout(data.name), "test")
        md5 = f"md5 of {data.annotations.name}: " + (f"expected {expected}" if expected else "none is published")
        is_other = any("md5" in str(fault) for fault in data.faults)
        return [*counts, Check(md5, "note" if expected is None else "wrong" if is_other else "ok")]
    shown = ", ".join(data.class_names[:3])
    return [
        _counted("classes with images", len({image.label for image in data.images}), len(data.class_names)),
        _counted("images", len(data.images), data.published),
        Check(f"class names: {len(data.class_names)} ({shown}, ...)"),
    ]


def _counted(what: str, found: int, published: int | None) -> Check:
    if published is None:
        return Check(f"{what}: {found:,}, nothing is published")
    return Check(f"{what}: {found:,} of {published:,}", "ok" if found == published else "wrong")
