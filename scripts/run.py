"""Start a run, or take up one that was stopped: `python -m scripts.run --config configs/... key=value ...`."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clipscore.cli import DONE, REFUSED, USER_ERRORS, print_text
from clipscore.config.explain import nearest
from clipscore.config.fields import RunConfig
from clipscore.data.samples import describe_error
from scripts.runs import process, trackers
from scripts.runs.command_line import CommandLine
from scripts.runs.folder import RunFolder, finished_summary, recorded_summary, run_path
from scripts.runs.loop import run_task
from scripts.runs.rows import Row
from scripts.runs.shards import Rank, Shard
from scripts.runs.summary import SampleError, summary_table

if TYPE_CHECKING:
    from clipscore.task import Task

# TASK -> NAME, for NAMEConfig in TASK/config.py and NAMETask in TASK/task.py; imported when needed
TASKS = {"classification": "Classification", "retrieval": "Retrieval", "captioning": "Captioning"}

SAMPLE_FAILED = 1  # an exit code beside DONE and REFUSED; a signal gives 128 + its number
PATIENCE_S = 10.0  # for the first process to say what all find wrong, and for torchrun to end the others meanwhile

log = logging.getLogger("scripts.run")  # __name__ is __main__ under python -m


def main(arguments: Sequence[str] | None = None) -> int:
    asked = CommandLine(arguments)
    rank = Rank.of_this_process()
    with process.messages():
        if rank.count == 1 and os.environ.get("WORLD_SIZE", "1") != "1":
            text = "WORLD_SIZE=%s is passed over, because torchrun did not start this process, which does all samples; "
            log.warning(text + "shard=i/n is for a part of them", os.environ["WORLD_SIZE"])
        try:
            if asked.args.help:
                print_text(asked.help_text(config_class))
            else:
                with process.signals():
                    with process.lasting_imports():
                        configs = [rank.place(config) for config in asked.configs(config_class)]
                    run_all(configs, rank)
            return DONE
        except process.Interrupted as stop:
            log.warning("stopped by %s; the same command goes on from here", stop)
            return 128 + stop.number
        except (SampleError, *USER_ERRORS) as error:
            is_shared = not isinstance(error, SampleError)
            if rank.index and is_shared:
                time.sleep(PATIENCE_S)
            hint = " (--debug shows where)" if isinstance(error, RuntimeError) and not asked.args.debug else ""
            if str(error).startswith("DataLoader worker"):  # torch says it wherever the main process is at that moment
                hint = "; fewer of these readers take less memory: num_workers=N; the same command goes on from here"
            log.error("error: %s%s", describe_error(error), hint, exc_info=asked.args.debug)
            return REFUSED if is_shared else SAMPLE_FAILED


def config_class(task: str) -> type[RunConfig]:
    """The config class of a task; ValueError when there is no such task."""
    if task not in TASKS:
        valid = list(TASKS)
        raise ValueError(f"unknown task {task!r}; valid: {', '.join(valid)}; the nearest is {nearest(task, valid)}")
    return getattr(importlib.import_module(f"{task}.config"), f"{TASKS[task]}Config")


def task_class(config: RunConfig) -> type[Task]:
    """The class of the task that a configuration is for."""
    return getattr(importlib.import_module(f"{config.task}.task"), f"{TASKS[config.task]}Task")


def run_all(configs: Sequence[RunConfig], rank: Rank) -> None:
    """One run after the other, each with this process's shard, then one table; a run that fails ends it.

    Of several processes the one that makes the last summary prints the table, or the first, if all were there before.
    """
    paths = list(map(run_path, configs))
    for config, path in zip(configs, paths, strict=True):  # what a later run lacks is said before the first one starts
        if paths.count(path) > 1:
            raise ValueError(f"several runs would share the folder {path}; start each with a name=... of its own")
        has_momentum = getattr(config, "momentum", None) is not None
        if Shard.of(config).count > 1 and (has_momentum or getattr(config, "sequential", False)):
            how = "momentum" if has_momentum else f"method={getattr(config, 'method', None)}"
            why = f"a run with {how} cannot be sharded, because a sample's result depends on all samples before it"
            raise ValueError(f"{why}; start it without shard=..., NPROC and torchrun")
        if finished_summary(config) is None:
            trackers.module(config)
            task_class(config).check(config)
            RunFolder(config).check()
    speaks = rank.count == 1 or (rank.index == 0 and all(map(finished_summary, configs)))
    try:
        for config in configs:
            is_new = finished_summary(config) is None
            if run_one(config) and is_new:
                speaks |= all(map(recorded_summary, configs))
    finally:
        summaries = [summary for summary in map(recorded_summary, configs) if summary is not None]
        if summaries and speaks:
            print_text(summary_table(summaries))


def run_one(config: RunConfig) -> Row | None:
    """One run, or the shard that its configuration names, to its summary; None while other shards have work to do."""
    summary, folder = finished_summary(config), RunFolder(config)
    if any(environment["code"] != process.code_digest() for environment in folder.check()):
        log.warning("%s has results of other code than today's; delete it, or give name=OTHER", folder.path)
    if summary is not None:
        log.info("%s is finished already", folder.path)
        return summary
    with folder, process.log_file(folder.path / folder.shard.file_name("log", ".txt")):
        return run_task(task_class(config)(config), config, folder, process.describe_environment(config.device))


if __name__ == "__main__":
    sys.exit(main())
