"""A run in several processes: who does which samples, who may be there with whom, and who makes the summary."""

import json
import multiprocessing
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from scripts.runs.folder import RunFolder
from scripts.runs.shards import Rank
from tests.commands import python
from tests.scripts.processes import at_work
from tests.scripts.test_records import FINGERPRINT, begin_with_a_row, make_config
from tests.scripts.test_run import folder, plain, rows, start, summary, without_times

FORK = multiprocessing.get_context("fork")
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


def all_rows(path: Path) -> list[dict]:
    return [row for file in sorted(path.glob("rows*.jsonl")) for row in rows_of(file)]


def rows_of(file: Path) -> list[dict]:
    return [plain(row) for row in rows(file.parent, file.name)]


def test_a_shard_that_is_none_is_refused(workspace, capsys):
    for text in ("3/3", "a/b", "0/0", "0/99999999999"):
        assert start(workspace, "dataset=d", f"shard={text}") == 2
        assert f"error: shard={text}: expected i/n with i from 0 to n - 1, n at most" in capsys.readouterr().err
    assert not (workspace / "output").exists()


def test_a_process_of_torchrun_has_a_shard_and_a_gpu(tmp_path, monkeypatch, caplog):
    config = make_config(tmp_path, device="cuda", procs_per_gpu=2)
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    assert Rank.of_this_process() == Rank(0, 1, 0) and Rank().place(config) is config
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    for name, value in zip(TORCHRUN, ("5", "8", "1"), strict=True):
        monkeypatch.setenv(name, value)
    rank = Rank.of_this_process()
    assert rank == Rank(5, 8, 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert (rank.place(config).shard, rank.place(config).device) == ("5/8", "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    placed = [Rank(local, 4, local).place(config).device for local in range(4)]
    assert placed == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]
    assert "without NVIDIA's MPS, so that they take turns; `nvidia-cuda-mps-control -d` starts it" in caplog.text
    assert rank.place(config.model_copy(update={"device": "cpu"})).device == "cpu"
    with pytest.raises(ValueError, match=r"started more than 4 processes on this machine, which has 2 CUDA device"):
        Rank(4, 5, 4).place(config)
    parts = [Rank(index, 2, 0).place(config.model_copy(update={"shard": "1/3"})).shard for index in range(2)]
    assert parts == ["1/6", "4/6"]  # of which shard 1/3 is made


@pytest.mark.parametrize("parts", [
    [["shard=0/3"], ["shard=1/3"], ["shard=2/3"]],
    [["limit=4"], ["shard=1/2"], []],
    [["shard=0/2", "limit=6"], ["shard=2/3"], ["shard=0/3"], ["shard=1/3"]],
])  # fmt: skip
def test_parts_in_any_number_make_the_same_run(workspace, parts, capsys):
    start(workspace, "dataset=d", "name=whole")
    capsys.readouterr()
    path, done = folder(workspace), []
    for words in parts:
        assert start(workspace, "dataset=d", *words) == 0
        done.append((path / "summary.json").exists())
    assert done[-1] and not done[-2]
    expected = without_times(folder(workspace, "whole"))
    assert plain(summary(path)) == expected[0]
    assert sorted(all_rows(path), key=lambda row: row["id"]) == sorted(expected[1], key=lambda row: row["id"])
    output, errors = capsys.readouterr()
    assert "samples in the run; the summary is written by the last shard\n" in errors
    assert output.splitlines()[-1].split()[:2] == ["d", "10"]
    assert "shard: null\n" in (path / "config.yaml").read_text()
    assert start(workspace, "dataset=d", "shard=1/7") == 0  # finished is finished, in whatever parts
    assert "is finished already" in capsys.readouterr().err


def test_an_error_is_tried_again_by_whoever_has_the_sample(workspace):
    (workspace / "data/broken.txt").write_text("sample3")
    start(workspace, "dataset=d", "on_error=skip")
    assert summary(folder(workspace))["errors"] == ["sample3"]
    (workspace / "data/broken.txt").unlink()
    start(workspace, "dataset=d", "shard=1/2")  # its row is in a file that sorts before the one with the error
    assert summary(folder(workspace))["num_errors"] == 0 and len(all_rows(folder(workspace))) == 11
    (folder(workspace) / "summary.json").unlink()
    start(workspace, "dataset=d")
    assert len(all_rows(folder(workspace))) == 11 and summary(folder(workspace))["num_samples"] == 10


@pytest.mark.parametrize(("running", "part"), [("limit=10", "all of it"), ("shard=0/2", "shard 0/2")])
def test_who_may_not_be_there_at_the_same_time(workspace, capsys, running, part):
    with at_work(workspace, running) as process:
        holder = f"process {process.pid} on {socket.gethostname()}"
        held = f"{folder(workspace)} is being written by {holder}, which does {part}; wait for it to end, or"
        refused = {"shard=0/2": held, "limit=10": held, "shard=1/3": held}
        if part == "shard 0/2":
            refused["shard=1/2 lr=3"] = "lr is 0.007 there and 3.0 here"
            refused["shard=1/2 limit=4"] = "that run at the same time must agree: limit is None there and 4"
        for wanted, message in refused.items():
            assert start(workspace, "dataset=d", *wanted.split()) == 2
            assert message in capsys.readouterr().err
        assert process.is_alive() and len(list(folder(workspace).glob("rows*"))) == 1


def test_who_is_at_work_is_known_though_a_full_disk_has_cut_the_text(workspace, capsys):
    with at_work(workspace, "shard=0/2"):
        (folder(workspace) / "lock-0-of-2").write_text('["proc')
        assert start(workspace, "dataset=d", "shard=0/2") == 2
        assert "is being written by another process, which does shard 0/2; wait" in capsys.readouterr().err
        assert start(workspace, "dataset=d", "shard=1/2", "limit=1") == 0  # nothing to do, and not the last
        assert "the summary is written by the last shard" in capsys.readouterr().err


@contextmanager
def first_shard(root: Path) -> Iterator[Connection]:
    """A fork that has begun shard 0/2 and written nothing; asked by a word, it leaves, but does not end."""
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=begin_shard, args=(root, theirs))
    process.start()
    assert ours.recv() == "begun"
    yield ours
    ours.send("")
    process.join()


