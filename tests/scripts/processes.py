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
    ["scripts.run", "classification.task", "retrieval.task", "captioning.task", "tests.scripts.dummy"]
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


def end_run(process: BaseProcess) -> int:
    """The exit code of a process; minus the number of a signal."""
    process.join(timeout=120)
    assert process.exitcode is not None, "still running"
    return process.exitcode


def _run(words: list[str], screen: Path, shuffled: bool, killed_at: int | None) -> None:
    from scripts import loop, run
    from tests.scripts import dummy

    file = os.open(screen, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    run.TASKS["dummy"] = dummy.ENTRY
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
