"""Fetching files from a server of our own: fresh, after a cut, wrong, there already, and without a connection."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from clipscore.config.load import REPOSITORY
from scripts.fetch import __main__ as fetch_pretrained
from scripts.fetch.manifest import FILES, RemoteFile

CONTENT = bytes(range(256)) * 4096  # 1 MiB
CUT_AT = 300_000


class Server(ThreadingHTTPServer):
    """Serves `files`; `cuts` answers end after CUT_AT bytes, `stalls` delays that; `ranges` are the Range headers."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cuts, self.knows_ranges, self.ranges = 0, True, []
        self.stalls = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        content = self.server.files.get(self.path)
        if content is None:
            return self.send_error(404)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.knows_ranges else 0
        if start and start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.server.cuts:
            self.server.cuts -= 1
            content = content[: start + CUT_AT]
        self.wfile.write(content[start:])
        while self.server.stalls.is_set():
            time.sleep(0.01)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "*")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def roots(tmp_path, monkeypatch) -> Path:
    for variable, folder in [("RLCF_DATA", "data"), ("RLCF_PRETRAINED", "weights"), ("RLCF_OUTPUT", "output")]:
        monkeypatch.setenv(variable, str(tmp_path / folder))
    return tmp_path


@pytest.fixture
def weights(server, roots, monkeypatch) -> RemoteFile:
    """One file of weights, alone in the manifest and on the server."""
    server.files["/a.pt"] = CONTENT
    file = RemoteFile(
        "clip", "clip/a.pt", "https://page", f"{server.address}/a.pt", "every row", len(CONTENT),
        f"sha256:{hashlib.sha256(CONTENT).hexdigest()}", other_paths=("a.pt",),
    )  # fmt: skip
    monkeypatch.setattr(fetch_pretrained, "FILES", (file,))
    return file


def manifest(monkeypatch, *files: RemoteFile) -> None:
    monkeypatch.setattr(fetch_pretrained, "FILES", files)


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_fresh_download_and_a_second_call(weights, server, roots, capsys):
    assert fetch_pretrained.main([]) == 0
    target = roots / "weights/clip/a.pt"
    assert target.read_bytes() == CONTENT and names_in(roots) == {"weights/clip/a.pt"}
    assert f"fetched: {target}" in capsys.readouterr().err
    before = target.stat()
    assert fetch_pretrained.main([]) == 0
    assert len(server.ranges) == 1 and target.stat() == before
    assert f"whole: {target}" in capsys.readouterr().err


def test_it_goes_on_after_cuts(weights, server, roots):
    server.cuts = 2
    assert fetch_pretrained.main([]) == 0
    assert (roots / "weights/clip/a.pt").read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={CUT_AT}-", f"bytes={2 * CUT_AT}-"]


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_it_goes_on_with_a_part_of_an_earlier_call(weights, server, roots, knows_ranges):
    server.knows_ranges = knows_ranges
    part = roots / "weights/clip/a.pt.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[:5000])
    assert fetch_pretrained.main([]) == 0
    assert server.ranges == ["bytes=5000-"] and (roots / "weights/clip/a.pt").read_bytes() == CONTENT
    assert not part.exists()


@pytest.mark.parametrize("size", [len(CONTENT), len(CONTENT) + 1])
def test_a_part_with_nothing_left_to_load(weights, server, roots, size):
    part = roots / "weights/clip/a.pt.part"
    part.parent.mkdir(parents=True)
    part.write_bytes((CONTENT + b"x")[:size])
    assert fetch_pretrained.main([]) == 0
    assert server.ranges == [f"bytes={size}-", None][: 1 + (size > len(CONTENT))]
    assert (roots / "weights/clip/a.pt").read_bytes() == CONTENT


