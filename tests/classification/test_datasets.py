"""Every accepted layout on miniature trees, every fault with its message, every image mode with a real file."""

import functools
import json
import os
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision.datasets import ImageFolder

from classification.config import DatasetFiles
from classification.data.class_names import class_names, wnids
from classification.data.find import LabelledImages, find_dataset
from classification.data.layouts import CORRUPTIONS, LAYOUTS, canonical_name, find_layout
from clipscore.data.images import Pictures
from clipscore.data.open_image import UnreadableImage, open_image, open_picture
from tests.miniatures import touch, write

V2 = "imagenetv2-matched-frequency-format-val"
GO_ON = "; or partial=true to go on with what is there$"
find_part = functools.partial(find_dataset, partial=True)


def make_folders(root: Path, folders: list[str], files: tuple[str, ...] = ("b.JPEG", "a.png")) -> None:
    touch(root, *(f"{folder}/{file}" for folder in folders for file in files))


def write_split(path: Path, entries: list[list], **splits: list) -> None:
    write(path, {"train": [], "val": [], "test": entries} | splits)


def listed(data: LabelledImages) -> list[tuple[str, int]]:
    assert all(image.path == data.root / image.id and image.path.exists() for image in data.images)
    return [(image.id, image.label) for image in data.images]


def refused(kind: type[Exception], said: str, name: str, root: Path, images: str | None = None, **files: str) -> str:
    """What the error says that looking for a data set must raise."""
    with pytest.raises(kind, match=said) as error:
        find_dataset(name, root, None if images is None else DatasetFiles(images=images, **files))
    return str(error.value)


@pytest.mark.parametrize(("name", "alias", "root"), [
    ("imagenet_a", "A", "imagenet-adversarial/imagenet-a"),  # in capitals, as its folders are
    ("imagenet_v2", "V", V2),
    ("imagenet_v2", "v", f"imagenetv2/{V2}"),
    ("imagenet_c/fog/3", "c/Fog/3", "ImageNet-C/fog/3"),
])  # fmt: skip
def test_class_folders_are_found_by_wnid_or_label(tmp_path, name, alias, root):
    by_label = root == V2
    folders = [str(label) for label in range(1000)] if by_label else wnids(name)
    folders = [folder.upper() for folder in folders] if alias == "A" else folders
    make_folders(tmp_path / root, [*folders, ".cache"])
    touch(tmp_path / root, "README.txt")
    data = find_part(alias, tmp_path)
    assert (data.name, data.class_names) == (name, class_names(name))
    assert data.layout == f"{root} ({'folders named by label' if by_label else 'wnid folders'})"
    in_order = sorted((folder, label) for label, folder in enumerate(folders))
    assert listed(data) == [(f"{f}/{file}", label) for f, label in in_order for file in ("a.png", "b.JPEG")]


def test_order_and_labels_are_those_of_torchvision(tmp_path):
    folders = ["dog", "Cat", "ant 2"]
    make_folders(tmp_path / "mine", folders, files=("x10.jpg", "x2.JPG", "y.tiff"))
    reference = ImageFolder(tmp_path / "mine")
    data = find_dataset("mine", tmp_path, DatasetFiles(images="mine"))
    assert listed(data) == [(str(Path(p).relative_to(tmp_path / "mine")), label) for p, label in reference.samples]
    assert data.class_names == reference.classes == ["Cat", "ant 2", "dog"]


def test_class_names_agree_with_known_labels():
    assert class_names("imagenet")[:2] == ["tench", "goldfish"]
    assert class_names("imagenet_c/fog/3")[999] == "toilet paper"
    assert (wnids("imagenet_a")[0], class_names("imagenet_a")[0]) == ("n01498041", "stingray")
    assert (wnids("imagenet_r")[0], class_names("imagenet_r")[0]) == ("n01443537", "goldfish")
    assert find_layout("imagenet_c/fog/3").num_images == 50_000
    assert len(CORRUPTIONS) == 19


