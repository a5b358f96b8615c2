"""Every annotation form, and every fault with its message; `tests/test_miniatures.py` finds every layout."""

import functools
import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from clipscore.config.fields import CaptionFiles
from clipscore.data.caption_layouts import LAYOUTS, Counts, canonical_name, find_layout
from clipscore.data.caption_sets import CaptionedImages, captions_fingerprint, find_captions
from tests.miniatures import coco_form, karpathy, touch, write

GO_ON = "; or partial=true to go on with what is there$"
find_part = functools.partial(find_captions, partial=True)
COCO_A, COCO_B = "val2014/COCO_val2014_000000391895.jpg", "train2014/COCO_train2014_000000000009.jpg"
COCO_LIST = [{"image": COCO_A, "caption": [" A man. ", "a dog\n"]}, {"image": COCO_B, "caption": ["Ä cat"] * 6}]
NOCAPS = "nocaps_val_4500_captions.json"
NOCAPS_LISTS = {
    "in-domain": "nocaps_val_417_in-domain.json",
    "near-domain": "nocaps_val_2670_near-domain.json",
    "out-domain": "nocaps_val_1413_out-domain.json",
}


def listed(data: CaptionedImages) -> list[tuple]:
    assert all(image.path.is_file() and image.path.is_relative_to(data.root) for image in data.images)
    return [(image.id, image.captions, image.image_id, image.domain) for image in data.images]


def own(tmp_path: Path, content: Any, *files: str, **keys: str) -> CaptionedImages:
    """The user's own set: mine.json with images in pictures/."""
    file = write(tmp_path / "mine.json", "" if isinstance(content, bytes) else content)
    file.write_bytes(content if isinstance(content, bytes) else file.read_bytes())
    (tmp_path / "pictures").mkdir(exist_ok=True)
    touch(tmp_path / "pictures", *files)
    return find_captions("mine", tmp_path, CaptionFiles(annotations="mine.json", images="pictures", **keys))


def refused(kind: type[Exception], said: str, name: str, root: Path, split: str = "test", **files: str) -> str:
    """What the error says that looking for a data set must raise."""
    with pytest.raises(kind, match=said) as error:
        find_captions(name, root, CaptionFiles(**files) if files else None, split)
    return str(error.value)


def test_the_original_karpathy_file_of_coco(tmp_path):
    rows = [
        ("restval", "val2014", "COCO_val2014_1.jpg", ["r"]),
        ("test", "val2014", "COCO_val2014_2.jpg", ["x ", "y"]),
        ("train", "train2014", "COCO_train2014_3.jpg", ["t"]),
        ("val", "val2014", "COCO_val2014_4.jpg", ["v"]),
    ]
    write(tmp_path / "coco2014/dataset_coco.json", karpathy(*rows))
    touch(tmp_path / "coco/images", *(f"{folder}/{file}" for _, folder, file, _ in rows))
    found = [(f"{folder}/{file}", tuple(texts), 100 + k, None) for k, (_, folder, file, texts) in enumerate(rows)]
    for split, expected in {"test": [found[1]], "train": [found[0], found[2]], "val": [found[3]]}.items():
        data = find_part("coco", tmp_path, split=split)
        assert listed(data) == expected and "md5" not in str(data.faults)  # that is known of each split's own file
        assert data.layout == f"coco2014/dataset_coco.json (Karpathy's form, split {split}), images in coco/images"


