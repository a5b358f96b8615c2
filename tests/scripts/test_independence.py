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
from scripts.demo.make_data import make_data
from tests.scripts.processes import end_run, start_run, start_torchrun

LIMIT = 8
NUM_KILLS, NUM_SAMPLES = 50, 160
COMMON = ["policy=demo/policy.pt", "reward.models=demo/reward.pt", "device=cpu", "num_threads=1"]
VIEWS = ["views.num_views=16", "views.select_fraction=0.2", "views.crop_scale=[0.5,1]"]
SCENES = "dataset=demo_scenes/noise"
CAPTIONER = ["llm=demo/opt", "checkpoint=demo/clipcap", "prefix_length=7", "mapper_layers=2", "num_candidates=3"]
CAPTIONER += ["decoding.max_new_tokens=8", "sampling=nucleus", "steps=2", "metrics=[clipscore]"]
CAPTIONER += ["metric_model=demo/reward.pt"]
TASKS = {
    "classification": ["--config", "configs/classification/rlcf_encoder.yaml", *VIEWS, "dataset=demo/noise"],
    "retrieval": ["--config", "configs/retrieval/rlcf_coco.yaml", SCENES, "num_candidates=8", "lr=1e-4", "steps=3"],
    "captioning": ["--config", "configs/captioning/clipcap_c2f.yaml", SCENES, *CAPTIONER],
}
STREAMS = {
    name: ["--config", f"configs/classification/methods/{name}.yaml", *VIEWS, "dataset=demo/noise"]
    for name in ("tda", "boost_adapter")
}
Command = Callable[..., list[str]]


@pytest.fixture(scope="module")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_data(root)
    return root


@pytest.fixture
def command(tmp_path: Path, demo_data: Path) -> Command:
    """The words of a run of a task, with its own output folder."""

    def build(task: str, output: str, *words: str) -> list[str]:
        roots = [f"data_root={demo_data}", f"pretrained_root={REPOSITORY / 'pretrained'}"]
        common = [word for word in COMMON if task in TASKS or "reward" not in word]
        return [*(TASKS | STREAMS)[task], *common, *roots, f"output_root={tmp_path / output}", "num_workers=0", *words]

    return build


def plain(record: dict) -> dict:
    """Without times."""
    return {key: value for key, value in record.items() if not key.startswith(("seconds", "samples_per_second"))}


def records(output: Path) -> list[str]:
    """The records of the only run under an output root, of all its processes, without times, sorted."""
    files = output.glob("*/rows*.jsonl")
    return sorted(json.dumps(plain(json.loads(line))) for file in files for line in file.read_text().splitlines())


def summary(output: Path) -> dict:
    return plain(json.loads(next(output.glob("*/summary.json")).read_text()))


@pytest.mark.parametrize("task", TASKS)
def test_workers_order_processes_and_kills_do_not_change_a_record(tmp_path: Path, command: Command, task: str) -> None:
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


@pytest.mark.parametrize("method", STREAMS)
def test_a_stream_goes_on_where_it_was_killed_and_depends_on_its_order(
    tmp_path: Path, command: Command, method: str
) -> None:
    screen, limit = tmp_path / "screen", "limit=30"
    killed = command(method, "killed", limit)
    assert end_run(start_run(killed, screen, killed_at=22)) == -signal.SIGKILL
    others = [command(method, "whole", limit), command(method, "other", "limit=240", "order_seed=1")]
    assert [end_run(start_run(words, screen)) for words in [killed, *others]] == [0, 0, 0], screen.read_text()
    assert records(tmp_path / "killed") == records(tmp_path / "whole")
    assert not set(records(tmp_path / "whole")) <= set(records(tmp_path / "other"))
    assert end_run(start_run(command(method, "shards", limit, "shard=0/2"), screen)) == 2
    assert "cannot be sharded, because a sample's result depends on all samples before it" in screen.read_text()


def test_fifty_kills_lose_and_repeat_nothing(tmp_path: Path, command: Command) -> None:
    moments = random.Random(0)
    words, screen = command("classification", "killed", f"limit={NUM_SAMPLES}"), tmp_path / "screen"
    whole = start_run(command("classification", "whole", f"limit={NUM_SAMPLES}"), screen)
    before, num_stopped = b"", 0
    for _ in range(NUM_KILLS):
        process = start_run(words, screen)
        wait_for_rows(tmp_path / "killed", len(before.splitlines()) + moments.choice([0, 0, 0, 1, 2, 5]))
        time.sleep(moments.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        num_stopped += end_run(process) == -signal.SIGKILL
        after = written(tmp_path / "killed")
        assert after.startswith(before[: before.rfind(b"\n") + 1])
        before = after
    assert num_stopped == NUM_KILLS
    assert 0 < before.count(b"\n") < NUM_SAMPLES
    assert [end_run(start_run(words, screen)), end_run(whole)] == [0, 0], screen.read_text()
    assert records(tmp_path / "killed") == records(tmp_path / "whole")
    assert summary(tmp_path / "killed") == summary(tmp_path / "whole")


def written(output: Path) -> bytes:
    return b"".join(file.read_bytes() for file in output.glob("*/rows.jsonl"))


def wait_for_rows(output: Path, count: int) -> None:
    end = time.monotonic() + 30
    while written(output).count(b"\n") < count and time.monotonic() < end:
        time.sleep(0.002)