def test_aircraft_labels_are_the_lines_of_variants(tmp_path):
    names, folder = class_names("aircraft"), tmp_path / "fgvc-aircraft-2013b/data"
    touch(folder, "images/1514522.jpg", "images/0747566.jpg")
    (folder / "variants.txt").write_text("\n".join(names) + "\n")
    (folder / "images_variant_test.txt").write_text("1514522 BAE 146-200\n0747566 707-320\n")
    data = find_part("Aircraft", tmp_path)
    assert listed(data) == [("1514522.jpg", names.index("BAE 146-200")), ("0747566.jpg", 0)]

    (folder / "variants.txt").write_text("\n".join(reversed(names)))
    refused(ValueError, r"1514522\.jpg has label .* class name 'BAE 146-200', expected '", "aircraft", tmp_path)
    (folder / "variants.txt").write_text("707-320\n")
    refused(ValueError, r"variant 'BAE 146-200' of image '1514522' is not in .*variants\.txt", "aircraft", tmp_path)
    (folder / "images_variant_test.txt").write_text("\n")
    refused(ValueError, "the file is empty", "aircraft", tmp_path)
    (folder / "variants.txt").unlink()
    refused(FileNotFoundError, r"variants\.txt; it comes with images_variant_test", "aircraft", tmp_path)


def test_demo_reads_a_split_or_class_folders(tmp_path):
    entries = [["b.jpg", 1, "tall_tree"], ["a.jpg", 0, "house"]]
    write_split(tmp_path / "demo/clean/split_zhou_Demo.json", entries)
    touch(tmp_path / "demo/clean/images", "a.jpg", "b.jpg")
    data = find_dataset("Demo/Clean", tmp_path)
    assert (data.name, data.class_names) == ("demo/clean", ["house", "tall_tree"])
    assert listed(data) == [("b.jpg", 1), ("a.jpg", 0)]

    make_folders(tmp_path / "demo/low-light", ["c0", "c1"], files=("a.jpg",))
    (tmp_path / "demo/low-light/classnames.txt").write_text("c1 tall tree\nc0 house\n")
    data = find_dataset("demo/low-light", tmp_path)
    assert (data.class_names, listed(data)) == (["tall tree", "house"], [("c0/a.jpg", 1), ("c1/a.jpg", 0)])
    refused(FileNotFoundError, r"demo/noise/classnames\.txt[^$]*styles there: clean, low-light", "demo/noise", tmp_path)
    refused(ValueError, "expected demo/<style>", "demo/../..", tmp_path)


@pytest.mark.parametrize(("file", "content", "names"), [
    ("names.txt", "small cat\n\nlarge_dog\n", ["small cat", "large_dog"]),
    ("names.txt", "n2 large dog\nn1 small cat\n", ["large dog", "small cat"]),
    ("names.json", '["small cat", "large dog"]', ["small cat", "large dog"]),
    ("names.json", '{"n2": "large dog", "n1": "small cat"}', ["large dog", "small cat"]),
    ("names.csv", 'n2,"large dog"\nn1,small cat', ["large dog", "small cat"]),
    ("names.txt", "n2: large dog\nn1:small cat", ["large dog", "small cat"]),
])  # fmt: skip
def test_class_name_files_of_an_own_set(tmp_path, monkeypatch, file, content, names):
    make_folders(tmp_path / "images", ["n1", "n2"], files=("x.webp",))
    (tmp_path / file).write_text(content)
    monkeypatch.chdir(tmp_path)
    data = find_dataset("mine", tmp_path / "elsewhere", DatasetFiles(images="images", class_names=file))
    assert data.class_names == names
    label_of_n1 = 0 if "small" in names[0] else 1
    assert listed(data) == [("n1/x.webp", label_of_n1), ("n2/x.webp", 1 - label_of_n1)]


def test_own_split_file_takes_names_from_all_splits(tmp_path):
    train = [["sub/c.jpg", 2, "owl"], ["sub/c.jpg", 1, "cat"], ["sub/a.jpg", 0, "bee"]]
    write_split(tmp_path / "split.json", [], train=train[:2], mine=[["./sub/a.jpg", 0, "bee"]])
    touch(tmp_path / "images", "sub/a.jpg")
    files = DatasetFiles(images=str(tmp_path / "images"), split_file=str(tmp_path / "split.json"), split="mine")
    data = find_dataset("mine", tmp_path, files)
    assert (data.class_names, listed(data)) == (["bee", "cat", "owl"], [("sub/a.jpg", 0)])


