"""What the tests of whole runs share: read a run, kill a process at a point, and try the examples of the help."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from clipscore.config.load import REPOSITORY


def results(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Summary and records of a run, without times."""

    def read(line: str) -> dict[str, Any]:
        found = json.loads(line)
        return {k: v for k, v in found.items() if not k.startswith("seconds") and k != "samples_per_second"}

    rows = (folder / "rows.jsonl").read_text().splitlines()
    return read((folder / "summary.json").read_text()), [read(line) for line in rows]


def kill_at(command: Sequence[str], file: Path, num_lines: int = 0) -> None:
    """Start a command, and kill it once the file is there and has so many lines."""
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 120
        while not file.is_file() or file.read_bytes().count(b"\n") < num_lines:
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)


def write_own_data(folder: Path, scenes: Path, captions: Sequence[Sequence[str]]) -> list[str]:
    """Put as many of the demo's scenes into a folder as there are lists of captions; the overrides of a run on them."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    entries = [{"image": f"{number:05d}.png", "caption": texts} for number, texts in enumerate(captions)]
    for entry in entries:
        (folder / "pictures" / entry["image"]).write_bytes((scenes / "images" / entry["image"]).read_bytes())
    (folder / "mine.json").write_text(json.dumps(entries))
    files = {"annotations": folder / "mine.json", "images": folder / "pictures"}
    return ["dataset=mine", *(f"dataset_files.{key}={path}" for key, path in files.items())]


def screen_of_example(example: str, data_root: Path) -> list[str]:
    """Lines that the second command of a help's example prints, with the demo's data in another place."""
    _, line = example.replace("\\\n", " ").replace("output/demo_data", str(data_root)).strip().splitlines()
    words = [sys.executable, *shlex.split(line)[1:]]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout.splitlines()


def assert_one_sentence(caplog: pytest.LogCaptureFixture, message: str) -> None:
    """One error was logged, without a traceback, and the pattern is in it."""
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert re.search(message, record.getMessage()) and not record.exc_info
