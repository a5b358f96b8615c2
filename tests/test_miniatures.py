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

CLASSIFICATION = [(name, words, make) for name in dataset_layouts.LAYOUTS for words, make in miniatures.layouts(name)]
CAPTIONS = [(name, words, make) for name in miniatures.CAPTION_SETS for words, make in miniatures.layouts(name)]


def ids(cases: list[tuple]) -> list[str]:
    return [f"{name}-{words}" for name, words, _ in cases]


def listing(root: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder with its size and time of change."""
    stats = {str(path): path.lstat() for path in [root, *root.rglob("*")]}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


@pytest.mark.parametrize(("name", "words", "make"), CLASSIFICATION, ids=ids(CLASSIFICATION))
def test_every_layout_of_a_classification_set(tmp_path, monkeypatch, name, words, make):
    make(tmp_path / "data")
    before = listing(tmp_path)
    miniatures.as_published(monkeypatch)
    for part in ("/fog/3", "/gaussian_noise/1") if name == "imagenet_c" else ("",):
        data = find_dataset((name + part).upper(), tmp_path / "data")
        assert sorted(image.label for image in data.images) == list(range(len(class_names(name))))
        assert (len(data.images), data.faults) == (data.published, ())
        assert open_image(data.images[-1].path).size == (8, 8)
    assert listing(tmp_path) == before


@pytest.mark.parametrize(("name", "words", "make"), CAPTIONS, ids=ids(CAPTIONS))
def test_every_layout_of_a_caption_set(tmp_path, monkeypatch, name, words, make):
    make(tmp_path / "data")
    before = listing(tmp_path)
    miniatures.as_published(monkeypatch, tmp_path / "data")
    names = [name, *(f"{name}/{domain}" for domain in NOCAPS_DOMAINS if name == "nocaps")]
    for part in names:
        for split in ("test", "val") if name == "nocaps" else ("test", "val", "train"):
            data = find_captions(part.upper(), tmp_path / "data", split=split)
            assert (data.counts, data.faults) == (data.published, ())
            assert all(image.path.is_file() for image in data.images)
    assert listing(tmp_path) == before