def test_the_official_nocaps_file(tmp_path):
    content = coco_form((0, "a.jpg", ["a1", "a2"]), (1, "b.jpg", ["b1"]), (2, "c.jpg", ["c1"]))
    for entry, domain in zip(content["images"], ("near-domain", "in-domain", "near-domain"), strict=True):
        entry["domain"] = domain
    content["annotations"].reverse()
    write(tmp_path / "nocaps" / NOCAPS, content)
    touch(tmp_path / "nocaps/val", "a.jpg", "b.jpg", "c.jpg")
    data = find_part("nocaps", tmp_path)
    a, b, c = listed(data)
    assert a == ("a.jpg", ("a2", "a1"), 0, "near-domain")
    assert (b, c) == (("b.jpg", ("b1",), 1, "in-domain"), ("c.jpg", ("c1",), 2, "near-domain"))
    assert data.layout == f"nocaps/{NOCAPS} (COCO's form), images in nocaps/val"
    assert listed(find_part("nocaps/in", tmp_path, split="val")) == [b]
    assert listed(find_part("NoCaps_near-domain", tmp_path)) == [a, c]
    refused(ValueError, "no image has the domain 'out-domain', found: in-domain, near-domain", "nocaps/out", tmp_path)


def test_the_converted_nocaps_lists(tmp_path):
    for number, (domain, file) in enumerate(NOCAPS_LISTS.items()):
        entries = [{"image": f"{domain}.jpg", "caption": ["x", domain], "image_id": 10 + number}]
        write(tmp_path / "nocaps" / file, entries)
        touch(tmp_path / "nocaps/val", f"{domain}.jpg")
    found = [(f"{d}.jpg", ("x", d), 10 + number, d) for number, d in enumerate(NOCAPS_LISTS)]
    assert listed(find_part("nocaps/near-domain", tmp_path)) == [found[1]]
    data = find_part("nocaps", tmp_path)
    assert (listed(data), data.root, data.annotations) == (found, tmp_path / "nocaps/val", tmp_path / "nocaps")
    assert all(file in data.layout for file in NOCAPS_LISTS.values()) and "\n" not in data.layout

    repeated = [{"image": "near-domain.jpg", "caption": ["x"], "image_id": 10}]
    write(tmp_path / "nocaps" / NOCAPS_LISTS["in-domain"], repeated)
    refused(ValueError, r"nocaps: 1 images are listed more than once \(near-domain\.jpg\)", "nocaps", tmp_path)
    (tmp_path / "nocaps" / NOCAPS_LISTS["out-domain"]).unlink()
    said = r"nocaps/out-domain, split test: no annotation file; tried:(.*\n)* .*1413_out"
    refused(FileNotFoundError, said, "nocaps", tmp_path)


def test_demo_scenes(tmp_path):
    scenes = tmp_path / "demo_scenes/low-light"
    for split in ("train", "test"):
        write(scenes / f"annotations/{split}.json", [{"image": f"images/{split}.png", "caption": [split]}])
        touch(scenes, f"images/{split}.png")
        data = find_captions("Demo-Scenes/low-light", tmp_path, split=split)
        assert (data.name, data.root) == ("demo_scenes/low-light", scenes)
        assert listed(data) == [(f"images/{split}.png", (split,), split, None)]
    said = r"clean/annotations/test\.json\nstyles there: low-light; .*quickstart"
    refused(FileNotFoundError, said, "demo_scenes/clean", tmp_path)
    refused(ValueError, "has no split 'val'; choose one of test, train", "demo_scenes/low-light", tmp_path, split="val")
    refused(ValueError, "expected demo_scenes/<style>", "demo_scenes/../..", tmp_path)


def test_the_first_layout_wins_and_its_own_images_come_first(tmp_path):
    write(tmp_path / "coco/annotations/coco_karpathy_test.json", COCO_LIST[:1])
    touch(tmp_path / "coco/images", COCO_A)
    touch(tmp_path / "coco2014", COCO_A)
    assert find_part("coco", tmp_path).root == tmp_path / "coco/images"
    write(tmp_path / "coco2014/dataset_coco.json", karpathy(("test", "val2014", COCO_A[8:], ["k"])))
    assert find_part("coco", tmp_path).images[0].captions == ("k",)
    write(tmp_path / "coco2014/coco_karpathy_test.json", [{"image": COCO_A, "caption": ["list"]}])
    assert find_part("coco", tmp_path).images[0].captions == ("list",)


