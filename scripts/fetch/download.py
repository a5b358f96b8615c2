"""Download one file so that it can go on after a cut, check it, and put it in its place without replacing anything."""

import fcntl
import http.client
import json
import os
import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from clipscore.models.files import file_digest
from scripts.fetch.manifest import RemoteFile

TIMEOUT_S = 30
BLOCK = 1 << 20


class Cut(ConnectionError):
    """The connection ended before the file did."""


def find_fault(path: Path, file: RemoteFile) -> str:
    """What is wrong with a file that is there, by its published size and checksum; nothing when all that is known fits.

    A json file must also be readable.
    """
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
    ValueError: what came is not the file; it is not kept. OSError, http.client.HTTPException: no download; a part of it
    is kept.
    """
    draft = target.with_name(f"{target.name}.part")
    if not file.is_archived:
        _load(file, draft)
    elif (archive := target.parent.with_name(f"{target.parent.name}.zip")).is_file():  # put there by hand
        unpack(archive, target, draft)
    else:
        part = archive.with_name(f"{archive.name}.part")
        _load(file, part)
        try:
            unpack(part, target, draft)
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
    folder = next(parent for parent in part.parents if parent.exists())
    missing, free = (file.size or 0) - _size(part), shutil.disk_usage(folder).free
    if free < missing:
        raise OSError(f"no space in {folder}: {missing:,} bytes are needed, {free:,} are free")
    while True:
        before = _size(part)
        try:
            return _append_rest(file.address, part)
        except (Cut, TimeoutError, ConnectionResetError, http.client.IncompleteRead):
            if _size(part) <= before:
                raise


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
    with reply, _locked(part, start) as stream:
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
def _locked(part: Path, expected_size: int) -> Iterator[IO[bytes]]:
    """Append to a file that nobody else appends to."""
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _size(part) != expected_size:
            raise BlockingIOError(f"{part} has grown in the meantime")
        yield stream


def unpack(archive: Path, target: Path, draft: Path) -> None:
    """Copy the file called as `target` out of a zip archive to `draft`; its folder there is target's too, or none.

    ValueError: no zip archive, a damaged one, or another content.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            names = [PurePosixPath(name) for name in content.namelist()]
            found = [name for name in names if name.name == target.name]
            if not found or found[0].parent.name not in ("", target.parent.name):
                wanted = f"{target.parent.name}/{target.name}"
                raise ValueError(f"{archive} holds {', '.join(map(str, names[:5]))}, expected {wanted}")
            draft.parent.mkdir(parents=True, exist_ok=True)
            with content.open(str(found[0])) as source, draft.open("wb") as copy:
                shutil.copyfileobj(source, copy, BLOCK)
    except zipfile.BadZipFile as error:
        draft.unlink(missing_ok=True)
        raise ValueError(f"{archive} is no whole zip archive ({error}); get it again") from error