@pytest.mark.parametrize(("file", "content", "message"), [
    ("n.txt", "cat\ndog\nowl\n", "3 class names for 2 class folders"),
    ("n.txt", "n1 cat\nn3 owl\n", "1 of 2 lines start with a class folder, line 2 does not: 'n3 owl'"),
    ("n.txt", "n1 cat\nn1 dog\n", "class folder 'n1' has two lines"),
    ("n.txt", "n1 cat\n", "expected 1, found 2; 0 missing; 1 surplus .n2."),
    ("n.json", '{"n1": "cat", "n2": "dog", "n3": "owl"}', "expected 3, found 2; 1 missing .n3.; 0 surplus"),
    ("n.json", '["cat", 3]', "expected a json list of class names"),
    ("n.json", '{"n1": "cat", "n1": "dog"}', "'n1' is there twice"),
    ("n.csv", "folder,name\nn1,cat\nn2,dog", "line 1 does not: 'folder,name'"),
    ("n.txt", "1 cat\n2 dog", "n.txt: each name begins with a number, '1 cat' and so on"),
    ("n.txt", "cat,n1\ndog,n2", "'cat,n1' would be the name of the class folder 'n1'"),
    ("n.txt", "Red_fox\nred fox", "'red fox' is there twice; give each class once"),
    ("n.txt", "caf\udce9\ntea", r"n\.txt: not text in UTF-8 \(invalid continuation byte at byte 3\); .iconv"),
    ("split.json", '{"train": [', r"split\.json: not valid json"),
    ("split.json", '{"test": [["a", 0, "bee"], ["b", 0, "cat"]]}', "label 0 has two class names, 'bee' and 'cat'"),
    ("split.json", '{"test": [["a", 0, "bee"], ["b", 2, "cat"]]}', r"2 labels, expected 0 to 1, got \[0, 2\]"),
])  # fmt: skip
def test_faulty_files_of_an_own_set(tmp_path, file, content, message):
    make_folders(tmp_path / "images", ["n1", "n2"])
    (tmp_path / file).write_text(content, errors="surrogateescape")
    key = "split_file" if file == "split.json" else "class_names"
    refused(ValueError, message, "mine", tmp_path, "images", **{key: file})


def test_own_folders_are_read_as_they_are_meant(tmp_path, caplog):
    make_folders(tmp_path / "spaces", ["red fox", "red"], files=("a.PPM", "deeper/b.jfif", "c.gif", "d.heic"))
    (tmp_path / "spaces/red/deeper/loop").symlink_to(tmp_path / "spaces")
    (tmp_path / "names.txt").write_text("red colour\nred fox animal")
    data = find_dataset("mine", tmp_path, DatasetFiles(images="spaces", class_names="names.txt"))
    assert data.class_names == ["colour", "animal"] and ("red fox/deeper/b.jfif", 1) in listed(data)
    assert len(data.images) == 6 and "red fox: 1 files are left out, no images by their names: 1 .heic" in caplog.text
    make_folders(tmp_path / "wnids", ["n01440764", "N01443537"])
    data = find_dataset("mine", tmp_path, DatasetFiles(images="wnids"))
    assert sorted(data.class_names) == ["goldfish", "tench"] and "named by ImageNet's wnids" in data.layout
    make_folders(tmp_path / "wnids", ["n99999999"])
    said = r"1 class folders are none of ImageNet's 1000 wnids, as others are \(n99999999\)"
    refused(ValueError, said, "mine", tmp_path, "wnids")
    make_folders(tmp_path / "twins", ["Red_Fox", "red fox"])
    refused(ValueError, "'red fox' is there twice", "mine", tmp_path, "twins")
    write_split(tmp_path / "s.json", [["a.jpg", 0, "bee"], ["b.jpg", 1, "Bee"]])
    refused(ValueError, r"s\.json: 'bee' is there twice", "mine", tmp_path, "wnids", split_file="s.json")
    make_folders(tmp_path / "latin", ["caf\udce9", "tea"])
    refused(ValueError, r"latin': the name b'caf\\xe9' is not in UTF-8; rename it", "mine", tmp_path, "latin")