@pytest.mark.parametrize(("content", "found"), [
    ([{"image": "a.jpg", "caption": ["x", "x"], "image_id": "k1"}], [("a.jpg", ("x", "x"), "k1", None)]),
    ([{"image": "sub/a_7.jpg", "caption": ["x"], "image_id": True}], [("sub/a_7.jpg", ("x",), "a_7", None)]),
    ([{"image": "a.jpg", "caption": "x"}, {"image": "a.jpg", "caption": "y"}], [("a.jpg", ("x", "y"), "a", None)]),
    (karpathy(("test", "sub", "a.jpg", ["x"])), [("sub/a.jpg", ("x",), 100, None)]),
    (coco_form((5, "a.jpg", ["x"]), (4, "b.jpg", ["z"])), [("a.jpg", ("x",), 5, None), ("b.jpg", ("z",), 4, None)]),
    (coco_form((5, "a.jpg", ["x"]), domain="in-domain"), [("a.jpg", ("x",), 5, "in-domain")]),
    ('\ufeff[{"image": "é.jpg", "caption": ["Ä"]}]', [("é.jpg", ("Ä",), "é", None)]),
])  # fmt: skip
def test_own_files_in_every_form(tmp_path, content, found):
    data = own(tmp_path, content, *(image for image, *_ in found))
    assert (data.name, data.root, listed(data)) == ("mine", tmp_path / "pictures", found)


def test_own_paths_are_absolute_or_relative_to_the_working_directory_or_the_data_root(tmp_path, monkeypatch):
    work, data = tmp_path / "work", tmp_path / "data"
    for folder in (work, data):
        write(folder / "mine.json", [{"image": "a.jpg", "caption": [folder.name]}])
        touch(folder, "a.jpg")

    def found(data_root: Path, **files: str) -> tuple[tuple[str, ...], Path]:
        captions = find_captions("mine", data_root, CaptionFiles(**files))
        return captions.images[0].captions, captions.root

    assert found(data, annotations="mine.json") == (("data",), data)
    monkeypatch.chdir(work)
    assert found(data, annotations="mine.json") == (("work",), work)
    assert found(tmp_path, annotations=str(data / "mine.json"), images=str(work)) == (("data",), work)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert found(Path("~/data"), annotations="mine.json") == (("data",), data)
    said = r"not found; tried: /no/x\.json; give an existing path"
    refused(FileNotFoundError, said, "mine", tmp_path, annotations="/no/x.json")
    with pytest.raises(ValidationError, match="Extra inputs"):
        CaptionFiles(annotations="mine.json", image="a")


def test_own_split_of_a_karpathy_file(tmp_path):
    """The faults of another split do not matter."""
    content = karpathy(("test", "", "a.jpg", ["x"]), ("dev", "", "b.jpg", ["y"]), ("train", "", "gone.jpg", [""]))
    assert [image.id for image in own(tmp_path, content, "a.jpg", "b.jpg").images] == ["a.jpg"]
    assert [image.id for image in own(tmp_path, content, split="dev").images] == ["b.jpg"]
    said = r"'val' is not in the file, found: test \(1 images\), dev \(1 images\), train \(1 images\)"
    with pytest.raises(ValueError, match=said):
        own(tmp_path, content, split="val")


def test_equal_file_names_are_never_taken_for_one_image(tmp_path):
    content = [{"image": f"{folder}/1.jpg", "caption": [folder]} for folder in "ab"]
    said = r"lists 2 images, none of them is on disk; tried, for example:\n .*pictures/a/1\.jpg\nunpack"
    with pytest.raises(FileNotFoundError, match=said):
        own(tmp_path, content, "1.jpg")
    assert [image.path.parent.name for image in own(tmp_path, content, "a/1.jpg", "b/1.jpg").images] == ["a", "b"]
    with pytest.raises(ValueError, match=r"listed more than once \(a/1.jpg\)"):  # under two spellings
        own(tmp_path, [{"image": name, "caption": ["a"]} for name in ("a/1.jpg", "./a/1.jpg")])


