"""Runs of a task without models: from the command line to the summary, killed, taken up, extended, refused."""

import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts import run
from scripts.runs import loop
from scripts.runs.command_line import CommandLine
from scripts.runs.folder import RunFolder
from tests.scripts.dummy import DummyConfig, DummyTask

ROW_SECONDS = 0.25
ROOTS = dict.fromkeys(("data_root", "pretrained_root", "output_root"), "")
SEQUENTIAL = ["dataset=d", "sequential=true"]
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


def test_a_run_from_the_command_line_to_the_summary(workspace, capsys):
    assert start(workspace, "dataset=imagenet_c/fog/5") == 0
    path = folder(workspace, dataset="imagenet_c-fog-5")
    found = summary(path)
    assert found.pop("mean") == pytest.approx(MEAN_OF_TEN)
    assert 0 <= found.pop("seconds_waiting") < 1
    times = {"seconds": 10 * ROW_SECONDS, "seconds_per_sample": ROW_SECONDS, "samples_per_second": 1 / ROW_SECONDS}
    counts = {"num_samples": 10, "num_errors": 0, "errors": []}
    assert found == {"dataset": "imagenet_c/fog/5", "name": "dummy", **counts, **times}
    assert [row["id"] for row in rows(path)] == [f"sample{index}" for index in range(10)]
    assert {file.name for file in path.iterdir()} == {
        "config.yaml", "env.json", "about.json", "rows.jsonl", "summary.json", "log.txt", "lock"
    }  # fmt: skip
    output, errors = capsys.readouterr()
    assert output == "dataset           num_samples  mean\nimagenet_c/fog/5           10  0.08\n"
    assert f"wrote {path / 'summary.json'}" in errors
    environment = json.loads((path / "env.json").read_text())["environments"][0]
    assert environment["packages"]["torch"] and environment["python"]
    assert start(workspace, "dataset=imagenet_c/fog/5") == 0
    again, errors = capsys.readouterr()
    assert again == output and "is finished already" in errors and DummyTask.num_built == 1


def test_several_data_sets_make_one_table(workspace, capsys):
    assert start(workspace, "--datasets", "one", "three", "num_samples=4", "steps=2") == 0
    table = "dataset  num_samples  mean\none                4  0.03\nthree              4  0.03\n"
    assert capsys.readouterr().out == table
    assert start(workspace, "--datasets", "one", "num_samples=4", "dataset=a, b,a", "--debug", "steps=2") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["dataset", "a", "b"]


@pytest.mark.parametrize(("line", "sweeps", "words"), [
    ("limit=2 --datasets a b lr=1", {"dataset": ["a", "b"]}, ["limit=2", "lr=1"]),
    ("dataset=c,d --datasets a lr=1", {"dataset": ["c", "d"]}, ["lr=1"]),
    ("dataset=", {}, []),
    ("seed=3 lr=1 k=a,b, --sweep k=x --sweep lr=1,2", {"k": ["a", "b"], "lr": ["1"]}, ["seed=3"]),
    ("--sweep k=[1,2] oops", {"k": ["[1,2]"]}, ["oops"]),
])  # fmt: skip
def test_data_sets_and_sweeps_are_told_from_overrides(line, sweeps, words):
    asked = CommandLine(["--config", "unused", *line.split()])
    assert (asked.sweeps, asked.words) == (sweeps, words)


def test_a_sweep_is_a_run_for_each_value(workspace, capsys):
    assert start(workspace, "dataset=ten", "--sweep", "seed=1,2") == 0
    assert len(list((workspace / "output").glob("dummy__ten__seed[12]/summary.json"))) == 2
    for sweep in ("lr=1,2", "limit=1,2"):
        assert start(workspace, "dataset=ten", "--sweep", sweep) == 2
        assert f"runs would share the folder {folder(workspace, dataset='ten')}; start" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        start(workspace, "dataset=ten", "--sweep", "lr")
    assert "expected KEY=VALUE,VALUE, got 'lr'" in capsys.readouterr().err


def test_the_limit_may_be_raised_and_lowered(workspace):
    path, before = folder(workspace), ""
    for limit, done in [(4, 4), (6, 6), (3, 6), (10, 10)]:
        start(workspace, "dataset=d", f"limit={limit}")
        assert summary(path)["num_samples"] == limit and len(rows(path)) == done
        assert summary(path)["mean"] == pytest.approx(0.007 * 2.5 * (limit - 1) / 2)
        now = (path / "rows.jsonl").read_text()
        assert now.startswith(before)
        before = now