def begin_shard(root: Path, asked: Connection) -> None:
    with RunFolder(make_config(root, shard="0/2")) as found:
        found.begin(FINGERPRINT, {}, {})
        asked.send("begun")
        while asked.recv():
            asked.send("last" if found.lock.is_last() else "not last")


def test_other_weights_are_refused_before_the_first_row(tmp_path):
    with first_shard(tmp_path):
        with (
            RunFolder(make_config(tmp_path, shard="1/2")) as second,
            pytest.raises(ValueError, match="weights is 'abc' there and 'xyz' here"),
        ):
            second.begin({"weights": "xyz"}, {}, {})
        with RunFolder(make_config(tmp_path, shard="1/2")) as second:
            assert second.begin(FINGERPRINT, {"host": "other"}, {}) == [] and not second.lock.is_last()
    assert json.loads((second.path / "env.json").read_text())["environments"] == [{}, {"host": "other"}]


def test_shards_that_start_together_may_raise_the_limit(tmp_path):
    begin_with_a_row(make_config(tmp_path, limit=4))
    with RunFolder(make_config(tmp_path, shard="1/2")) as second, first_shard(tmp_path):  # begins when both are there
        assert second.begin(FINGERPRINT, {}, {}) == [{"id": "a"}]


def test_of_two_that_end_together_one_is_the_last(tmp_path):
    with first_shard(tmp_path) as first, RunFolder(make_config(tmp_path, shard="1/2")) as second:
        first.send("leave")
        assert first.recv() == "not last"
        assert second.lock.is_last()  # although the first is still there


def test_the_rows_of_others_are_counted_as_they_come(tmp_path):
    begin_with_a_row(make_config(tmp_path, shard="1/2"))
    with RunFolder(make_config(tmp_path, shard="0/2")) as first:
        other = first.path / "rows-1-of-2.jsonl"
        assert first.begin(FINGERPRINT, {}, {}) == [{"id": "a"}] and first.num_rows_elsewhere() == 0
        first.own.append({"id": "b"})
        with open(other, "a") as file:
            file.write('{"id": "d"}\n{"id": "f"}\n{"id": ')
            file.flush()
            assert first.num_rows_elsewhere() == 2
            file.write('"h"}\n')
        (first.path / "rows-2-of-3.jsonl").write_text('{"id": "c"}\n')
        assert first.num_rows_elsewhere() == first.num_rows_elsewhere() == 4
        assert [row["id"] for row in first.rows()] == ["b", "a", "d", "f", "h", "c"]


def test_one_process_that_fails_ends_the_others_in_order(workspace):
    (workspace / "data/broken.txt").write_text("sample3")
    (workspace / "data/slow.txt").write_text("0.2")
    words = ["--config", workspace / "dummy.yaml", "dataset=d", "num_samples=200", "on_error=stop"]
    torchrun = ["--standalone", "--nproc-per-node=2", "-m", "tests.scripts.dummy"]
    done = python("scripts.torchrun", *torchrun, *words, OMP_NUM_THREADS="1")
    errors = done.stderr
    assert (done.returncode, done.stdout) == (1, "")
    assert errors.count("error: cannot read /data/sample3.png") == 1 and "process 1 of 2: error: " in errors
    assert "Traceback" not in errors and not (folder(workspace) / "summary.json").exists()
    assert len(rows_of(folder(workspace) / "rows-1-of-2.jsonl")) == 1
    assert "Traceback" in (folder(workspace) / "log-1-of-2.txt").read_text()
    for file in ("broken.txt", "slow.txt"):
        (workspace / "data" / file).unlink()
    assert start(workspace, "dataset=d", "num_samples=200") == 0  # and may go on alone
    ids = [row["id"] for row in all_rows(folder(workspace))]
    assert len(ids) == len(set(ids)) == 200


def test_the_process_that_makes_the_last_summary_prints_the_table(workspace, capsys, monkeypatch):
    for index, table in [("0", []), ("1", ["dataset", "a", "b"]), ("1", []), ("0", ["dataset", "a", "b"])]:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
        for name, value in zip(TORCHRUN, (index, "2", "0"), strict=True):
            monkeypatch.setenv(name, value)
        assert start(workspace, "dataset=a,b") == 0
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == table
    assert len(rows_of(folder(workspace, dataset="b") / "rows-0-of-2.jsonl")) == 5