def test_fingerprint_sees_ids_captions_and_their_order_only(tmp_path):
    a, b = {"image": "a.jpg", "caption": ["x", "y"]}, {"image": "b.jpg", "caption": ["z"]}
    first = captions_fingerprint(own(tmp_path, [a, b], "a.jpg", "b.jpg"))
    assert first == "8235f0c697aaaba454024ad4322fbe2e01b7c12bde8040f81ef7f3aef285fa4a"
    single = [{"image": e["image"], "caption": caption} for e in (a, b) for caption in e["caption"]]
    assert captions_fingerprint(own(tmp_path, single)) == first
    for other in ([b, a], [a, b | {"caption": ["z "]}], [a | {"caption": ["y", "x"]}, b], [a | {"caption": ["xy"]}, b]):
        assert captions_fingerprint(own(tmp_path, other)) != first


@pytest.mark.parametrize(("expected", "names"), [
    ("coco", ["COCO", "ms-coco", "mscoco", "coco2014", "Coco-Karpathy"]),
    ("flickr30k", ["Flickr30k", "flickr", "F30K", "flickr-30k"]),
    ("nocaps/in-domain", ["nocaps/in", "nocaps/in-domain", "nocaps_in", "nocaps-IN-domain", "nocaps/in_domain"]),
    ("nocaps/out-domain", ["nocaps_out_domain"]),
    ("demo_scenes/clean", ["demo_scenes/clean", " Demo-Scenes/Clean "]),
    (None, ["mine", "nocaps/far", "coco/test"]),
])  # fmt: skip
def test_names_in_any_case(expected, names):
    assert {canonical_name(name) for name in names} == {expected}


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("coco_captons", "coco"), ("flikr30k", "flickr30k"), ("nocaps/inn", "nocaps/in-domain"), ("demo_scene", "demo_s")],
)
def test_unknown_names(tmp_path, name, nearest):
    said = rf"unknown data set '{name}'; nearest: '{nearest}.*valid: coco, .*demo_scenes"
    refused(ValueError, said, name, tmp_path)
    with pytest.raises(ValueError, match=said):
        find_layout(name)


def test_published_sizes_add_up():
    sizes = {name: {split: size.num_captions for split, size in LAYOUTS[name].published.items()} for name in LAYOUTS}
    assert sum(sizes["coco"].values()) == 414_113 + 202_654  # captions_train2014.json and captions_val2014.json
    assert sum(sizes["flickr30k"].values()) == 5 * 31_014  # the images of dataset_flickr30k.json
    assert sum(sizes[f"nocaps/{domain}"]["test"] for domain in NOCAPS_LISTS) == sizes["nocaps"]["val"] == 45_000


@pytest.mark.parametrize("name", ["coco", "flickr30k", "nocaps", "nocaps/in-domain"])
def test_a_missing_annotation_file_names_every_path_tried(tmp_path, name):
    said = f"data set {name}, split test: no annotation file; tried:\n"
    message, layout = refused(FileNotFoundError, said, name, tmp_path), LAYOUTS[name]
    tried = [f"{folder}/{file.format(split='test')}" for folder in layout.folders for file in layout.annotation_files]
    assert len(tried) >= 4
    assert all(str(tmp_path / path) in message for path in tried) and layout.source in message
    refused(FileNotFoundError, r"there is no data root .*nowhere; get the data", name, tmp_path / "nowhere")


