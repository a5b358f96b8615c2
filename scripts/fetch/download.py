"""Download one file so that it can go on after a cut, check it, and put it in its place without replacing anything."""

import fcntl
import http.client
import json
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from clipscore.models.files import file_digest
from scripts.fetch.manifest import RemoteFile

TIMEOUT_S = 30
BLOCK = 1 << 20
ARCHIVES = (".tar", ".tgz", ".tar.gz", ".zip")


class Cut(ConnectionError):
    """The connection ended before the file did."""


def find_fault(path: Path, file: RemoteFile) -> str:
    """What is wrong with a file, by size, checksum and, of json, its form; nothing when all that is known fits."""
    if not path.is_file():
        return "is a folder, expected a file"
    size = path.stat().st_size
    if size == 0:
        return "is empty"
    if file.size not in (None, size):
        return f"has {size:,} bytes, expected {file.size:,}"
    if file.checksum is not None:
        algorithm, _, expected = file.checksum.partition(":")
        if (found := file_digest(path, algorithm)) != expected:
            return f"has {algorithm} {found}, expected {expected}"
    try:
        if file.path.endswith(".json"):
            json.loads(path.read_bytes())
    except ValueError as error:
        return f"is no valid json ({error})"
    return ""


def fetch(file: RemoteFile, target: Path) -> None:
    """Download a file that is not there, check it and give it its name.

    ValueError: what came is not the file, and is not kept. OSError, http.client.HTTPException: none, a part is kept.
    """
    draft = target.with_name(f"{target.name}.part")
    if not file.is_archived:
        _load(file, draft)
    elif (archive := target.parent.with_name(f"{target.parent.name}.zip")).is_file():  # put there by hand
        _unpack_one(archive, target, draft)
    else:
        part = archive.with_name(f"{archive.name}.part")
        _load(file, part)
        try:
            _unpack_one(part, target, draft)
        finally:
            part.unlink()
    fault = find_fault(draft, file)
    if fault:
        draft.unlink()
        raise ValueError(f"what {file.address} sends {fault}; it was not kept")
    if target.exists():
        raise FileExistsError(f"{target} has appeared in the meantime and is left alone; the download is at {draft}")
    os.rename(draft, target)


def _load(file: RemoteFile, part: Path) -> None:
    """Load a file, or what is missing of it, into `part`; goes on after a cut as long as something arrives.

    What has arrived is kept. BlockingIOError: another process is at it; OSError, http.client.HTTPException: no room,
    no connection, a cut without progress, or the server refuses.
    """
    assert file.address is not None
    check_room(part.parent, (file.size or 0) - _size(part))
    while True:
        before = _size(part)
        try:
            return _append_rest(file.address, part)
        except (Cut, TimeoutError, ConnectionResetError, http.client.IncompleteRead):
            if _size(part) <= before:
                raise


def check_room(folder: Path, needed: int) -> None:
    """OSError: fewer bytes are free in a folder, or where it will be, than are needed."""
    place = next(place for place in (folder, *folder.parents) if place.exists())
    if (free := shutil.disk_usage(place).free) < needed:
        raise OSError(f"no space in {place}: {needed:,} bytes are needed, {free:,} are free")


def _append_rest(address: str, part: Path) -> None:
    start = _size(part)
    headers = {"User-Agent": "rlcf-fetch"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        reply = urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
            raise
        if error.headers.get("Content-Range") == f"bytes */{start}":
            return  # it was whole already
        part.unlink()  # longer than the file, so it is of something else
        return _append_rest(address, part)
    with reply, locked(part) as stream:
        if _size(part) != start:
            raise BlockingIOError(f"{part} has grown in the meantime")
        if start and not reply.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            stream.truncate(0)  # the server sends everything again
            start = 0
        length = reply.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        options = {"unit": "B", "unit_scale": True, "leave": False, "disable": None}  # None: shown on terminals only
        with tqdm(total=total, initial=start, desc=part.name.removesuffix(".part"), **options) as bar:
            while block := reply.read1(BLOCK):  # what has come so far, so that a kill loses nothing
                stream.write(block)
                stream.flush()
                bar.update(len(block))
    if total is not None and _size(part) < total:
        raise Cut(f"the connection ended after {_size(part):,} of {total:,} bytes")


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


@contextmanager
def locked(path: Path) -> Iterator[IO[bytes]]:
    """Append to a file that nobody else appends to. BlockingIOError: another process does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(f"another process is fetching into {path.parent}; wait for it to end") from error
        yield stream


def unpack(archive: Path, folder: Path) -> None:
    """Everything in an archive, and in the archives inside it. ValueError: a broken one, or a path that leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
        else:
            with zipfile.ZipFile(archive) as content:
                for name in map(PurePosixPath, content.namelist()):
                    if name.is_absolute() or ".." in name.parts:
                        raise ValueError(f"{archive} holds {name}, outside of its own folder; get it from elsewhere")
                content.extractall(folder)
    except tarfile.FilterError as error:
        raise ValueError(f"{archive}: {error}; get it from elsewhere") from error
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{archive} is broken ({error}); delete it, and give the command again") from error
    shutil.rmtree(folder / "__MACOSX", ignore_errors=True)
    for inner in [path for path in sorted(folder.rglob("*")) if path.name.endswith(ARCHIVES)]:
        packed = inner.rename(inner.with_name(f"{inner.name}.packed"))
        unpack(packed, inner.parent)
        packed.unlink()


def _unpack_one(archive: Path, target: Path, draft: Path) -> None:
    """The file called as `target` in an archive; its folder there is target's too, or none. ValueError: as `unpack`."""
    with tempfile.TemporaryDirectory(prefix=".unpacking", dir=archive.parent) as folder:
        unpack(archive, Path(folder))
        names = [path.relative_to(folder) for path in sorted(Path(folder).rglob("*")) if path.is_file()]
        found = next((name for name in names if name.name == target.name), None)
        if found is None or found.parent.name not in ("", target.parent.name):
            wanted = f"{target.parent.name}/{target.name}"
            raise ValueError(f"{archive} holds {', '.join(map(str, names[:5]))}, expected {wanted}")
        draft.parent.mkdir(parents=True, exist_ok=True)
        (folder / found).replace(draft)
