"""Fetching files from a server of our own: fresh, after a cut, wrong, there already, and without a connection."""

import hashlib
import json
import os
import re
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.fetch import __main__ as fetch_pretrained
from scripts.fetch.manifest import RemoteFile
from tests.file_server import CUT_AT
from tests.scripts.test_fetch_data import pack
from tests.whole_runs import end_of, fork

CONTENT = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def weights(server, root, monkeypatch) -> RemoteFile:
    """One file of weights, alone in the manifest and on the server."""
    server.files["/a.pt"] = CONTENT
    file = RemoteFile(
        "clip", "clip/a.pt", "https://page", f"{server.address}/a.pt", "every row", len(CONTENT),
        f"sha256:{hashlib.sha256(CONTENT).hexdigest()}", other_paths=("a.pt",),
    )  # fmt: skip
    monkeypatch.setattr(fetch_pretrained, "FILES", (file,))
    return file


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def part(root) -> Path:
    """Where a download is written first."""
    (root / "pretrained/clip").mkdir(parents=True)
    return root / "pretrained/clip/a.pt.part"


def test_a_fresh_download_and_a_second_call_and_a_file_at_another_place(weights, server, root, capsys):
    assert fetch_pretrained.main([]) == 0
    target = root / "pretrained/clip/a.pt"
    assert target.read_bytes() == CONTENT and names_in(root) == {"pretrained/clip/a.pt"}
    assert f"fetched: {target}" in capsys.readouterr().err
    before = target.stat()
    assert fetch_pretrained.main([]) == 0
    assert len(server.ranges) == 1 and target.stat() == before
    assert f"whole: {target}" in capsys.readouterr().err
    target.rename(root / "pretrained/a.pt")
    assert fetch_pretrained.main([]) == 0 and len(server.ranges) == 1


@pytest.mark.parametrize(
    ("size", "knows_ranges", "asks_again"),
    [(5000, True, False), (5000, False, False), (len(CONTENT), True, False), (len(CONTENT) + 1, True, True)],
)
def test_it_goes_on_with_a_part_of_an_earlier_call(weights, server, part, size, knows_ranges, asks_again):
    server.knows_ranges = knows_ranges
    part.write_bytes((CONTENT + b"x")[:size])
    assert fetch_pretrained.main([]) == 0
    assert server.ranges == [f"bytes={size}-", *[None] * asks_again]
    assert part.with_suffix("").read_bytes() == CONTENT and not part.exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 128 + 15), (signal.SIGKILL, -9)])
def test_it_goes_on_after_a_signal(weights, server, part, number, code):
    server.cuts = 1
    server.stalls.set()
    child = fork(lambda: fetch_pretrained.main([]))
    while not part.exists() or part.stat().st_size < CUT_AT:
        time.sleep(0.01)
    assert fetch_pretrained.main([]) == 1  # a second process does not touch the part
    os.kill(child, number)
    assert end_of(child) == code
    server.stalls.clear()
    assert fetch_pretrained.main([]) == 0
    assert server.ranges[-1] == f"bytes={CUT_AT}-" and part.with_suffix("").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("sent", "fault"),
    [(CONTENT[:-1] + b"x", "has sha256 [0-9a-f]{64}, expected"), (b"<html>", "has 6 bytes, expected")],
)
def test_what_is_not_the_file_is_not_installed(weights, server, root, capsys, sent, fault):
    server.files["/a.pt"] = sent
    assert fetch_pretrained.main([]) == 1
    error = capsys.readouterr().err
    assert re.search(f"what {weights.address} sends {fault}", error) and names_in(root) == set()
    assert f"copy it to {root / 'pretrained/clip/a.pt'}" in error


@pytest.mark.parametrize("content", [b"", CONTENT[:-1] + b"x", None])
def test_a_wrong_file_that_is_there_is_named_and_left_alone(weights, server, root, part, capsys, content):
    target = part.with_suffix("")
    target.mkdir() if content is None else target.write_bytes(content)
    assert fetch_pretrained.main([]) == 1
    assert server.ranges == [] and (target.is_dir() if content is None else target.read_bytes() == content)
    assert f"wrong: {target} " in capsys.readouterr().err


