"""Runs of a task without models: from the command line to the summary, killed, taken up, extended, refused."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clipscore.config.load import REPOSITORY
from scripts import run
from scripts.runs import loop, progress
from scripts.runs.command_line import split_datasets, split_sweeps
from tests.scripts.dummy import DummyTask

ROW_SECONDS = 0.25
MEAN_OF_TEN = 0.007 * 2.5 * 4.5  # lr * scale * mean of 0..9


def start(workspace: Path, *words: str) -> int:
    return run.main(["--config", str(workspace / "dummy.yaml"), *words])


def folder(workspace: Path, name: str = "dummy", dataset: str = "d") -> Path:
    return workspace / "output" / f"{name}__{dataset}__seed0"


def rows(path: Path, name: str = "rows.jsonl") -> list[dict]:
    return [json.loads(line) for line in (path / name).read_text().splitlines()]


def summary(path: Path) -> dict:
    return json.loads((path / "summary.json").read_text())


def plain(record: dict) -> dict:
    return {key: value for key, value in record.items() if not key.startswith("seconds") and key != "name"}


def without_times(path: Path) -> tuple[dict, list[dict]]:
    return plain(summary(path)), [plain(row) for row in rows(path)]


@contextmanager
def process(workspace: Path, *words: str, num_rows: int) -> Iterator[subprocess.Popen]:
    """A real process with its own run, once it has written so many rows of data set d under the name "killed"."""
    command = [sys.executable, "-m", "tests.scripts.dummy", "--config", str(workspace / "dummy.yaml"), "dataset=d"]
    command += ["name=killed", *words]
    (workspace / "data/slow.txt").write_text("0.03")
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as child:
        file = folder(workspace, "killed") / "rows.jsonl"
        end = time.monotonic() + 60
        while not file.is_file() or file.read_bytes().count(b"\n") < num_rows:
            assert child.poll() is None and time.monotonic() < end, child.communicate()
            time.sleep(0.01)
        try:
            yield child
        finally:
            child.kill()
            (workspace / "data/slow.txt").unlink()


def test_a_run_from_the_command_line_to_the_summary(workspace: Path, capsys: pytest.CaptureFixture) -> None:
    assert start(workspace, "dataset=imagenet_c/fog/5") == 0
    path = folder(workspace, dataset="imagenet_c-fog-5")
    found = summary(path)
    assert found.pop("mean") == pytest.approx(MEAN_OF_TEN)
    assert 0 <= found.pop("seconds_waiting") < 1
    assert found == {
        "dataset": "imagenet_c/fog/5",
        "name": "dummy",
        "num_samples": 10,
        "num_errors": 0,
        "errors": [],
        "seconds": 10 * ROW_SECONDS,
        "seconds_per_sample": ROW_SECONDS,
        "samples_per_second": 1 / ROW_SECONDS,
    }
    assert [row["id"] for row in rows(path)] == [f"sample{index}" for index in range(10)]
    assert {file.name for file in path.iterdir()} == {
        "config.yaml", "env.json", "about.json", "rows.jsonl", "summary.json", "log.txt", "lock"
    }  # fmt: skip
    output, errors = capsys.readouterr()
    assert output == "dataset           num_samples  mean\nimagenet_c/fog/5           10  0.08\n"
    assert f"wrote {path / 'summary.json'}" in errors
    environment = json.loads((path / "env.json").read_text())["environments"][0]
    assert environment["packages"]["torch"] and environment["python"]


def test_a_finished_run_is_shown_without_building_anything(workspace: Path, capsys: pytest.CaptureFixture) -> None:
    start(workspace, "dataset=d")
    first = capsys.readouterr().out
    assert start(workspace, "dataset=d") == 0
    output, errors = capsys.readouterr()
    assert output == first and "is finished already" in errors
    assert DummyTask.num_built == 1


def test_several_data_sets_make_one_table(workspace: Path, capsys: pytest.CaptureFixture) -> None:
    assert start(workspace, "--datasets", "one", "three", "num_samples=4", "steps=2") == 0
    table = "dataset  num_samples  mean\none                4  0.03\nthree              4  0.03\n"
    assert capsys.readouterr().out == table
    assert start(workspace, "--datasets", "one", "num_samples=4", "dataset=a, b,a", "--debug", "steps=2") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["dataset", "a", "b"]


def test_data_sets_are_told_from_overrides() -> None:
    assert split_datasets(["a", "b", "lr=1"], ["limit=2"]) == (["a", "b"], ["limit=2", "lr=1"])
    assert split_datasets(["a", "lr=1"], ["dataset=c,d"]) == (["c", "d"], ["lr=1"])
    assert split_datasets([], ["dataset="]) == ([], ["dataset="])
    assert split_datasets([], []) == ([], [])


def test_sweeps_are_told_from_overrides() -> None:
    words = ["lr=1", "k=a,b,", "seed=3"]
    assert split_sweeps(["k=x", "lr=1,2"], words) == ([["k=a", "k=b"], ["lr=1"]], ["seed=3"])
    assert split_sweeps(["k={a: 1, b: 2}"], []) == ([["k={a: 1, b: 2}"]], [])


def test_a_sweep_is_a_run_for_each_value(workspace: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["--config", str(workspace / "dummy.yaml"), "dataset=ten", "--sweep", "seed=1,2"]
    assert run.main(words) == 0
    assert len(list((workspace / "output").glob("dummy__ten__seed[12]/summary.json"))) == 2
    assert run.main([*words[:3], "--sweep", "lr=1,2"]) == 2
    shown = capsys.readouterr().err
    assert "two of the runs would share the folder" in shown and "lr is 1.0 there and 2.0 here" in shown
    assert run.main([*words[:3], "--sweep", "limit=1,2"]) == 2
    assert "two of the runs would share the folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run.main([*words[:3], "--sweep", "lr"])
    assert "expected KEY=VALUE,VALUE, got 'lr'" in capsys.readouterr().err


def test_the_limit_may_be_raised_and_lowered(workspace: Path) -> None:
    path = folder(workspace)
    start(workspace, "dataset=d", "limit=4")
    first = (path / "rows.jsonl").read_text()
    assert summary(path)["num_samples"] == 4
    start(workspace, "dataset=d", "limit=6")
    longer = (path / "rows.jsonl").read_text()
    assert longer.startswith(first) and len(rows(path)) == 6 and summary(path)["num_samples"] == 6
    start(workspace, "dataset=d", "limit=3")
    assert (path / "rows.jsonl").read_text() == longer
    assert summary(path)["num_samples"] == 3
    assert summary(path)["mean"] == pytest.approx(0.007 * 2.5 * 1)
    start(workspace, "dataset=d")
    assert summary(path)["mean"] == pytest.approx(MEAN_OF_TEN)


def test_a_sample_that_cannot_be_read_stops_the_run(workspace: Path, capsys: pytest.CaptureFixture) -> None:
    (workspace / "data/broken.txt").write_text("sample3")
    assert start(workspace, "dataset=d") == 1
    path = folder(workspace)
    assert len(rows(path)) == 3 and not (path / "summary.json").exists()
    errors = capsys.readouterr().err
    assert "error: cannot read /data/sample3.png; the rows so far are in the run folder" in errors
    assert "Traceback" not in errors and "Traceback" in (path / "log.txt").read_text()
    (workspace / "data/broken.txt").unlink()
    assert start(workspace, "dataset=d") == 0
    assert summary(path)["mean"] == pytest.approx(MEAN_OF_TEN)


@pytest.mark.parametrize("file", ["broken.txt", "nan.txt"])
def test_a_sample_may_be_skipped_and_is_tried_again_later(workspace: Path, file: str) -> None:
    (workspace / "data" / file).write_text("sample3 sample5")
    assert start(workspace, "dataset=d", "on_error=skip") == 0
    path = folder(workspace)
    found = summary(path)
    assert (found["num_samples"], found["num_errors"], found["errors"]) == (8, 2, ["sample3", "sample5"])
    assert found["mean"] == pytest.approx(0.007 * 2.5 * (45 - 8) / 8)
    assert set(plain(rows(path)[3])) == {"id", "error"} and "sample3" in rows(path)[3]["error"]
    (workspace / "data" / file).write_text("sample5")
    assert start(workspace, "dataset=d", "on_error=skip") == 0
    assert (summary(path)["errors"], len(rows(path))) == (["sample5"], 12)  # the later row of an id counts
    (workspace / "data" / file).unlink()
    assert start(workspace, "dataset=d") == 0
    assert (summary(path)["num_errors"], summary(path)["mean"]) == (0, pytest.approx(MEAN_OF_TEN))


def test_a_result_that_is_not_finite_stops_the_run(workspace: Path, capsys: pytest.CaptureFixture) -> None:
    (workspace / "data/nan.txt").write_text("sample2")
    assert start(workspace, "dataset=d") == 1
    assert "error: sample sample2 has a result that is not a finite number: value is nan" in capsys.readouterr().err


def test_a_run_without_any_result_has_no_summary(workspace: Path, capsys: pytest.CaptureFixture) -> None:
    (workspace / "data/broken.txt").write_text("sample0 sample1")
    assert start(workspace, "dataset=d", "limit=2", "on_error=skip") == 1
    assert "error: none of the 2 samples has a result; the first: cannot read" in capsys.readouterr().err


def test_bad_input_is_one_clean_message(workspace: Path, capsys: pytest.CaptureFixture) -> None:
    assert start(workspace, "dataset=d", "lrr=1", "step=2") == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: the configuration does not fit:\n") and "Traceback" not in errors
    assert "lrr: unknown key; the nearest valid key is lr [" in errors and "nearest valid key is steps [" in errors
    start(workspace, "dataset=d")
    capsys.readouterr()
    assert start(workspace, "dataset=d", "lr=1") == 2
    assert "error: " in (errors := capsys.readouterr().err) and "lr is 0.007 there and 1.0 here" in errors
    assert start(workspace, "dataset=d", "lr=1", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err
    assert start(workspace, "dataset=e", "num_samples=0") == 2
    assert "error: the data set 'e' has no samples" in capsys.readouterr().err


def test_what_a_later_data_set_lacks_is_said_before_the_first_starts(workspace: Path) -> None:
    assert start(workspace, "dataset=d,nowhere") == 2
    assert not (workspace / "output").exists()


def test_data_sets_before_a_failure_are_in_the_table(workspace: Path, capsys: pytest.CaptureFixture) -> None:
    start(workspace, "dataset=b", "limit=1")
    env = folder(workspace, dataset="b") / "env.json"
    env.write_text(env.read_text().replace('"fingerprint": {', '"fingerprint": {"more": "weights",'))
    capsys.readouterr()
    assert start(workspace, "--datasets", "a", "b", "c") == 2
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["dataset", "a"]


def test_other_weights_are_refused(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(workspace, "dataset=d", "limit=2")
    monkeypatch.setattr(DummyTask, "fingerprint", {"weights": "xyz"})
    assert start(workspace, "dataset=d", "limit=3") == 2
    assert len(rows(folder(workspace))) == 2


def test_results_of_other_code_are_pointed_out(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    start(workspace, "dataset=d", "limit=2")
    start(workspace, "dataset=d", "limit=2")
    assert "other code" not in capsys.readouterr().err
    monkeypatch.setattr(run.process, "code_digest", lambda: "changed")
    for limit in (2, 3):
        start(workspace, "dataset=d", f"limit={limit}")
        assert "has results of other code" in capsys.readouterr().err
    (folder(workspace) / "rows.jsonl").write_text("")
    start(workspace, "dataset=d")
    assert "other code" not in capsys.readouterr().err


def test_help_lists_keys_types_and_current_values(workspace: Path, capsys: pytest.CaptureFixture) -> None:
    assert run.main(["--help"]) == 0
    assert "on_error=skip" in capsys.readouterr().out
    assert start(workspace, "section.scale=3", "-h") == 0
    output = capsys.readouterr().out
    lines = [
        "lr: float = 0.007",
        "section.scale: float = 3    # a factor",
        "dataset: str = required",
        "flag: bool = false",
    ]
    assert all(f"  {line}\n" in output for line in lines)
    assert start(workspace, "--help", "oops") == 2


def test_a_missing_config_lists_those_there_are(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        run.main(["limit=3"])
    assert stop.value.code == 2 and "--config FILE is missing" in capsys.readouterr().err


def test_sigterm_ends_the_run_cleanly_and_it_goes_on_from_there(workspace: Path, capsys: pytest.CaptureFixture) -> None:
    (workspace / "data/stop.txt").write_text("sample6")
    assert start(workspace, "dataset=d") == 128 + signal.SIGTERM
    assert "stopped by SIGTERM; the same command goes on from here" in capsys.readouterr().err
    assert len(rows(folder(workspace))) == 6
    (workspace / "data/stop.txt").unlink()
    assert start(workspace, "dataset=d") == 0
    assert summary(folder(workspace))["mean"] == pytest.approx(MEAN_OF_TEN)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("sequential", ["false", "true"])
def test_a_killed_run_goes_on_to_the_same_records(workspace: Path, sequential: str) -> None:
    words = ["num_samples=60", f"sequential={sequential}"]
    with process(workspace, *words, num_rows=10) as child:
        os.kill(child.pid, signal.SIGKILL)
    killed, whole = folder(workspace, "killed"), folder(workspace, "whole")
    left = len(rows(killed))
    assert 10 <= left < 60 and not (killed / "summary.json").exists()
    with open(killed / "rows.jsonl", "a") as file:
        file.write('{"id": "sample')  # and it was writing when it was hit
    for name in ("killed", "whole"):
        assert start(workspace, "dataset=d", f"name={name}", *words) == 0
    assert without_times(killed) == without_times(whole)
    first, second = (json.loads((path / "env.json").read_text())["identity"] for path in (killed, whole))
    assert first == second


def test_a_second_process_is_refused_and_ctrl_c_ends_the_first(workspace: Path, capsys: pytest.CaptureFixture) -> None:
    with process(workspace, "num_samples=2000", num_rows=1) as child:
        assert start(workspace, "dataset=d", "name=killed", "num_samples=2000") == 2
        shown = capsys.readouterr().err
        assert f"another process (process {child.pid} on {socket.gethostname()}) is writing to " in shown
        assert "--debug" not in shown
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=30)
    assert child.returncode == 128 + signal.SIGINT
    assert "stopped by SIGINT; the same command goes on from here" in errors and "Traceback" not in errors


def test_a_sequential_run_is_extended_from_its_end(workspace: Path) -> None:
    words = ["dataset=d", "sequential=true"]
    start(workspace, *words, "name=whole")
    for limit in (3, 6, 2, 10):  # the state is saved every fourth sample and at the end
        assert start(workspace, *words, "name=parts", f"limit={limit}") == 0
        assert summary(folder(workspace, "parts"))["num_samples"] == limit
    assert without_times(folder(workspace, "parts")) == without_times(folder(workspace, "whole"))


def test_a_sequential_run_may_be_stopped_more_than_once(workspace: Path) -> None:
    words = ["dataset=d", "sequential=true", "num_samples=20"]
    start(workspace, *words, "name=whole")
    for sample in ("sample6", "sample11", "sample14"):  # sessions that start after 0, 4 and 8 samples
        (workspace / "data/stop.txt").write_text(sample)
        assert start(workspace, *words, "name=parts") == 128 + signal.SIGTERM
    (workspace / "data/stop.txt").unlink()
    assert start(workspace, *words, "name=parts") == 0
    assert without_times(folder(workspace, "parts")) == without_times(folder(workspace, "whole"))


def test_a_sequential_run_does_not_try_passed_errors_again(workspace: Path) -> None:
    (workspace / "data/broken.txt").write_text("sample1")
    words = ["dataset=d", "sequential=true", "on_error=skip"]
    start(workspace, *words)
    (workspace / "data/broken.txt").unlink()
    assert start(workspace, *words) == 0
    assert summary(folder(workspace))["errors"] == ["sample1"]


def test_a_carry_that_does_not_fit_the_rows_is_refused(workspace: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["dataset=d", "sequential=true"]
    start(workspace, *words, "limit=5")
    (folder(workspace) / "rows.jsonl").write_text("")
    assert start(workspace, *words) == 2
    assert "carry.pt was saved after 5 samples, but rows.jsonl does not start with these" in capsys.readouterr().err


def test_without_a_terminal_progress_is_a_line_now_and_then(
    workspace: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(workspace, "dataset=d", "limit=2")
    assert "samples, mean" not in capsys.readouterr().err
    monkeypatch.setattr(progress, "LOG_INTERVAL_S", 0.0)
    monkeypatch.setattr(progress, "METRIC_SHARE", 0)
    start(workspace, "dataset=d", "limit=4")
    errors = capsys.readouterr().err
    assert "d: 2 of 4 samples are done already\n" in errors
    assert "d: 3 of 4 samples, mean 0.02, " in errors and "d: 4 of 4 samples, mean 0.03, " in errors
    assert "d: 4 of 4 samples, mean 0.03, " in (folder(workspace) / "log.txt").read_text()


def test_on_a_terminal_progress_is_a_bar_with_the_metric(
    workspace: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress, "METRIC_INTERVAL_S", 0.0)
    monkeypatch.setattr(progress, "METRIC_SHARE", 0)
    start(workspace, "dataset=d")
    errors = capsys.readouterr().err
    assert "d: 100%" in errors and "10/10" in errors and "mean 0.08]" in errors
    assert " samples, mean" not in errors


def test_num_threads_reaches_torch(workspace: Path) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        start(workspace, "dataset=d", f"num_threads={before + 1}")
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_a_summary_says_which_part_of_the_published_samples_it_is_of(
    workspace: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DummyTask, "published", 10, raising=False)
    assert start(workspace, "--datasets", "a", "b", "limit=4") == 0
    assert summary(folder(workspace, dataset="a"))["partial"] == "4 of 10"
    assert capsys.readouterr().out.splitlines()[:2] == [
        "dataset  num_samples  partial  mean",
        "a                  4  4 of 10  0.03",
    ]
    assert start(workspace, "dataset=a") == 0
    assert "partial" not in summary(folder(workspace, dataset="a")) and "partial" not in capsys.readouterr().out


def test_a_run_in_which_nothing_moved_says_so(
    workspace: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapt = DummyTask.adapt
    monkeypatch.setattr(DummyTask, "adapt", lambda self, sample: adapt(self, sample) | {"moved": self.config.lr / 3})
    assert start(workspace, "dataset=d", "name=still", "lr=0") == 0
    assert "nothing moved: after 1 step(s)" in capsys.readouterr().err
    assert summary(folder(workspace, "still"))["moved_mean"] == 0
    assert start(workspace, "dataset=d", "lr=0.1") == 0
    assert "nothing moved" not in capsys.readouterr().err
    assert summary(folder(workspace))["moved_mean"] == 0.0333333
    assert start(workspace, "dataset=d", "name=no_steps", "lr=0", "steps=0") == 0
    assert "nothing moved" not in capsys.readouterr().err


def test_time_spent_waiting_for_data_is_recorded_and_told(
    workspace: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = DummyTask.samples

    def slowly(self: DummyTask, ids: list[str]) -> Iterator:
        for sample in samples(self, ids):
            time.sleep(0.05)
            yield sample

    monkeypatch.setattr(DummyTask, "samples", slowly)
    monkeypatch.setattr(loop, "WAITING_S", 0.1)
    start(workspace, "dataset=d", "limit=4")
    assert all(0.05 <= row["seconds_waiting"] < 0.5 for row in rows(folder(workspace)))
    assert 0.2 <= summary(folder(workspace))["seconds_waiting"] < 2
    shown = capsys.readouterr().err
    assert "% of the time went by waiting for data; more reader processes" in shown and "num_workers=N, now 4" in shown
    monkeypatch.setattr(DummyTask, "samples", samples)
    start(workspace, "dataset=d")
    assert "waiting for data" not in capsys.readouterr().err


def test_what_is_missing_is_said_before_what_the_folder_holds(workspace: Path, capsys: pytest.CaptureFixture) -> None:
    start(workspace, "dataset=nowhere_else", "limit=2")
    folder(workspace, dataset="nowhere_else").rename(folder(workspace, dataset="nowhere"))
    capsys.readouterr()
    assert start(workspace, "dataset=nowhere", "lr=3") == 2
    assert capsys.readouterr().err == "error: no data set nowhere\n"