@pytest.mark.parametrize(("name", "split", "files", "kind", "said"), [
    ("coco", "dev", {}, ValueError, "data set coco has no split 'dev'; choose one of test, val, train"),
    ("mscoco", "test", {}, ValueError, r"'mscoco' is built in \(coco\); drop dataset_files"),
    ("mine", "test", {"annotations": "x.json"}, FileNotFoundError,
     r"dataset_files\.annotations=x\.json not found; tried: .*, .*x\.json"),
    ("mine", "test", {"annotations": "folder"}, ValueError, "expected a file with captions, got the folder"),
    ("mine", "test", {"images": "a.jpg"}, ValueError, "expected a folder, got the file"),
])  # fmt: skip
def test_faulty_settings(tmp_path, name, split, files, kind, said):
    touch(tmp_path, "mine.json", "a.jpg", "folder/a.jpg")
    if name in ("mine", "mscoco"):
        files = {"annotations": "mine.json"} | files
    refused(kind, said, name, tmp_path, split, **files)


GOOD = {"image": "a.jpg", "caption": ["x"]}
ONE = {"image": "a.jpg", "caption": "x"}


@pytest.mark.parametrize(("content", "message"), [
    (b"", r"mine\.json: the file is empty \(0 bytes\)"),
    (b'[{"image": ', "not valid json in utf-8"),
    (b'[{"image": "a.jpg", "caption": ["\xe4"]}]', r"mine\.json: not text in UTF-8 .*iconv -f latin1"),
    (b"[" * 200_000, "not valid json in utf-8"),
    (b"\xff\xfe[\0", "iconv -f utf-16 -t utf-8"),
    (b"version https://git-lfs.github.com/spec/v1", "is a git-lfs pointer"),
    ({"a.jpg": ["x"], "b.jpg": ["y"]}, r"found {'a.jpg': \['x'\], 'b.jpg': \['y'\]} \(dict\), which is no known form"),
    ([{"img": "a.jpg", "text": "x"}], r"{'img': 'a\.jpg', 'text': 'x'}\] \(list\), which .*; known forms: a list of {"),
    (["a.jpg"] * 10**6, r"found \['a\.jpg', 'a\.jpg', \.\.\.\] \(list\), which"),
    ({"images": [], "annotations": []}, r"found {'annotations': \[\], 'images': \[\]} \(dict\)"),
    ({"images": [{"id": 1}], "annotations": [{"bbox": []}]}, r"found {'annotations': \[{'bbox': \[\]}\], 'images'"),
    ([], "the file lists no images"),
    ([GOOD, {"caption": ["y"]}], r"entry 1 has no image \(got None \(NoneType\)\), expected its path"),
    ([GOOD, {"image": "b.jpg", "caption": []}], r"entry 1 \(b\.jpg\) has no captions"),
    ([ONE, {"image": "b.jpg"}], r"entry 1 \(b\.jpg\) has no captions"),
    ([GOOD, "b.jpg"], r"entry 1 of the list is 'b\.jpg' \(str\), expected an object"),
    ([GOOD, {"image": "b.jpg", "caption": ["y", ""]}], r"entry 1 \(b\.jpg\): an empty caption \(''\)"),
    ([GOOD, {"image": "b.jpg", "caption": "y"}], r"entry 1 \(b\.jpg\): caption is 'y' \(str\), expected a list"),
    ([{"image": "b.jpg", "caption": ["x", None]}], r"a caption is None \(NoneType\), expected a text"),
    ([ONE, GOOD | {"image": "b.jpg"}], r"entry 1 \(b\.jpg\): a caption is \['x'\] \(list\), expected a text"),
    ([GOOD, GOOD], r"1 images are listed more than once \(a\.jpg\), expected one entry per image"),
    (karpathy(("test", "", "a.jpg", []), ("val", "", "b.jpg", ["y"])), r"entry 0 \(a\.jpg\) has no captions"),
    ({"images": [{"split": "test", "filename": "a.jpg", "sentences": "x"}]}, r"caption is 'x' \(str\)"),
    ({"images": [{"filename": "a.jpg", "sentences": []}]}, r"'test' is not in the file, found: None \(1"),
    (coco_form((1, "a.jpg", ["x"]), (2, "b.jpg", [])), r"entry 1 \(b\.jpg\) has no captions"),
    (coco_form((1, "a.jpg", ["x"]), (1, "b.jpg", ["y"])), r"listed more than once \(1\)"),
    (coco_form((None, "a.jpg", ["x"])), "entry 0 of images has no id"),
    (coco_form((1, "a.jpg", ["x"])) | {"images": []}, r"captions without images: 1 values of image_id .*\(1\)"),
    ({"images": [{"id": 1}, 5], "annotations": [{"caption": "x", "image_id": 1}]}, "entry 1 of images is 5"),
])  # fmt: skip
def test_faulty_files(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        own(tmp_path, content, "a.jpg", "b.jpg")


def test_a_full_test_set_counts_and_is_known_by_its_md5(tmp_path, monkeypatch, caplog):
    content = [*COCO_LIST, {"image": COCO_A.replace("5.jpg", "6.jpg"), "caption": ["b"]}]
    file = write(tmp_path / "coco2014/coco_karpathy_test.json", content)
    touch(tmp_path / "coco2014", *(item["image"] for item in content))
    listings, list_folder = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listings.append(folder.name) or list_folder(folder))
    digest = hashlib.md5(file.read_bytes()).hexdigest()
    monkeypatch.setitem(LAYOUTS["coco"].md5, "test", digest)
    monkeypatch.setitem(LAYOUTS["coco"].published, "test", Counts(3, 9))
    data = find_captions("coco", tmp_path)
    assert sorted(listings) == ["train2014", "val2014"]  # once for the folder, not once for each image
    assert data.counts == data.published == (3, 9) and (caplog.text, data.faults) == ("", ())
    changed = rf"coco_karpathy_test\.json: its md5 is [0-9a-f]{{32}}, the published file's is {digest}; get the orig.*"
    write(file, content[::-1])
    refused(ValueError, f"^[^\n]*{changed}{GO_ON}", "coco", tmp_path)
    write(file, COCO_LIST)
    counted = "lists 2 images and 8 captions, published are 3 and 9; get the original file from htt.*"
    refused(ValueError, f"{counted}\n.*{changed}{GO_ON}", "coco", tmp_path)
    partial = find_part("coco", tmp_path)
    assert (partial.counts, partial.published) == ((2, 8), (3, 9))
    assert "published are 3 and 9" in caplog.text and "its md5 is" in caplog.text