@pytest.mark.parametrize(("kind", "said", "files"), [
    (FileNotFoundError, r"dataset_files\.images=nowhere not found; tried: .*nowhere", {"images": "nowhere"}),
    (FileNotFoundError, r"dataset_files\.class_names=x\.txt not found", {"class_names": "x.txt"}),
    (ValueError, r"expected a folder, got the file .*file\.jpg", {"images": "file.jpg"}),
    (ValueError, "split_file: expected a json file, got the folder", {"split_file": "images"}),
    (ValueError, r"no class folders \(images directly in it: 1\)", {"images": "flat"}),
    (ValueError, "folders of two or more classes there is only n1; put", {"images": "images"}),
    (ValueError, "folders of two or more classes there is only train, val; put", {"images": "parts"}),
    (ValueError, "expected one; a split file has", {"class_names": "file.jpg", "split_file": "file.jpg"}),
    (ValueError, "no list named 'dev', found: train, val, test", {"split_file": "s.json", "split": "dev"}),
])  # fmt: skip
def test_faulty_own_sets(tmp_path, kind, said, files):
    make_folders(tmp_path / "images", ["n1"])
    touch(tmp_path, "flat/a.jpg", "file.jpg", "parts/train/n1/a.jpg", "parts/val/n1/a.jpg")
    write_split(tmp_path / "s.json", [["a.jpg", 0, "bee"]])
    refused(kind, said, "mine", tmp_path, **{"images": "images", **files})
    refused(ValueError, r"'A' is built in \(imagenet_a\); drop dataset_files", "A", tmp_path, "images")


@pytest.mark.parametrize(("name", "message"), [
    ("imagenet_b", "unknown data set 'imagenet_b'; nearest: 'imagenet"),
    ("stanford-car", r"nearest: 'stanford_cars'; valid: imagenet, imagenet_a, .*dataset_files\.images"),
    ("C", r"expected imagenet_c/<corruption>/<severity 1-5>"),
    ("imagenet_c/gausian_noise/3", "nearest corruption: gaussian_noise"),
    ("demo", "expected demo/<style>"),
])  # fmt: skip
def test_unknown_names(tmp_path, name, message):
    refused(ValueError, message, name, tmp_path)


def test_names_in_any_case():
    names = {"I": "imagenet", "r": "imagenet_r", "ImageNet_V2": "imagenet_v2", "K": "imagenet_sketch", "mine": None}
    names |= {"CARS": "stanford_cars", "Pets": "oxford_pets", "C/Snow/5": "imagenet_c/snow/5"}
    assert {name: canonical_name(name) for name in names} == names


def test_not_found_lists_every_path_tried(tmp_path):
    for name in ("imagenet", "imagenet_v2", "flower102"):
        message, layout = refused(FileNotFoundError, name, name, tmp_path), LAYOUTS[name]
        tried = layout.roots if name != "flower102" else [f"{folder}/{layout.split_file}" for folder in layout.folders]
        assert all(str(tmp_path / path) in message for path in tried) and layout.source in message
    refused(FileNotFoundError, r"there is no data root .*nowhere; get the im", "dtd", tmp_path / "nowhere")


def test_the_layout_with_the_most_class_folders_wins_and_what_lies_beside_them_is_no_class(tmp_path):
    names, root = wnids("imagenet_a"), tmp_path / "imagenet-a/imagenet-a"
    make_folders(root, [*names, "lost+found", "ILSVRC2012_devkit_t12"], files=("a.jpg",))
    touch(root, "README.txt", "Thumbs.db", "n01440764", f"{names[0]}/._a.jpg", f"{names[0]}/Thumbs.db")
    (tmp_path / "imagenet-a" / names[0]).mkdir()
    data = find_part("imagenet_a", tmp_path)
    assert data.layout == "imagenet-a/imagenet-a (wnid folders)"
    assert listed(data) == [(f"{name}/a.jpg", label) for label, name in enumerate(names)]


