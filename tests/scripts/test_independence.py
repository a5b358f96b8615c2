"""A sample's record depends on seed, data set, sample and configuration only: whole demo runs, in real processes."""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clipscore.config.load import REPOSITORY
from tests.scripts.processes import dummy_words, end_run, start_run, start_torchrun
from tests.whole_runs import CAPTIONER, CLIPSCORE, plain

LIMIT = 8
COMMON = ["policy=demo/policy.pt", "reward.models=demo/reward.pt", "device=cpu", "num_threads=1"]
VIEWS = ["views.num_views=16", "views.select_fraction=0.2", "views.crop_scale=[0.5,1]"]
SCENES = "dataset=demo_scenes/noise"
CAPTIONS = [*CAPTIONER, *CLIPSCORE, "num_candidates=3", "decoding.max_new_tokens=8", "sampling=nucleus", "steps=2"]
TASKS = {
    "classification": ["--config", "configs/classification/rlcf_encoder.yaml", *VIEWS, "dataset=demo/noise"],
    "retrieval": ["--config", "configs/retrieval/rlcf_coco.yaml", SCENES, "num_candidates=8", "lr=1e-4", "steps=3"],
    "captioning": ["--config", "configs/captioning/clipcap_c2f.yaml", SCENES, *CAPTIONS],
}
METHODS = {name: ["--config", f"configs/classification/methods/{name}.yaml"] for name in ("tda", "boost_adapter")}
STREAMS = {name: [*words, *VIEWS, "dataset=demo/noise"] for name, words in METHODS.items()}
for task, name in zip(TASKS, ("rlcf_s_m_encoder", "rlcf_s_m_coco", "capdec_s_m_c2f"), strict=True):
    words = ["--config", f"configs/{task}/{name}.yaml", *TASKS[task][2:]]
    STREAMS[name] = [*words, "momentum.update_interval=4", "lr=1e-3"]
Command = Callable[..., list[str]]


@pytest.fixture
def command(tmp_path: Path, demo_data: Path) -> Command:
    """The words of a run of a task, with its own output folder."""

    def build(task: str, output: str, *words: str) -> list[str]:
        roots = [f"data_root={demo_data}", f"pretrained_root={REPOSITORY / 'pretrained'}"]
        common = [word for word in COMMON if task not in METHODS or "reward" not in word]
        return [*(TASKS | STREAMS)[task], *common, *roots, f"output_root={tmp_path / output}", "num_workers=0", *words]

    return build


def records(output: Path) -> list[str]:
    """The records of the only run under an output root, of all its processes, without times, sorted."""
    files = output.glob("*/rows*.jsonl")
    return sorted(json.dumps(plain(json.loads(line))) for file in files for line in file.read_text().splitlines())


def summary(output: Path) -> dict:
    return plain(json.loads(next(output.glob("*/summary.json")).read_text()))


@pytest.mark.parametrize("task", TASKS)
def test_workers_order_processes_and_kills_do_not_change_a_record(tmp_path, command, task):
    limit, screen = f"limit={LIMIT}", tmp_path / "screen"
    whole = start_run(command(task, "whole", limit, "num_workers=1"), screen)
    assert end_run(whole) == 0, screen.read_text()
    several = [start_run(command(task, "workers", limit, "num_workers=4"), screen)]
    several += [start_run(command(task, "shuffled", limit), screen, shuffled=True)]
    assert [end_run(process) for process in several] == [0, 0], screen.read_text()

    shards = [command(task, "shards", limit, f"shard={index}/3") for index in range(3)]
    running = [start_run(words, screen, killed_at=1 if words is shards[1] else None) for words in shards]
    assert [end_run(process) for process in running] == [0, -signal.SIGKILL, 0], screen.read_text()
    assert len(records(tmp_path / "shards")) == LIMIT - 2 and not list(tmp_path.glob("shards/*/summary.json"))
    assert f"of {LIMIT} samples in the run; the summary is written by the last shard" in screen.read_text()
    assert end_run(start_run(shards[1], screen)) == 0, screen.read_text()

    screen.unlink()
    assert end_run(start_torchrun(command(task, "torchrun", limit), screen, num_procs=2)) == 0, screen.read_text()
    assert screen.read_text().count("\ndataset ") == 1
    assert len(list(tmp_path.glob("torchrun/*/rows-[01]-of-2.jsonl"))) == 2

    expected = records(tmp_path / "whole")
    assert len(expected) == LIMIT
    for output in ("workers", "shuffled", "shards", "torchrun"):
        assert records(tmp_path / output) == expected, output
        assert summary(tmp_path / output) == summary(tmp_path / "whole"), output


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_goes_on_where_it_was_killed_and_depends_on_its_order(tmp_path, command, name):
    screen, limit = tmp_path / "screen", "limit=30"
    killed, others = command(name, "killed", limit), [command(name, "whole", limit)]
    others += [command(name, "other", "limit=120", "order_seed=1")] if name in METHODS else []
    assert end_run(start_run(killed, screen, killed_at=22)) == -signal.SIGKILL
    assert not any(end_run(start_run(words, screen)) for words in [killed, *others]), screen.read_text()
    assert records(tmp_path / "killed") == records(tmp_path / "whole")
    assert summary(tmp_path / "killed") == summary(tmp_path / "whole")
    if name in METHODS:
        ids = [{json.loads(row)["id"]: row for row in records(tmp_path / output)} for output in ("whole", "other")]
        assert any(ids[0][key] != ids[1][key] for key in ids[0].keys() & ids[1].keys())
    assert end_run(start_run(command(name, "shards", limit, "shard=0/2"), screen)) == 2
    assert "cannot be sharded, because a sample's result depends on all samples before it" in screen.read_text()


def test_fifty_kills_lose_and_repeat_nothing(workspace):
    moments, screen = random.Random(0), workspace / "screen"
    killed, whole = (dummy_words(workspace, "num_samples=160", f"name={n}") for n in ("a", "b"))
    rows, before = workspace / "output/a__d__seed0/rows.jsonl", b""
    (workspace / "data/slow.txt").write_text("0.02")  # seconds that a sample takes
    for _ in range(50):
        process, wanted = start_run(killed, screen), len(before.splitlines()) + moments.choice([0, 0, 0, 1, 2, 5])
        while not rows.exists() or rows.read_bytes().count(b"\n") < wanted:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        assert end_run(process) == -signal.SIGKILL
        after = rows.read_bytes()
        assert after.startswith(before[: before.rfind(b"\n") + 1])
        before = after
    assert 0 < before.count(b"\n") < 160
    assert end_run(start_run(killed, screen)) == end_run(start_run(whole, screen)) == 0, screen.read_text()
    found, expected = (file.read_text().splitlines() for file in (rows, workspace / "output/b__d__seed0/rows.jsonl"))
    assert [plain(json.loads(line)) for line in found] == [plain(json.loads(line)) for line in expected]
