"""The quickstart's benchmark as a process: stopped by Ctrl-C, started again, one table; and its statistics by hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.config import REPOSITORY
from scripts.demo.benchmark import METHODS, compare
from scripts.demo.styles import STYLES


def test_ctrl_c_stops_it_and_the_same_command_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.demo.benchmark", "limit=1", f"output_root={tmp_path}"]
    group = {"cwd": REPOSITORY, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **group) as child:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("*/summary.json")):
            assert child.poll() is None and time.monotonic() < deadline, child.communicate()
            time.sleep(0.05)
        os.killpg(child.pid, signal.SIGINT)
        errors = child.communicate(timeout=20)[1]
    assert child.returncode == 130
    assert "stopped by SIGINT; the same command goes on from here" in errors and "Traceback" not in errors
    done = subprocess.run(command, check=True, **group)  # a process left over would hold its run folder's lock
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows] == ["test set", *STYLES]
    assert all(row.count("|") == len(METHODS) + 3 for row in rows)


def test_comparison_by_hand() -> None:
    before = {str(i): {"label": 0, "top5": [1]} for i in range(6)} | {"6": {"label": 0, "top5": [0]}}
    after = {str(i): {"label": 0, "top5": [0]} for i in range(6)} | {"6": {"label": 0, "top5": [0]}}
    accuracy, p_value = compare(before, after)
    assert accuracy == 100 and p_value == pytest.approx(2 / 2**6)  # six fixed, none broken
    assert compare(after, before) == (pytest.approx(100 / 7), pytest.approx(2 / 2**6))
    assert compare(after, after)[1] == 1