def test_folders_without_class_folders_or_images(tmp_path):
    touch(tmp_path / "ImageNet/val", *(f"ILSVRC2012_val_0000000{i}.JPEG" for i in range(1, 4)))
    refused(ValueError, r"ImageNet/val: 3 images lie flat .*valprep\.sh", "imagenet", tmp_path)
    touch(tmp_path / "imagenet-r", "imagenet-r.tar")
    refused(FileNotFoundError, r"imagenet-r \(there, but holds no class folders\)", "imagenet_r", tmp_path)
    make_folders(tmp_path / "imagenet-a", wnids("imagenet_a"), files=("a.txt", "._b.jpg"))
    (tmp_path / "imagenet-a/n01498041/a.bmp").touch()
    refused(ValueError, r"199 of 200 class folders hold no images \(n01531178, .*any case", "imagenet_a", tmp_path)


@pytest.mark.parametrize(("entries", "kind", "message"), [
    ([["a.jpg", 0, "Annual Crop Land"], ["b.jpg", 1, "forest"]] + [[f"{i}.jpg", 1, "Forest"] for i in range(5)],
     FileNotFoundError, r"6 of 7 listed images are missing .*\(b\.jpg, 0\.jpg, 1\.jpg, \.\.\.\); tried .*2750"),
    ([["z.jpg", 1, "Forest"]], FileNotFoundError, r"none of them is on disk.*\n  .*2750/z\.jpg .*\n.*images/z"),
    ([["a.jpg", 1, "River"]], ValueError, "a.jpg has label 1 and class name 'River', expected 'Forest'"),
    ([["a.jpg", 10, "River"]], ValueError, "expected a label below 10"),
    ([["a.jpg", 1, "Forest"]] * 2, ValueError, r"1 images are listed more than once \(a\.jpg\)"),
    ([["../a.jpg", 1, "Forest"]], ValueError, r"expected \[path inside the image folder"),
    ([["a.jpg", 1]], ValueError, "path inside the image folder"),
    ([], ValueError, "the split 'test' lists no images"),
])  # fmt: skip
def test_faulty_split_files(tmp_path, entries, kind, message):
    touch(tmp_path / "eurosat/2750", "a.jpg")
    write_split(tmp_path / "eurosat/split_zhou_EuroSAT.json", entries)
    refused(kind, message, "eurosat", tmp_path)


@pytest.fixture
def eurosat(tmp_path, monkeypatch) -> Path:
    """All of EuroSAT as it would be with one test image per class."""
    names = class_names("eurosat")
    write_split(tmp_path / "eurosat/split_zhou_EuroSAT.json", [[f"{n}/1.jpg", i, n] for i, n in enumerate(names)])
    touch(tmp_path / "eurosat/2750", *(f"{name}/1.jpg" for name in names))
    monkeypatch.setitem(LAYOUTS, "eurosat", replace(LAYOUTS["eurosat"], num_images=10))
    return tmp_path


@pytest.fixture
def imagenet_a(tmp_path, monkeypatch) -> Path:
    """All of ImageNet-A as it would be with two images per class."""
    make_folders(tmp_path / "imagenet-a", wnids("imagenet_a"))
    monkeypatch.setitem(LAYOUTS, "imagenet_a", replace(LAYOUTS["imagenet_a"], num_images=400))
    return tmp_path


def test_images_are_counted_against_the_published_number(eurosat, imagenet_a):
    for name, published in (("eurosat", 10), ("imagenet_a", 400)):
        data = find_dataset(name, imagenet_a)
        assert (len(data.images), data.published, data.faults) == (published, published, ())
    make_folders(imagenet_a / "mine", ["n1", "n2"])
    assert find_dataset("mine", imagenet_a, DatasetFiles(images="mine")).published is None
    touch(imagenet_a / "imagenet-a" / wnids("imagenet_a")[0], "copy.jpg")
    said = rf"imagenet-a: 401 images, published are 400; unpack the original archive again \(https://.*\){GO_ON}"
    refused(ValueError, said, "imagenet_a", imagenet_a)
    assert len(find_part("imagenet_a", imagenet_a).images) == 401


