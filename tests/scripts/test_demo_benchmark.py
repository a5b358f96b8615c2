"""The quickstart's benchmark as a process: stopped by Ctrl-C, started again, one table; and its statistics by hand."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clipscore.config.load import REPOSITORY
from scripts.demo.demo_tables import TABLES, demo_runs, demo_tables, hits, p_value
from scripts.runs.samples import read_sample
from tests.scripts.synthetic_runs import write_folder


def test_ctrl_c_stops_it_and_the_notebook_goes_on_with_the_same_command(tmp_path, monkeypatch):
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
    monkeypatch.setenv("RLCF_NOTEBOOK_LIMIT", "1")
    monkeypatch.setenv("RLCF_OUTPUT", str(tmp_path))
    notebook = json.loads((REPOSITORY / "scripts/demo/demo.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    # Its cells in one process give the same command; a process left over would hold its run folder's lock.
    words = [sys.executable, "-c", "\n\n".join(cells)]
    done = subprocess.run(words, check=True, **group | {"cwd": REPOSITORY / "scripts/demo"})
    assert "red five" in done.stdout and done.stdout.splitlines()[-1] == str((tmp_path / "report.html").resolve())
    lines = [line for line in done.stdout.splitlines() if line.startswith("|") and not line.startswith("| -")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    *tables, captioning = TABLES
    for table in tables:
        starts, width = [table.heading, *(line.cells for line in table.quick)], len(table.heading)
        found, rows = rows[: len(starts)], rows[len(starts) :]
        assert [row[:width] for row in found] == [list(start) for start in starts]
        assert all(len(row) == width + 1 + len(table.methods) - len(table.only_full) for row in found)
    heading, *captions = rows
    assert heading[:3] == ["scenes", "captioner", "n"]
    assert [row[:2] for row in captions] == [[*captioning.quick[0].cells, m.name] for m in captioning.methods]
    places = [done.stdout.index(table.meaning) for table in TABLES]
    assert places == sorted(places) and (tmp_path / "report.html").stat().st_size > 10_000
    assert f"report of a run: {tmp_path}/report.html" in done.stdout


def test_tables_of_a_benchmark_that_is_not_finished(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no run of the demo in .*; `bash scripts/quickstart.sh` makes them"):
        demo_tables([f"output_root={tmp_path}"])
    names = {"demo_zero_shot": [1, 0], "demo_KD": [0, 0], "demo_TPT": [0]}
    for (_, line), config in demo_runs([f"output_root={tmp_path}"]).items():
        if line.dataset == "demo/noise" and config.name in names:
            rows = [{"id": str(i), "label": 0, "top5": [top]} for i, top in enumerate(names[config.name])]
            write_folder(config, map(json.dumps, rows))
    found = demo_tables([f"output_root={tmp_path}"]).splitlines()
    assert "| noise | 2 | 50.0 | - | 100.0 (p 1) |" in found  # of the methods that have begun


def test_comparison_by_hand() -> None:
    before = {str(i): read_sample({"label": 0, "top5": [int(i < 6)]}) for i in range(7)}
    after = {str(i): read_sample({"label": 0, "top5": [0]}) for i in range(7)}
    assert p_value(before, after) == p_value(after, before) == pytest.approx(2 / 2**6)  # six fixed, none broken
    assert p_value(after, after) == 1
    assert (hits(before, (1,)), hits(after, (1,))) == ("14.3", "100.0")
    ranked = {str(rank): read_sample({"rank": rank}) for rank in (1, 5, 6, 11)}
    assert hits(ranked, (1, 5, 10)) == "25.0 / 50.0 / 75.0"
    assert p_value(ranked, {**ranked, "5": ranked["1"]}) == 1
