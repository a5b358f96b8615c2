"""Runs in processes of their own that start at once: forked from a server that has imported everything already."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "scripts.run",
        "classification.task",
        "retrieval.task",
        "captioning.task",
        "torch.distributed.run",
        "tests.scripts.dummy",
    ]
)


def start_run(words: Sequence[str], screen: Path, shuffled: bool = False, killed_at: int | None = None) -> BaseProcess:
    """Start `scripts.run` with a command line.

    Args:
        words: the command line.
        screen: file for what the process writes to stdout and stderr.
        shuffled: the task has its samples in another order than the data set.
        killed_at: SIGKILL comes before this sample of the process, counted from 0.
    """
    process = SERVER.Process(target=_run, args=(list(words), screen, shuffled, killed_at))
    process.start()
    return process


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
            task.adapt = lambda sample: adapt(sample) if next(count) < killed_at else _die()
        return run_task(task, config, folder, environment)

    run.run_task = run_changed_task
    sys.exit(run.main(words))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
