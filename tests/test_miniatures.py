"""The miniatures: found in every layout, whole when their sizes count as published, read by every loader."""

from pathlib import Path

import pytest

from classification.data import layouts as dataset_layouts
from classification.data.class_names import class_names
from classification.data.find import find_dataset
from clipscore.data.caption_layouts import NOCAPS_DOMAINS
from clipscore.data.caption_sets import find_captions
from clipscore.data.open_image import open_image
from tests import miniatures

NAMES = (*dataset_layouts.LAYOUTS, *miniatures.CAPTION_SETS)
CASES = [pytest.param(name, make, id=f"{name}-{words}") for name in NAMES for words, make in miniatures.layouts(name)]
PARTS = {"imagenet_c": ["/fog/3", "/gaussian_noise/1"], "nocaps": ["", *(f"/{domain}" for domain in NOCAPS_DOMAINS)]}


def listing(root: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder with its size and time of change."""
    stats = {str(path): path.lstat() for path in [root, *root.rglob("*")]}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


@pytest.mark.parametrize(("name", "make"), CASES)
def test_every_layout_is_found_and_whole(tmp_path, monkeypatch, name, make):
    make(tmp_path / "data")
    before = listing(tmp_path)
    miniatures.as_published(monkeypatch, tmp_path / "data")
    for part in (f"{name}{part}".upper() for part in PARTS.get(name, [""])):
        if name in miniatures.CAPTION_SETS:
            for split in ("test", "val") if name == "nocaps" else ("test", "val", "train"):
                data = find_captions(part, tmp_path / "data", split=split)
                assert (data.counts, data.faults) == (data.published, ())
                assert all(image.path.is_file() for image in data.images)
        else:
            data = find_dataset(part, tmp_path / "data")
            assert sorted(image.label for image in data.images) == list(range(len(class_names(name))))
            assert (len(data.images), data.faults) == (data.published, ())
            assert open_image(data.images[-1].path).size == (8, 8)
    assert listing(tmp_path) == before