def test_some_samples_in_shuffled_order_are_a_fair_part_and_lie_inside_more_of_them(workspace):
    config = DummyConfig(dataset="d", order="shuffled", **ROOTS)
    ids = [f"class{label}/{number}" for label in range(200) for number in range(40)]
    order = loop.in_order(ids, config)
    assert sorted(order) == sorted(ids) and len({key.partition("/")[0] for key in order[:200]}) >= 100
    assert order != loop.in_order(ids, config.model_copy(update={"order_seed": 1}))
    assert [key for key in order if key in ids[::2]] == loop.in_order(ids[::2], config)  # whatever else is there
    seen: list[set[str]] = []
    for limit in (3, 6):
        start(workspace, "dataset=d", "order=shuffled", f"limit={limit}")
        seen.append({row["id"] for row in rows(folder(workspace))})
    assert len(seen[0]) == 3 and seen[0] < seen[1] and len(seen[1]) == 6
    first = summary(folder(workspace))["mean"]
    start(workspace, "dataset=d", "order=listed", "limit=6")  # the same run: only the missing samples are added
    assert summary(folder(workspace))["mean"] == pytest.approx(0.007 * 2.5 * 2.5) != first
    assert len(rows(folder(workspace))) < 12


@pytest.mark.parametrize("file", ["broken.txt", "nan.txt"])
def test_a_sample_is_skipped_and_tried_again_later(workspace, file):
    (workspace / "data" / file).write_text("sample3 sample5")
    assert start(workspace, "dataset=d") == 0
    path = folder(workspace)
    found = summary(path)
    assert (found["num_samples"], found["num_errors"], found["errors"]) == (8, 2, ["sample3", "sample5"])
    assert found["mean"] == pytest.approx(0.007 * 2.5 * (45 - 8) / 8)
    assert set(plain(rows(path)[3])) == {"id", "error"} and "sample3" in rows(path)[3]["error"]
    (workspace / "data" / file).write_text("sample5")
    assert start(workspace, "dataset=d") == 0
    assert (summary(path)["errors"], len(rows(path))) == (["sample5"], 12)  # the later row of an id counts
    (workspace / "data" / file).unlink()
    assert start(workspace, "dataset=d") == 0
    assert (summary(path)["num_errors"], summary(path)["mean"]) == (0, pytest.approx(MEAN_OF_TEN))


@pytest.mark.parametrize(("file", "content", "words", "code", "messages"), [
    ("data/nan.txt", "sample2", ["dataset=d", "on_error=stop"], 1,
     ["sample sample2 has a result that is not a finite number: value is nan; the rows so far are in the run"]),
    ("data/broken.txt", "sample0 sample1", ["dataset=d", "limit=2"], 1,
     ["none of the 2 samples has a result; the first: cannot read"]),
    ("output/dummy__d__seed0/rows.jsonl", "", SEQUENTIAL, 2,
     ["carry.pt was saved after 5 samples, but rows.jsonl does not start with these; delete the folder"]),
    ("unused", "", [*SEQUENTIAL, "lr=1"], 2, ["holds a run of another configuration: lr is 0.007 there and 1.0"]),
    ("unused", "", ["dataset=e", "num_samples=0"], 2, ["the data set 'e' has no samples"]),
    ("unused", "", ["dataset=d", "lrr=1", "step=2"], 2, [
        "the configuration does not fit:\n", "lrr: unknown key; the nearest valid key is lr [",
        "the nearest valid key is steps [",
    ]),
])  # fmt: skip
def test_what_is_wrong_is_one_clean_message(workspace, capsys, file, content, words, code, messages):
    if "sequential=true" in words:
        start(workspace, *SEQUENTIAL, "limit=5")
        capsys.readouterr()
    (workspace / file).write_text(content)
    assert start(workspace, *words) == code
    errors = capsys.readouterr().err
    assert all(message in errors for message in messages) and "Traceback" not in errors
    assert f"error: {messages[0]}" in errors or f"error: {folder(workspace)}" in errors
    assert start(workspace, *words, "--debug") == code
    assert "Traceback" in capsys.readouterr().err


