"""Copies of data sets as webdataset tars and parquet files: the folder they were made from comes out again."""

import importlib
import json
import re
from pathlib import Path

import pytest

from classification.data.find import find_dataset
from clipscore.data.caption_sets import find_captions
from scripts.convert import __main__ as convert
from tests import miniatures
from tests.scripts.test_fetch_data import pack, tree

CASES = [("imagenet_a", "imagenet-a"), ("imagenet_v2", "imagenetv2-matched-frequency-format-val"), ("coco", "coco2014")]


@pytest.fixture(autouse=True)
def _whole(miniature: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    miniatures.as_published(monkeypatch, miniature / "data")


def images_of(dataset: str, root: Path) -> list:
    return (find_captions if dataset == "coco" else find_dataset)(dataset, root).images


def copy(dataset: str, form: str, miniature: Path, tmp_path: Path, **change) -> Path:
    """A copy in two files, from which a value may be missing, or be another."""
    rows = [
        {"image": {"bytes": image.path.read_bytes(), "path": image.path.name}}
        | ({"caption": list(image.captions)} if dataset == "coco" else {"label": image.label}) | change
        for image in images_of(dataset, miniature / "data")
    ]  # fmt: skip
    (tmp_path / "copy").mkdir()
    for number, part in enumerate((rows[:10], rows[10:])):
        file = tmp_path / f"copy/test-{number}{form}"
        if form == ".parquet":
            parquet = pytest.importorskip("pyarrow.parquet", reason="pip install pyarrow: parquet files are not tested")
            parquet.write_table(importlib.import_module("pyarrow").Table.from_pylist(part), file)
            continue
        files = {}
        for row in part:
            stem = f"{number}/{Path(row['image']['path']).stem}"
            files[f"{stem}.webp"] = row["image"]["bytes"]
            text = "\n".join(row["caption"]) if dataset == "coco" else row["label"]
            files |= {} if text is None else {f"{stem}.{'txt' if dataset == 'coco' else 'cls'}": str(text).encode()}
        file.write_bytes(pack("copy.tar", files))
    return tmp_path / "copy"


@pytest.mark.parametrize("form", [".tar", ".parquet"])
@pytest.mark.parametrize(("dataset", "folder"), CASES)
def test_a_copy_and_a_second_call(dataset, folder, form, miniature, tmp_path, capsys):
    source = copy(dataset, form, miniature, tmp_path)
    file = source / f"test-1{form}"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2 + 100])
    assert convert.main([dataset, str(source)]) == 2 and "; get it again" in capsys.readouterr().err
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").glob("*/*/*.*")}
    file.write_bytes(content)
    assert convert.main([dataset, str(source)]) == 0
    found, wanted = (images_of(dataset, root / "data") for root in (tmp_path, miniature))
    facts = [(Path(image.id).stem, image.captions if dataset == "coco" else image.label) for image in wanted]
    assert [(Path(image.id).stem, image.captions if dataset == "coco" else image.label) for image in found] == facts
    assert [image.path.read_bytes() for image in found] == [image.path.read_bytes() for image in wanted]
    if form == ".parquet":
        assert [image.id for image in found] == [image.id for image in wanted], "the same ids, so the same views"
    assert len(kept) > 9 and kept.items() <= {path: path.stat().st_mtime_ns for path in kept}.items()
    assert f"converted from {source}: ids and views are of that copy" in capsys.readouterr().err


@pytest.mark.parametrize(("dataset", "change", "there", "sentence"), [
    ("imagenet_a", {"label": None}, "", "has None, expected a label from 0 to 199"),
    ("imagenet_a", {"label": 200}, "", "has 200, expected a label from 0 to 199"),
    ("imagenet_a", {}, "imagenet-a/n01498041/1.jpg", "holds imagenet_a already, not a copy of"),
    ("coco", {"caption": []}, "", r"expected captions \(txt, caption\); coco needs another copy"),
    ("coco", {}, "coco2014/dataset_coco.json", "holds coco already"),
])  # fmt: skip
def test_a_copy_that_does_not_fit(dataset, change, there, sentence, miniature, tmp_path, capsys):
    source = copy(dataset, ".tar", miniature, tmp_path, **change)
    if there:
        miniatures.write(tmp_path / "data" / there, "x")
    assert convert.main([dataset, str(source)]) == 2
    assert re.search(sentence, capsys.readouterr().err)
    assert not there or list(tree(tmp_path / "data")) == [there]


def test_a_name_on_the_hub(miniature, tmp_path, monkeypatch, capsys):
    source = copy("imagenet_a", ".tar", miniature, tmp_path)
    listed = {"a/b": ["README.md", "test/test-0.tar", "test/test-1.tar", "train/0.tar"]}
    monkeypatch.setattr(convert.huggingface_hub, "list_repo_files", lambda name, repo_type: listed[name])
    monkeypatch.setattr(convert.huggingface_hub, "hf_hub_download", lambda _, n, repo_type: source / Path(n).name)
    assert convert.main(["imagenet_a", "a/b"]) == 0
    assert json.loads((tmp_path / "data/imagenet-a/converted.json").read_text()) == {"source": "a/b"}
    assert convert.main(["imagenet_r", "a/c"]) == 2 and "no file or folder a/c, and Hugging" in capsys.readouterr().err