def test_missing_images_name_every_root_and_may_be_left_out(tmp_path, monkeypatch, caplog):
    write(tmp_path / "coco/annotations/coco_karpathy_test.json", COCO_LIST)
    monkeypatch.setitem(LAYOUTS["coco"].published, "test", Counts(2, 8))
    monkeypatch.delitem(LAYOUTS["coco"].md5, "test")
    message = refused(FileNotFoundError, "lists 2 images, none of them", "coco", tmp_path)
    assert all(str(tmp_path / root / COCO_A) in message for root in ("coco", "coco/images", "coco2014"))
    touch(tmp_path / "coco/images", COCO_B)
    missing = rf"1 of 2 listed images are missing on disk \({COCO_A}\); tried .*; unpack the images again"
    message = refused(FileNotFoundError, missing + GO_ON, "coco", tmp_path)
    assert all(str(tmp_path / root) in message for root in ("coco/images", "coco2014/images"))
    data = find_part("coco", tmp_path)
    assert listed(data) == [(COCO_B, ("Ä cat",) * 6, 9, None)]
    assert (data.counts, data.published, len(data.faults)) == ((1, 6), (2, 8), 1)
    assert "1 of 2 listed images are missing" in caplog.text


TOLD = ["A red dog, barking.", 'It says "red".', "Two dogs\nin two lines."]