def test_output_that_cannot_be_written_is_said_before_anything_starts(workspace, capsys):
    (workspace / "file").touch()
    (workspace / "link").symlink_to("gone")
    for place, fault in {"file": "is a file, expected a folder", "link": "is a link to gone, which is not"}.items():
        assert start(workspace, "dataset=d", f"output_root={workspace}/{place}") == 2
        assert f"{workspace}/{place} {fault}" in capsys.readouterr().err
    assert DummyTask.num_built == 0


def test_what_a_cluster_leaves_in_the_environment_makes_no_shard(workspace, capsys, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert start(workspace, "dataset=d") == 0
    assert summary(folder(workspace))["num_samples"] == 10
    assert "WORLD_SIZE=2 is passed over, because torchrun did not start this process" in capsys.readouterr().err


def test_what_is_missing_is_said_before_anything_starts(workspace, capsys):
    assert start(workspace, "dataset=d,nowhere") == 2
    assert capsys.readouterr().err == "error: no data set nowhere\n" and not (workspace / "output").exists()
    start(workspace, "dataset=elsewhere", "limit=2")
    folder(workspace, dataset="elsewhere").rename(folder(workspace, dataset="nowhere"))
    capsys.readouterr()
    assert start(workspace, "dataset=nowhere", "lr=3") == 2  # and before what the folder holds
    assert capsys.readouterr().err == "error: no data set nowhere\n"


def test_data_sets_before_a_failure_are_in_the_table(workspace, capsys):
    start(workspace, "dataset=b", "limit=1")
    env = folder(workspace, dataset="b") / "env.json"
    env.write_text(env.read_text().replace('"fingerprint": {', '"fingerprint": {"more": "weights",'))
    capsys.readouterr()
    assert start(workspace, "--datasets", "a", "b", "c") == 2
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["dataset", "a"]


def test_results_of_other_code_are_pointed_out(workspace, monkeypatch, capsys):
    for code, limit, is_told in [("a", 2, False), ("a", 2, False), ("b", 2, True), ("b", 3, True)]:
        monkeypatch.setattr(run.process, "code_digest", lambda code=code: code)
        start(workspace, "dataset=d", f"limit={limit}")
        assert ("has results of other code" in capsys.readouterr().err) == is_told
    (folder(workspace) / "rows.jsonl").write_text("")
    start(workspace, "dataset=d")
    assert "other code" not in capsys.readouterr().err


def test_help_lists_keys_types_and_current_values(workspace, capsys):
    assert run.main(["--help"]) == 0
    output = capsys.readouterr().out
    assert "on_error=stop" in output and "  configs/captioning/clipcap_c2f.yaml\n" in output and "train_" not in output
    assert start(workspace, "section.scale=3", "-h") == 0
    output = capsys.readouterr().out
    lines = ["lr: float = 0.007", "section.scale: float = 3    # a factor", "dataset: str = required"]
    lines += ["section: section = (below)", "momentum: section | null = null", "items: [{weight: float}] = []"]
    assert all(f"  {line}\n" in output for line in lines)
    assert start(workspace, "--help", "oops") == 2
    with pytest.raises(SystemExit) as stop:
        run.main(["limit=3"])
    assert stop.value.code == 2 and "--config FILE is missing, such as configs" in capsys.readouterr().err


def test_sigterm_ends_the_run_cleanly_and_it_goes_on_from_there(workspace, capsys):
    (workspace / "data/stop.txt").write_text("sample6")
    assert start(workspace, "dataset=d") == 128 + signal.SIGTERM
    assert "stopped by SIGTERM; the same command goes on from here" in capsys.readouterr().err
    assert len(rows(folder(workspace))) == 6
    (workspace / "data/stop.txt").unlink()
    assert start(workspace, "dataset=d") == 0
    assert summary(folder(workspace))["mean"] == pytest.approx(MEAN_OF_TEN)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("order", ["listed", "shuffled"])
def test_a_sequential_run_may_be_extended_and_stopped_more_than_once(workspace, order):
    words = [*SEQUENTIAL, "num_samples=20", "on_error=skip", f"order={order}"]
    samples = loop.in_order([f"sample{number}" for number in range(20)], DummyConfig(dataset="d", order=order, **ROOTS))
    (workspace / "data/broken.txt").write_text(samples[1])
    start(workspace, *words, "name=whole")
    start(workspace, *words, "name=parts", "limit=3")
    (workspace / "data/broken.txt").unlink()  # a sample that was passed is not tried again
    for limit in (6, 2, 10):  # the state is saved every fourth sample and at the end
        assert start(workspace, *words, "name=parts", f"limit={limit}") == 0
        found = summary(folder(workspace, "parts"))
        assert (found["num_samples"], found["errors"]) == (limit - 1, [samples[1]])
    for place in (13, 14, 18):  # sessions that start after 10, 12 and 12 samples
        (workspace / "data/stop.txt").write_text(samples[place])
        assert start(workspace, *words, "name=parts") == 128 + signal.SIGTERM
    (workspace / "data/stop.txt").unlink()
    assert start(workspace, *words, "name=parts") == 0
    assert without_times(folder(workspace, "parts")) == without_times(folder(workspace, "whole"))


def test_progress_is_a_line_now_and_then_and_on_a_terminal_a_bar(workspace, capsys, monkeypatch):
    start(workspace, "dataset=d", "limit=2")
    assert "samples, mean" not in capsys.readouterr().err
    for name in ("LOG_INTERVAL_S", "METRIC_INTERVAL_S", "METRIC_SHARE"):
        monkeypatch.setattr(loop, name, 0)
    start(workspace, "dataset=d", "limit=4")
    errors = capsys.readouterr().err
    assert "d: 2 of 4 samples are done already\n" in errors
    for shown in (errors, (folder(workspace) / "log.txt").read_text()):
        assert "d: 3 of 4 samples, mean 0.02, " in shown and "d: 4 of 4 samples, mean 0.03, " in shown
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    start(workspace, "dataset=d")
    errors = capsys.readouterr().err
    assert "d: 100%" in errors and "10/10" in errors and "mean 0.08]" in errors and " samples, mean" not in errors


def test_progress_looks_at_the_rows_of_others_now_and_then_even_without_results(workspace, monkeypatch):
    monkeypatch.setattr(loop, "LOG_INTERVAL_S", 0)
    monkeypatch.setattr(loop, "METRIC_SHARE", 1e9)  # one look, and then not for a long time
    looks: list[RunFolder] = []
    monkeypatch.setattr(RunFolder, "num_rows_elsewhere", lambda self: looks.append(self) or 0)
    (workspace / "data/broken.txt").write_text(" ".join(f"sample{index}" for index in range(10)))
    assert start(workspace, "dataset=d", "on_error=skip") == 1
    assert len(looks) == 2  # when it begins, and at the first sample


def test_a_summary_says_which_part_of_the_published_samples_it_is_of(workspace, capsys, monkeypatch):
    monkeypatch.setattr(DummyTask, "published", 10, raising=False)
    assert start(workspace, "--datasets", "a", "b", "limit=4") == 0
    assert summary(folder(workspace, dataset="a"))["partial"] == "4 of 10"
    table = "dataset  num_samples  partial  mean\na                  4  4 of 10  0.03\n"
    assert capsys.readouterr().out.startswith(table)
    assert start(workspace, "dataset=a") == 0
    assert "partial" not in summary(folder(workspace, dataset="a")) and "partial" not in capsys.readouterr().out


def test_a_run_in_which_nothing_moved_says_so(workspace, capsys, monkeypatch):
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


def test_time_spent_waiting_for_data_is_recorded_and_told(workspace, capsys, monkeypatch):
    samples, now = DummyTask.samples, [0.0]

    def slowly(self: DummyTask, ids: list[str]) -> Iterator:
        for sample in samples(self, ids):
            now[0] += 3
            yield sample

    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: now[0], monotonic=time.monotonic))
    monkeypatch.setattr(DummyTask, "samples", slowly)
    start(workspace, "dataset=d", "limit=4")
    assert [row["seconds_waiting"] for row in rows(folder(workspace))] == [3] * 4
    assert summary(folder(workspace))["seconds_waiting"] == 12
    shown = capsys.readouterr().err
    assert "d: 100% of the time went by waiting for data; more reader" in shown and "num_workers=N, now 4" in shown
    monkeypatch.setattr(DummyTask, "samples", samples)
    monkeypatch.setattr(loop, "time", time)
    start(workspace, "dataset=d")
    assert "waiting for data" not in capsys.readouterr().err
