"""A full disk, on a small real one: the run stops with one sentence, nothing is lost, and the same command goes on."""

import errno
import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.runs.process import log_file
from tests.scripts.dummy import DummyTask
from tests.scripts.processes import dummy_words, end_run, start_run
from tests.scripts.test_run import folder, rows, start, without_times

PAGE = 4096
NUM_PAGES = 64
SENTENCE = "is full; every sample that was finished is safe in it, and when room is made the same command goes on"


@pytest.fixture
def disk(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The dummy's output folder, on a disk of 64 pages."""
    output = workspace / "output"
    output.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={NUM_PAGES * PAGE}", "tmpfs", str(output)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if mounted.returncode:
        pytest.skip(f"a small disk needs the right to mount one: {mounted.stderr.strip()}")
    try:
        yield output
    finally:
        subprocess.run(["umount", str(output)], check=True)


def fill(disk: Path, num_pages_left: int) -> Path:
    """A file that leaves so many pages."""
    file = disk / "filler"
    free = os.statvfs(disk).f_bavail - num_pages_left
    file.write_bytes(b"x" * PAGE * free)
    assert os.statvfs(disk).f_bavail == num_pages_left
    return file


@pytest.mark.parametrize("sequential", [False, True])
def test_wherever_the_disk_becomes_full_nothing_is_lost(disk, capsys, workspace, sequential):
    words = ["dataset=d", "num_samples=250", f"sequential={str(sequential).lower()}"]
    assert start(workspace, *words, "name=whole", f"output_root={workspace / 'elsewhere'}") == 0
    whole = workspace / "elsewhere/whole__d__seed0"
    num_stopped, found = 0, set()
    for num_pages in [*range(14), 16, 18, 20]:  # what is written one after the other needs one more page at a time
        filler = fill(disk, num_pages)
        if num_pages == 8:  # once in a process of its own
            code = end_run(start_run(dummy_words(workspace, *words, "name=filled"), workspace / "screen"))
            errors = (workspace / "screen").read_text()
            assert code
        else:
            capsys.readouterr()
            code = start(workspace, *words, "name=filled")
            errors = capsys.readouterr().err
        path = folder(workspace, "filled")
        if code:
            assert code == 2 and errors.count(SENTENCE) == 1 and f"the disk of {path} is full" in errors
            assert "Traceback" not in errors and not (path / "summary.json").exists()
            num_stopped += 1
        left = rows(path) if (path / "rows.jsonl").exists() else []
        found.add(len(left))
        assert not list(path.glob("*.part"))
        filler.unlink()
        assert start(workspace, *words, "name=filled") == 0
        assert without_times(path) == without_times(whole)
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    assert num_stopped >= 6 and any(0 < number < 250 for number in found)


def test_a_full_disk_elsewhere_is_not_taken_for_the_runs(workspace, capsys, monkeypatch):
    def summarize(self: DummyTask, rows: list) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/elsewhere/metric")

    monkeypatch.setattr(DummyTask, "summarize", summarize)
    assert start(workspace, "dataset=d") == 2
    assert capsys.readouterr().err == "error: [Errno 28] No space left on device: '/elsewhere/metric'\n"


def test_a_log_without_room_is_one_line(disk, capsys):
    filler = fill(disk, 1)
    with log_file(disk / "log.txt"):
        for _ in range(3):
            logging.getLogger("scripts").warning("%s", "x" * 2 * PAGE)
    assert capsys.readouterr().err == f"{disk / 'log.txt'} cannot be written ([Errno 28] No space left on device)\n"
    filler.unlink()
