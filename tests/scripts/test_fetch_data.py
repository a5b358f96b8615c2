"""Whole data sets from a server of our own: unpacked where runs look, after cuts and kills too, never over anything."""

import hashlib
import io
import re
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.datasets import imagenet

from classification.data.class_names import wnids
from scripts.fetch import data
from tests import miniatures
from tests.file_server import Server
from tests.miniatures import write
from tests.whole_runs import die_at

SETS = {  # what is packed how, and the folder under the data root that it is packed from
    "imagenet_a": ("a.tar", "imagenet-a", ""),
    "dtd": ("dtd.tar.gz", "dtd", ""),
    "caltech101": ("caltech-101.zip", "caltech-101", ""),  # its images in an archive inside
    "coco": ("val2014.zip", "coco2014/val2014", "coco2014"),
    "imagenet_c/fog/3": ("fog.tar", "imagenet-c/fog/3", "imagenet-c"),
}
FILE = "coco2014/annotations/coco_karpathy_test.json"


def tree(root: Path, pattern: str = "*") -> dict[str, bytes]:
    """Every file's content, but for downloads'."""
    files = [path for path in root.rglob(pattern) if path.is_file() and "downloads" not in path.parts]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def pack(name: str, files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(stream, "w") as archive:
            for path, content in files.items():
                archive.writestr(path, content)
        return stream.getvalue()
    with tarfile.open(fileobj=stream, mode="w:gz" if name.endswith("gz") else "w") as tar:
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def site(server: Server, miniature: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The archives on the server, a manifest of them, and the files of each set as they should lie in the end."""
    miniatures.as_published(monkeypatch, miniature / "data")
    manifest = {}
    for name, (archive, folder, into) in SETS.items():
        whole = tree(miniature / "data" / folder)
        files = {f"{folder.removeprefix(into).lstrip('/')}/{path}": content for path, content in whole.items()}
        if name == "caltech101":
            inner = {path.split("/", 1)[1]: content for path, content in files.items() if "101_Object" in path}
            files = {path: content for path, content in files.items() if "101_Object" not in path}
            files |= {"caltech-101/images.tar.gz": pack("i.tar.gz", inner), "__MACOSX/._images.tar.gz": b"x"}
        server.files[f"/{archive}"] = pack(archive, files)
        item = {"address": f"{server.address}/{archive}", "into": into}
        manifest[name.split("/")[0]] = [[{"file": FILE}, item] if name == "coco" else [item]]
    content = (miniature / "data" / FILE.replace("annotations/", "")).read_bytes()
    server.files["/test.json"] = content
    monkeypatch.setattr(data, "MANIFEST", write(root / "manifest.yaml", manifest))
    coco = [replace(f, address=f"{server.address}/test.json", checksum=None) for f in data.FILES if f.path == FILE]
    monkeypatch.setattr(data, "FILES", coco)
    return manifest


def change(tmp_path: Path, manifest: dict, name: str, *sources: list[dict]) -> None:
    write(tmp_path / "manifest.yaml", manifest | {name: list(sources)})


@pytest.mark.parametrize("name", SETS)
def test_a_set_after_two_cuts(name, site, server, tmp_path, miniature, capsys):
    archive, folder, _ = SETS[name]
    server.cuts, server.cut_at = 2, 1000
    assert data.main([name]) == 0, capsys.readouterr().err
    shown = capsys.readouterr().err
    assert f"{len(server.files[f'/{archive}']):,} bytes to go" in shown and f"whole: {name}" in shown
    found = tree(tmp_path / "data")
    wanted = {f"{folder}/{path}": content for path, content in tree(miniature / "data" / folder).items()}
    assert found == wanted | ({FILE: server.files["/test.json"]} if name == "coco" else {})
    assert {"bytes=1000-", "bytes=2000-"} <= set(server.ranges)
    asked = len(server.ranges)
    assert data.main([name]) == 0 and len(server.ranges) == asked and tree(tmp_path / "data") == found
    assert not list((tmp_path / "data/downloads/fetched").iterdir())


@pytest.mark.parametrize(("owner", "call"), [(tarfile.TarFile, "_extract_member"), (Path, "rename")])
def test_killed_in_the_middle_of_unpacking_it_gives_the_same_tree(owner, call, site, server, tmp_path, miniature):
    die_at(owner, call, 50, lambda: data.main(["imagenet_a"]))
    assert data.main(["imagenet_a"]) == 0 and server.ranges == [None], "the archive was kept"
    assert {f"imagenet-a/{path}" for path in tree(miniature / "data/imagenet-a")} == set(tree(tmp_path / "data"))


EVIL = {"../evil.txt": b"x"}


@pytest.mark.parametrize(
    ("sent", "item", "sentence"),
    [
        (b"<html>", {"checksum": "sha256:0"}, "sends has sha256 [0-9a-f]{64}, expected 0"),
        (b"<html>", {}, "is broken .*; delete it, and give the command again"),
        (pack("a.tar", {"other/1.jpg": b"x"}), {}, "holds other, which is not imagenet_a"),
        (pack("a.tar", EVIL), {}, "outside the destination; get it from elsewhere"),
        (pack("a.zip", EVIL), {}, "holds ../evil.txt, outside of its own folder"),
        (b"", {"address": None, "name": "a.tar", "by_hand": "a form"}, "a.tar takes a person: get it a form; put it"),
        (b"", {"address": "http://127.0.0.1:9/a.tar"}, "Connection refused"),
        (b"x", {"size": 10**18}, "no space in .*: .* bytes are needed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_fails_is_said_and_the_next_set_is_fetched(sent, item, sentence, site, server, tmp_path, capsys):
    server.files["/a.tar"] = sent
    change(tmp_path, site, "imagenet_a", [{"address": f"{server.address}/a.tar", **item}])
    assert data.main(["imagenet_a", "dtd"]) == 1
    error = capsys.readouterr().err
    assert re.search(f"missing: imagenet_a .*{sentence}", error), error
    assert "Traceback" not in error and {path.split("/")[0] for path in tree(tmp_path)} == {"data", "manifest.yaml"}
    assert {path.split("/")[0] for path in tree(tmp_path / "data")} == {"dtd"}


def test_the_second_source_and_what_was_put_there_by_hand(site, server, tmp_path):
    whole = server.files.pop("/a.tar")
    change(tmp_path, site, "imagenet_a", *site["imagenet_a"], [{"address": f"{server.address}/b.tar"}])
    write(tmp_path / "data/downloads/b.tar", "").write_bytes(whole)
    assert data.main(["imagenet_a"]) == 0 and server.ranges == [None]
    assert (tmp_path / "data/downloads/b.tar").read_bytes() == whole


def test_the_checksum_of_the_first_download_counts(site, server, tmp_path, capsys):
    assert data.main(["dtd"]) == 0
    (tmp_path / "data/dtd").rename(tmp_path / "elsewhere")
    server.files["/dtd.tar.gz"] += b"x"
    assert data.main(["dtd"]) == 1
    assert "expected" in capsys.readouterr().err


def test_a_folder_with_another_set_is_left_alone(site, server, tmp_path, capsys):
    write(tmp_path / "data/imagenet-a/n99999999/1.jpg", "x")
    assert data.main(["imagenet_a"]) == 1 and server.ranges == []
    assert "wrong: " in (error := capsys.readouterr().err) and "move it away to have the set fetched" in error


def test_imagenet_is_sorted_by_its_devkit(site, server, tmp_path, monkeypatch):
    names = wnids("imagenet")[::-1]
    images = pack("v.tar", {f"ILSVRC2012_val_{number:08}.JPEG": b"x" for number in range(1000)})
    monkeypatch.setitem(imagenet.ARCHIVE_META, "val", ("", hashlib.md5(images).hexdigest()))
    monkeypatch.setattr(data, "parse_devkit_archive", lambda to, _: torch.save(({}, names), to / "meta.bin"))
    for name, content in {"val.tar": images, "devkit.tar": b"x"}.items():
        write(tmp_path / "data/downloads" / name, "").write_bytes(content)
    change(tmp_path, site, "imagenet", [{"name": "val.tar"}, {"name": "devkit.tar"}])
    assert data.main(["imagenet"]) == 0
    assert (tmp_path / "data/ImageNet/val" / names[0] / "ILSVRC2012_val_00000000.JPEG").is_file()