def test_partial_leaves_out_what_is_missing_and_keeps_the_labels(imagenet_a, caplog):
    folders = wnids("imagenet_a")
    for folder in (folders[0], folders[2]):
        for file in (imagenet_a / "imagenet-a" / folder).iterdir():
            file.unlink()
    (imagenet_a / "imagenet-a" / folders[0]).rmdir()
    missing = rf"expected 200, found 199; 1 missing \({folders[0]}\); 0 surplus; unpack the data again"
    empty = rf"1 of 199 class folders hold no images \({folders[2]}\); images must lie directly .*unpack the data again"
    refused(ValueError, f"{missing}\n.*{empty}{GO_ON}", "imagenet_a", imagenet_a)
    make_folders(imagenet_a / V2, list(map(str, range(998))))  # named by their own kind
    refused(ValueError, rf"2 missing \(998, 999\); 0 surplus; unpack the data again{GO_ON}", "imagenet_v2", imagenet_a)
    data = find_part("imagenet_a", imagenet_a)
    assert [image.label for image in data.images] == [1, 1, *(label for label in range(3, 200) for _ in "ab")]
    assert (data.class_names, data.published) == (class_names("imagenet_a"), 400)
    assert re.search(missing, str(data.faults[0])) and re.search(empty, str(data.faults[1]))
    assert re.search(missing, caplog.text) and re.search(empty, caplog.text)


def test_split_entries_without_images_another_count_and_other_names(eurosat, caplog):
    split_file = eurosat / "eurosat/split_zhou_EuroSAT.json"
    entries = json.loads(split_file.read_text())["test"]
    (eurosat / "eurosat/2750/Forest/1.jpg").unlink()
    (eurosat / "eurosat/2750/River/1.jpg").unlink()
    (eurosat / "eurosat/2750/River/1.jpg").mkdir()
    missing = r"2 of 10 listed images are missing .*\(Forest/1\.jpg, River/1\.jpg\); .*2750.*; unpack the images again"
    refused(FileNotFoundError, missing + GO_ON, "eurosat", eurosat)
    data = find_part("eurosat", eurosat)
    assert listed(data) == [(p, i) for p, i, n in entries if n not in ("Forest", "River")]
    assert data.layout == "eurosat/2750 + eurosat/split_zhou_EuroSAT.json"
    write_split(split_file, entries[:5])
    cut = r"1 of 5 listed images are missing on disk \(Forest/1\.jpg\); .*unpack the images again"
    counted = "lists 5 test images, published are 10; get the original file as told in https.*"
    refused(FileNotFoundError, f"{cut}\n.*{counted}{GO_ON}", "eurosat", eurosat)
    assert len(find_part("eurosat", eurosat).images) == 4
    write_split(split_file, [[entries[0][0], 0, "crops"], [entries[2][0], 2, entries[2][2].upper()]])
    assert find_part("eurosat", eurosat).class_names == class_names("eurosat")
    assert "1 class names are not the published ones, which the prompts are made of ('crops' for 'Annual" in caplog.text


