"""nocaps' images as a list of addresses."""

import json
from pathlib import Path

import pytest

from clipscore.data.caption_sets import find_captions
from scripts import nocaps
from tests.commands import python

DOMAINS = ("in-domain", "near-domain", "out-domain", "near-domain")
ADDRESSES = [f"https://s3.amazonaws.com/nocaps/val/{number}.jpg" for number in range(4)]


@pytest.fixture
def data_root(tmp_path, monkeypatch) -> Path:
    """The official file's form, with four images in three domains; none is there."""
    images = [
        {"id": number, "file_name": f"{number}.jpg", "coco_url": ADDRESSES[number], "domain": domain,
         "open_images_id": f"{number}", "license": 0, "width": 8, "height": 8, "date_captured": "2018-11-06 11:04:33"}
        for number, domain in enumerate(DOMAINS)
    ]  # fmt: skip
    captions = [{"id": number, "image_id": number % 4, "caption": f"caption {number}"} for number in range(40)]
    (tmp_path / "nocaps").mkdir()
    content = {"licenses": [], "info": {}, "images": images, "annotations": captions}
    (tmp_path / "nocaps/nocaps_val_4500_captions.json").write_text(json.dumps(content))
    monkeypatch.setenv("RLCF_DATA", str(tmp_path))
    return tmp_path


def test_the_list_is_of_what_is_missing_and_then_a_run_finds_its_domain(data_root, tmp_path, capsys):
    (data_root / "nocaps/val").mkdir()
    (data_root / "nocaps/val/1.jpg").write_bytes(b"x")
    (data_root / "nocaps/val/2.jpg").write_bytes(b"")  # a download that was cut off
    listing = tmp_path / "list.txt"
    assert nocaps.main(["--missing", "--images", str(listing)]) == 0
    assert listing.read_text().splitlines() == [ADDRESSES[0], ADDRESSES[2], ADDRESSES[3]]
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.splitlines() == [
        "in-domain: 1 of 1 images listed", "near-domain: 1 of 2 images listed", "out-domain: 1 of 1 images listed",
    ]  # fmt: skip
    for address in listing.read_text().splitlines():
        (data_root / "nocaps/val" / Path(address).name).write_bytes(b"x")
    assert nocaps.main(["--missing"]) == 0 and capsys.readouterr().out == ""
    found = find_captions("nocaps/near-domain", data_root, partial=True)
    assert [image.id for image in found.images] == ["1.jpg", "3.jpg"]


def test_one_domain_as_a_process(data_root):
    done = python("scripts.nocaps", "--domain", "near-domain")
    assert done.returncode == 0 and done.stdout.splitlines() == [ADDRESSES[1], ADDRESSES[3]]


ENTRY = '{"images": [{"file_name": "1.jpg", "domain": "in-domain"%s}]}'


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("{", "not valid json"),
        ("[]", "no list of images"),
        (ENTRY % "", "image 0 lacks one of file_name, coco_url"),
        (ENTRY % ', "coco_url": "https://a/2.jpg"', "ends in the name"),
    ],
)
def test_another_file_is_refused(data_root, capsys, content, fault):
    (data_root / "nocaps/nocaps_val_4500_captions.json").write_text(content)
    assert nocaps.main([]) == 2
    assert fault in capsys.readouterr().err


def test_no_file_names_the_places_and_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RLCF_DATA", str(tmp_path))
    assert nocaps.main([]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "nocaps/annotations/nocaps_val_4500_captions.json") in error
    assert "bash scripts/fetch_pretrained.sh nocaps --annotations" in error