@pytest.fixture
def known(tmp_path, monkeypatch) -> CaptionedImages:
    """Flickr's and COCO's sets in Karpathy's form: two test images and one of the training set."""
    for name, folder, stem in [("flickr30k", "", "{}"), ("coco", "val2014", "COCO_val2014_{:012}")]:
        files = [f"{stem.format(number)}.jpg" for number in (1007, 1008, 1009)]
        images = [(split, folder, file, TOLD[:2]) for split, file in zip(("test", "train", "test"), files, strict=True)]
        root = tmp_path / LAYOUTS[name].folders[0]
        write(root / f"dataset_{name}.json", karpathy(*images))
        touch(root / folder, *files)
    return {name: find_part(name, tmp_path) for name in ("flickr30k", "coco")}


FLICKR = [(f"{number}.jpg", text) for number in (1009, 1008, 1007) for text in TOLD[:2]]
COCO_FORM = coco_form(*((number, f"COCO_val2014_{number:012}.jpg", TOLD[:2]) for number in (1009, 1008, 1007)))
BARS = ["image_name| comment_number| comment", *(f"{image}| {n % 2}| {text}" for n, (image, text) in enumerate(FLICKR))]


@pytest.mark.parametrize(("name", "file", "content"), [
    ("flickr30k", "results_20130124.token", "".join(f"{image}#0\t{text}\n" for image, text in FLICKR)),
    ("flickr30k", "results.csv", "\r\n".join(BARS).replace("1008.jpg| 1|", "1008.jpg| 1 ")),  # Kaggle's lost bar
    ("coco", "captions_val2014.json", COCO_FORM),
])  # fmt: skip
def test_tables_and_cocos_own_file_with_karpathys_list(tmp_path, known, name, file, content):
    folder = tmp_path / LAYOUTS[name].folders[0]
    (folder / f"dataset_{name}.json").rename(tmp_path / "karpathy.json")
    write(folder / file, content)
    said = r"which are the test set; put Karpathy's list .* karpathy_test_images.txt"
    refused(FileNotFoundError, said, name, tmp_path)
    write(folder / "karpathy_test_images.txt", "COCO_val2014_000000001007.jpg 1007\n1009\n")
    found = find_part(name, tmp_path)
    assert listed(found)[0][:2] == listed(known[name])[0][:2]
    assert captions_fingerprint(found) == captions_fingerprint(known[name])
    write(folder / "karpathy_test_images.txt", "1007\n12345\n")
    refused(ValueError, r"1 images are not in .* \(12345\)", name, tmp_path)


def test_karpathys_zip(tmp_path, known):
    file = tmp_path / "coco2014/dataset_coco.json"
    with zipfile.ZipFile(tmp_path / "coco2014/caption_datasets.zip", "w") as archive:
        archive.write(file, file.name)
    file.unlink()
    assert captions_fingerprint(find_part("coco", tmp_path)) == captions_fingerprint(known["coco"])
    (tmp_path / "flickr30k/dataset_flickr30k.json").unlink()
    os.link(tmp_path / "coco2014/caption_datasets.zip", tmp_path / "flickr30k/caption_datasets.zip")
    refused(ValueError, "is no zip archive that holds dataset_flickr30k.json", "flickr30k", tmp_path)


def test_a_table_between_commas(tmp_path):
    quoted = "".join('a.jpg,"{}"\r\n'.format(text.replace('"', '""')) for text in TOLD)
    touch(tmp_path, "a.jpg")
    file = write(tmp_path / "captions.txt", f"image,caption\r\n{quoted}")
    files = {"annotations": "captions.txt"}
    assert find_captions("flickr8k", tmp_path, CaptionFiles(**files)).images[0].captions == tuple(TOLD)
    for content, said in {"image,caption\na.jpg,a, b\n": "row 2 has not 2 columns", "a,b,c\n": "first line"}.items():
        write(file, content)
        refused(ValueError, said, "flickr8k", tmp_path, **files)