@pytest.mark.parametrize(("name", "folders", "said"), [
    ("imagenet", range(1000), r"1000 class folders are named by number \(0, 1, 2, \.\.\.\), expected wnids \(n014"
     r"40764, \.\.\.\); .*unpack the original archive of imagenet here, or give each folder the wnid of its class"),
    ("imagenet_v2", range(1, 1001), "numbered from 1 to 1000, expected 0 to 999, .*unpack the original archive, or "
     "rename each folder to its number less 1"),
    ("imagenet_v2", [*range(999), "n15075141"], r"999 class folders are named by number \(0, 1, 2, \.\.\.\), "
     r"1 by wnid \(n15075141\); unpack imagenet_v2 into a folder of its own"),
    ("imagenet_v2", range(1001), r"expected 1000, found 1001; 0 missing; 1 surplus \(1000\); .*move what does"),
    ("imagenet_r", [*wnids("imagenet_r"), "n01440764x"], r"0 missing; 1 surplus \(n01440764x\); unpack the data "
     "again, or move what does not belong there"),
    ("imagenet_r", [*wnids("imagenet_r"), "N01443537"], r"expected 200, found 201; .*surplus \(N01443537\)"),
    ("imagenet_a", [*wnids("imagenet_a")[4:], "n00000001"],
     r"expected 200, found 197; 4 missing \(n01498041, n\d+, n\d+, \.\.\.\); 1 surplus \(n00000001\)"),
])  # fmt: skip
def test_class_folders_of_another_kind_stay_errors(tmp_path, name, folders, said):
    make_folders(tmp_path / LAYOUTS[name].roots[0], list(map(str, folders)), files=("a.jpg",))
    for find in (find_dataset, find_part):
        with pytest.raises(ValueError, match=said):
            find(name, tmp_path)


def test_folders_and_files_in_each_others_place(tmp_path):
    touch(tmp_path, "imagenet-r", "food-101", "file", "eurosat/2750")
    (tmp_path / "dtd/split_zhou_DescribableTextures.json").mkdir(parents=True)
    write_split(tmp_path / "eurosat/split_zhou_EuroSAT.json", [["a/1.jpg", 1, "Forest"]])
    for name, root, said in [
        ("imagenet_r", tmp_path, r"imagenet-r \(a file, expected a folder\)\n(.*\n)*get the data from http"),
        ("food101", tmp_path, r"split_zhou_Food101\.json \(a file, expected a folder\)"),
        ("food101", tmp_path / "file", r"no data root .*/file \(a file, expected a folder\); get the images"),
        ("dtd", tmp_path, r"dtd/split_zhou_\w+\.json \(a folder, expected a file\)\n(.*\n)*get the im"),
        ("eurosat", tmp_path, r"2750/a/1\.jpg \(a file, expected a folder\)\n(.*\n)*unpack the images"),
    ]:
        refused(FileNotFoundError, said, name, root)
    make_folders(tmp_path / "imagenet-a", wnids("imagenet_a")[1:])
    touch(tmp_path / "imagenet-a", wnids("imagenet_a")[0])
    refused(ValueError, r"1 missing \(n01498041: a file, expected a folder\)", "imagenet_a", tmp_path)


def test_links_that_lead_nowhere_are_named(tmp_path, eurosat):
    (tmp_path / "root").symlink_to(tmp_path / "gone")
    said = r"there is no data root .*/root \(a link to .*/gone, which is not there\); "
    refused(FileNotFoundError, said, "imagenet_a", tmp_path / "root")
    (tmp_path / "imagenet-a").symlink_to(tmp_path / "gone")
    refused(FileNotFoundError, r"imagenet-a \(a link to .*/gone, which is not there\)", "imagenet_a", tmp_path)
    (eurosat / "eurosat/2750/Forest/1.jpg").unlink()
    (eurosat / "eurosat/2750/Forest/1.jpg").symlink_to(tmp_path / "gone.jpg")
    refused(FileNotFoundError, r"1 of 10 listed images are missing .*Forest/1\.jpg", "eurosat", eurosat)


def test_what_may_not_be_read_is_named_with_its_mend(imagenet_a, eurosat):
    user = os.geteuid()
    (imagenet_a / "imagenet-a" / wnids("imagenet_a")[3]).chmod(0)
    (eurosat / "eurosat/split_zhou_EuroSAT.json").chmod(0)
    if user == 0:  # who may read everything
        os.seteuid(65534)
    try:
        for name in ("imagenet_a", "eurosat"):
            refused(PermissionError, r"/.*: permission denied for this user; .*chmod a\+rX", name, eurosat)
    finally:
        os.seteuid(user)
        (imagenet_a / "imagenet-a" / wnids("imagenet_a")[3]).chmod(0o755)


