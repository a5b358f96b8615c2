"""Runs in processes of their own that start at once: forked from a server that has imported everything already."""

import itertools
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

SERVER = multiprocessing.get_context("forkserver")
TASKS = [f"{task}.task" for task in ("classification", "retrieval", "captioning")]
SERVER.set_forkserver_preload(["scripts.run", *TASKS, "torch.distributed.run", "tests.scripts.dummy"])


def start_run(words: Sequence[str], screen: Path, shuffled: bool = False, killed_at: int | None = None) -> BaseProcess:
    """Start `scripts.run` with a command line; `screen` is a file for what it writes to stdout and stderr.

    With `shuffled` the task has its samples in another order. SIGKILL comes before its sample number `killed_at`.
    """
    process = SERVER.Process(target=_run, args=(list(words), screen, shuffled, killed_at))
    process.start()
    return process


def dummy_words(workspace: Path, *words: str) -> list[str]:
    """The command line of the dummy task in a process that does not see the workspace's environment variables."""
    roots = [f"data_root={workspace / 'data'}", f"output_root={workspace / 'output'}", f"pretrained_root={workspace}"]
    return ["--config", str(workspace / "dummy.yaml"), "dataset=d", *roots, *words]


@contextmanager
def at_work(workspace: Path, *words: str, num_rows: int = 1, pause: float = 0.5) -> Iterator[BaseProcess]:
    """A process of the dummy task that has written so many rows, with a pause in seconds before each."""
    (workspace / "data/slow.txt").write_text(str(pause))
    process = start_run(dummy_words(workspace, *words), workspace / "screen")
    end = time.monotonic() + 60
    while sum(file.read_bytes().count(b"\n") for file in workspace.glob("output/*/rows*")) < num_rows:
        assert process.is_alive() and time.monotonic() < end, (workspace / "screen").read_text()
        time.sleep(0.01)
    try:
        yield process
    finally:
        process.kill()
        process.join()
        (workspace / "data/slow.txt").unlink()


def start_torchrun(words: Sequence[str], screen: Path, num_procs: int) -> BaseProcess:
    """Start `scripts.run` by torchrun's own agent, which forks its processes too; arguments as in `start_run`."""
    process = SERVER.Process(target=_launch, args=(list(words), screen, num_procs))
    process.start()
    return process


def end_run(process: BaseProcess) -> int:
    """The exit code of a process; minus the number of a signal."""
    process.join(timeout=120)
    assert process.exitcode is not None, "still running"
    return process.exitcode


def _launch(words: list[str], screen: Path, num_procs: int) -> None:
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _write_to(screen)
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=num_procs, max_restarts=0, start_method="fork",
        run_id=str(os.getpid()), rdzv_backend="c10d", rdzv_endpoint="localhost:0", monitor_interval=0.1,
    )  # fmt: skip
    elastic_launch(config, _work)(words)


def _work(words: list[str]) -> None:
    from scripts import run

    if code := run.main(words):
        sys.exit(code)


def _write_to(screen: Path) -> None:
    file = os.open(screen, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)


def _run(words: list[str], screen: Path, shuffled: bool, killed_at: int | None) -> None:
    from scripts import run
    from scripts.runs import loop
    from tests.scripts import dummy

    _write_to(screen)
    run.TASKS["dummy"] = "Dummy"
    loop.CARRY_INTERVAL = dummy.CARRY_INTERVAL
    run_task = loop.run_task

    def run_changed_task(task: Any, config: Any, folder: Any, environment: Any) -> Any:
        if shuffled:
            first = task.ids[: config.limit]
            task.ids = random.Random(1).sample(first, len(first)) + task.ids[len(first) :]
        if killed_at is not None:
            adapt, count = task.adapt, itertools.count()
            die = partial(os.kill, os.getpid(), signal.SIGKILL)
            task.adapt = lambda sample: adapt(sample) if next(count) < killed_at else die()
        return run_task(task, config, folder, environment)

    run.run_task = run_changed_task
    sys.exit(run.main(words))