def test_without_a_connection_each_file_is_named_with_its_place(weights, root, monkeypatch, capsys):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/a.pt"
    files = (replace(weights, address=address), replace(weights, address=address, path="clip/b.pt"))
    monkeypatch.setattr(fetch_pretrained, "FILES", files)
    assert fetch_pretrained.main([]) == 1
    lines = capsys.readouterr().err.splitlines()
    for line, name in zip(lines, ("clip/a.pt", "clip/b.pt"), strict=False):
        assert line.startswith(f"missing: {name} (") and f"get {address}" in line
        assert f"1,048,576 bytes, sha256 {weights.checksum.split(':')[1]}" in line
        assert line.endswith(f"copy it to {root / 'pretrained' / name}")
    assert lines[2:] == ["0 of 2 files are whole"] and names_in(root) == set()


def test_what_asks_for_no_download(weights, server, root, monkeypatch, capsys):
    assert fetch_pretrained.main(["--check"]) == 1
    assert fetch_pretrained.main(["clop"]) == 2
    assert "no file or group 'clop'; nearest: clip; groups: clip;" in capsys.readouterr().err
    monkeypatch.setattr(fetch_pretrained, "FILES", (replace(weights, address=None, by_hand="unpack it"),))
    assert fetch_pretrained.main([]) == 1
    assert "by hand: see https://page; unpack it; it belongs at" in capsys.readouterr().err
    assert server.ranges == [] and names_in(root) == set()


def test_annotations_go_to_the_data_folder_only_on_demand(server, root, monkeypatch, capsys):
    server.files["/c.json"] = json.dumps([1]).encode()
    file = RemoteFile(
        "coco", "coco2014/annotations/c.json", "https://page", f"{server.address}/c.json", "Table 2",
        other_paths=("coco2014/c.json", "coco/annotations/c.json"), is_annotation=True,
    )  # fmt: skip
    monkeypatch.setattr(fetch_pretrained, "FILES", (file,))
    assert fetch_pretrained.main(["coco"]) == 1
    assert "written to with --annotations only" in capsys.readouterr().err and names_in(root) == set()
    (root / "data/coco/annotations").mkdir(parents=True)
    assert fetch_pretrained.main(["coco", "--annotations"]) == 0
    assert names_in(root) == {"data/coco/annotations/c.json"}  # beside what is there of the data set
    server.files["/c.json"] = b"<html>too many downloads</html>"
    (root / "data/coco/annotations/c.json").unlink()
    assert fetch_pretrained.main(["--annotations"]) == 1
    assert "sends is no valid json" in capsys.readouterr().err and names_in(root) == set()


@pytest.fixture
def mapper(server, root, monkeypatch) -> RemoteFile:
    address = f"{server.address}/capdec.zip"
    file = RemoteFile("mappers", "capdec/ckpt-latest.pt", "https://page", address, "captioning", is_archived=True)
    monkeypatch.setattr(fetch_pretrained, "FILES", (file,))
    return file


def test_a_packed_file(mapper, server, root):
    server.files["/capdec.zip"] = pack("a.zip", {"capdec/log.txt": b"x", "capdec/ckpt-latest.pt": CONTENT})
    server.cuts = 1
    assert fetch_pretrained.main([]) == 0
    assert names_in(root) == {"pretrained/capdec/ckpt-latest.pt"}
    (file := root / "pretrained/capdec/ckpt-latest.pt").unlink()
    (root / "pretrained/capdec.zip").write_bytes(server.files.pop("/capdec.zip"))  # put there by hand
    assert fetch_pretrained.main([]) == 0 and file.read_bytes() == CONTENT
    assert names_in(root) == {"pretrained/capdec.zip", "pretrained/capdec/ckpt-latest.pt"}


@pytest.mark.parametrize(("content", "fault"), [
    (pack("a.zip", {"clipcap/ckpt-latest.pt": CONTENT}), "holds clipcap/ckpt-latest.pt, expected capdec/"),
    (b"no zip", "is broken"),
    (pack("a.zip", {"ckpt-latest.pt": CONTENT}).replace(CONTENT[:999], CONTENT[1:1000]), "is broken"),
])  # fmt: skip
def test_a_packed_file_of_another_content(mapper, server, root, capsys, content, fault):
    server.files["/capdec.zip"] = content
    assert fetch_pretrained.main([]) == 1
    assert fault in capsys.readouterr().err and names_in(root) == set()