def ramp(dtype: type, top: float) -> np.ndarray:
    return (np.linspace(0, 1, 12).reshape(3, 4) * top).astype(dtype)


@pytest.mark.parametrize(
    ("name", "image", "first", "last"),
    [
        ("gray16.png", Image.fromarray(ramp(np.uint16, 65535)), (0, 0, 0), (255, 255, 255)),
        ("half16.png", Image.fromarray(ramp(np.uint16, 32896)), (0, 0, 0), (128, 128, 128)),
        ("gray32.tif", Image.fromarray(ramp(np.int32, 32896)), (0, 0, 0), (128, 128, 128)),
        ("float.tiff", Image.fromarray(ramp(np.float32, 0.5)), (0, 0, 0), (128, 128, 128)),
        ("one_bit.png", Image.fromarray(ramp(np.uint8, 255)).convert("1"), (0, 0, 0), (255, 255, 255)),
        ("rgba.png", Image.new("RGBA", (4, 3), (9, 8, 7, 0)), (9, 8, 7), (9, 8, 7)),
        ("la.png", Image.new("LA", (4, 3), (9, 0)), (9, 9, 9), (9, 9, 9)),
        ("cmyk.jpg", Image.new("CMYK", (4, 3), (0, 0, 0, 255)), (0, 0, 0), (0, 0, 0)),
        ("pixel.WEBP", Image.new("RGB", (1, 1), "white"), (255, 255, 255), (255, 255, 255)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_image_mode_becomes_rgb(tmp_path, name, image, first, last):
    image.save(tmp_path / name)
    opened = open_image(tmp_path / name)
    assert (opened.mode, opened.size) == ("RGB", image.size)
    assert opened.getpixel((0, 0)) == first
    assert opened.getpixel((opened.width - 1, opened.height - 1)) == last


def test_transparent_palette_and_exif_as_torchvision_reads_them(tmp_path):
    palette = Image.new("P", (3, 1), 0)
    palette.putpalette([200, 10, 20, 1, 2, 3])
    palette.save(tmp_path / "p.png", transparency=b"\x00\x80")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (6, 3)).save(tmp_path / "turned.jpg", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(tmp_path / "p.png").getpixel((0, 0)) == (200, 10, 20)
        assert open_image(tmp_path / "turned.jpg").size == (6, 3)
    assert open_picture(tmp_path / "turned.jpg", "--image").size == (3, 6)
    assert Pictures([tmp_path / "turned.jpg"], 4, upright=True)[0].pixels.shape == (3, 4, 4)


def test_unreadable_images_name_the_file_and_the_reason(tmp_path, monkeypatch):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    reasons = {"cut": "truncated", "text": "cannot identify", "empty": "empty .0 bytes", "folder": "not a file"}
    for file, reason in (reasons | {"gone": "no such file"}).items():
        with pytest.raises(UnreadableImage, match=rf"{file}\.jpg: .*{reason}"):
            open_image(tmp_path / f"{file}.jpg", strict=True)

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)  # PIL warns above it and raises above twice of it
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(tmp_path / "whole.jpg").size == (64, 64)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UnreadableImage, match=r"whole\.jpg: .*DecompressionBombError"):
        open_image(tmp_path / "whole.jpg")


def test_stanford_cars_as_kaggle_has_it(tmp_path):
    rows = np.array([("00001.jpg", 181), ("00002.jpg", 1)], dtype=[("fname", "O"), ("class", "i4")])
    touch(tmp_path / "stanford_cars/stanford_cars/cars_test/cars_test", "00001.jpg", "00002.jpg")
    file = tmp_path / "stanford_cars/stanford_cars/cars_test_annos_withlabels.mat"
    scipy.io.savemat(file, {"annotations": rows})
    found = find_dataset("stanford_cars", tmp_path, partial=True)
    assert listed(found) == [("cars_test/00001.jpg", 180), ("cars_test/00002.jpg", 0)]
    file.write_bytes(b"x" * 200)
    refused(ValueError, "is not Stanford's list of test images with labels", "stanford_cars", tmp_path)