AS_A_PROCESS = """
import sys
from scripts.fetch import __main__ as fetch_pretrained
from scripts.fetch.manifest import RemoteFile
fetch_pretrained.FILES = ({file!r},)
sys.exit(fetch_pretrained.main([]))
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_it_goes_on_after_a_signal(weights, server, roots, number, code):
    server.cuts = 1
    server.stalls.set()
    part = roots / "weights/clip/a.pt.part"
    process = subprocess.Popen([sys.executable, "-c", AS_A_PROCESS.format(file=weights)], cwd=REPOSITORY)
    while not part.exists() or part.stat().st_size < CUT_AT:
        assert process.poll() is None
        time.sleep(0.01)
    assert fetch_pretrained.main([]) == 1  # a second process does not touch the part
    process.send_signal(number)
    assert process.wait(timeout=30) == code
    server.stalls.clear()
    assert fetch_pretrained.main([]) == 0
    assert server.ranges[-1] == f"bytes={CUT_AT}-" and (roots / "weights/clip/a.pt").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("sent", "fault"),
    [(CONTENT[:-1] + b"x", "has sha256 [0-9a-f]{64}, expected"), (b"<html>", "has 6 bytes, expected")],
)
def test_what_is_not_the_file_is_not_installed(weights, server, roots, capsys, sent, fault):
    server.files["/a.pt"] = sent
    assert fetch_pretrained.main([]) == 1
    assert names_in(roots) == set()
    error = capsys.readouterr().err
    assert re.search(f"what {weights.address} sends {fault}", error)
    assert f"copy it to {roots / 'weights/clip/a.pt'}" in error


@pytest.mark.parametrize("content", [b"", CONTENT[:1000], CONTENT[:-1] + b"x", None])
def test_a_wrong_file_that_is_there_is_named_and_left_alone(weights, server, roots, capsys, content):
    target = roots / "weights/clip/a.pt"
    target.mkdir(parents=True) if content is None else target.parent.mkdir(parents=True)
    if content is not None:
        target.write_bytes(content)
    assert fetch_pretrained.main([]) == 1
    assert server.ranges == [] and (target.is_dir() if content is None else target.read_bytes() == content)
    assert f"wrong: {target} " in capsys.readouterr().err


def test_a_file_at_another_place_counts(weights, server, roots):
    (roots / "weights").mkdir()
    (roots / "weights/a.pt").write_bytes(CONTENT)
    assert fetch_pretrained.main([]) == 0 and server.ranges == []


def test_without_a_connection_each_file_is_named_with_its_place(weights, roots, monkeypatch, capsys):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/a.pt"
    manifest(monkeypatch, replace(weights, address=address), replace(weights, address=address, path="clip/b.pt"))
    assert fetch_pretrained.main([]) == 1
    lines = capsys.readouterr().err.splitlines()
    for line, name in zip(lines, ("clip/a.pt", "clip/b.pt"), strict=False):
        assert line.startswith(f"missing: {name} (") and f"get {address}" in line
        assert f"1,048,576 bytes, sha256 {weights.checksum.split(':')[1]}" in line
        assert line.endswith(f"copy it to {roots / 'weights' / name}")
    assert lines[2:] == ["0 of 2 files are whole"] and names_in(roots) == set()


def test_check_downloads_nothing(weights, server, roots):
    assert fetch_pretrained.main(["--check"]) == 1
    assert server.ranges == [] and names_in(roots) == set()


def test_a_file_that_takes_a_person(weights, monkeypatch, capsys):
    manifest(monkeypatch, replace(weights, address=None, by_hand="unpack it"))
    assert fetch_pretrained.main([]) == 1
    assert "by hand: see https://page; unpack it; it belongs at" in capsys.readouterr().err


def test_annotations_go_to_the_data_folder_only_on_demand(server, roots, monkeypatch, capsys):
    server.files["/c.json"] = json.dumps([1]).encode()
    file = RemoteFile(
        "coco", "coco2014/annotations/c.json", "https://page", f"{server.address}/c.json", "Table 2",
        other_paths=("coco2014/c.json", "coco/annotations/c.json"), is_annotation=True,
    )  # fmt: skip
    manifest(monkeypatch, file)
    assert fetch_pretrained.main(["coco"]) == 1
    assert "written to with --annotations only" in capsys.readouterr().err and names_in(roots) == set()
    (roots / "data/coco/annotations").mkdir(parents=True)
    assert fetch_pretrained.main(["coco", "--annotations"]) == 0
    assert names_in(roots) == {"data/coco/annotations/c.json"}  # beside what is there of the data set
    server.files["/c.json"] = b"<html>too many downloads</html>"
    (roots / "data/coco/annotations/c.json").unlink()
    assert fetch_pretrained.main(["--annotations"]) == 1
    assert "sends is no valid json" in capsys.readouterr().err and names_in(roots) == set()


def archive(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as content:
        for name, data in files.items():
            content.writestr(name.replace("__", "/"), data)
    return stream.getvalue()


@pytest.fixture
def mapper(server, roots, monkeypatch) -> RemoteFile:
    address = f"{server.address}/capdec.zip"
    file = RemoteFile("mappers", "capdec/ckpt-latest.pt", "https://page", address, "captioning", is_archived=True)
    manifest(monkeypatch, file)
    return file


def test_a_packed_file(mapper, server, roots):
    server.files["/capdec.zip"] = archive(**{"capdec__log.txt": b"x", "capdec__ckpt-latest.pt": CONTENT})
    server.cuts = 1
    assert fetch_pretrained.main([]) == 0
    assert names_in(roots) == {"weights/capdec/ckpt-latest.pt"}
    assert (roots / "weights/capdec/ckpt-latest.pt").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (
            archive(**{"clipcap__ckpt-latest.pt": CONTENT}),
            "holds clipcap/ckpt-latest.pt, expected capdec/ckpt-latest.pt",
        ),
        (b"no zip", "is no whole zip archive"),
        (archive(**{"ckpt-latest.pt": CONTENT}).replace(CONTENT[:999], CONTENT[1:1000]), "is no whole zip archive"),
    ],
)
def test_a_packed_file_of_another_content(mapper, server, roots, capsys, content, fault):
    server.files["/capdec.zip"] = content
    assert fetch_pretrained.main([]) == 1
    assert fault in capsys.readouterr().err and names_in(roots) == set()


def test_an_archive_put_there_by_hand(mapper, server, roots):
    (roots / "weights").mkdir()
    (roots / "weights/capdec.zip").write_bytes(archive(**{"ckpt-latest.pt": CONTENT}))
    assert fetch_pretrained.main([]) == 0 and server.ranges == []
    assert names_in(roots) == {"weights/capdec.zip", "weights/capdec/ckpt-latest.pt"}


def test_an_unknown_name(weights, capsys):
    assert fetch_pretrained.main(["clop"]) == 2
    assert "no file or group 'clop'; nearest: clip; groups: clip;" in capsys.readouterr().err


def test_the_script_lists_every_file(roots):
    command = ["bash", str(REPOSITORY / "scripts/fetch_pretrained.sh"), "--list"]
    environment = {**os.environ, "RLCF_USE_ACTIVE_ENV": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, cwd="/")
    assert done.returncode == 0, done.stderr
    for file in FILES:
        assert f"{file.path}\n" in done.stdout and (file.address or file.page) in done.stdout
    assert f"missing: {roots / 'weights/clip/ViT-B-16.pt'}" in done.stdout
