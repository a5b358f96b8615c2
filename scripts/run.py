"""Start a run, or take up one that was stopped: `python -m scripts.run --config configs/... key=value ...`."""

import importlib
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from clipscore.cli import DONE, REFUSED, USER_ERRORS, print_text
from clipscore.config.explain import nearest
from clipscore.config.fields import RunConfig
from scripts.runs import process
from scripts.runs.command_line import CommandLine
from scripts.runs.folder import RunFolder, finished_summary, recorded_summary, run_path, summary_differences
from scripts.runs.lock import is_anyone_at_work
from scripts.runs.loop import run_task
from scripts.runs.rows import Row
from scripts.runs.shards import Rank, Shard
from scripts.runs.summary import SampleError, summary_table
from scripts.runs.task import Task

# TASK -> NAME, for NAMEConfig in TASK/config.py and NAMETask in TASK/task.py; imported when needed
TASKS = {"classification": "Classification", "retrieval": "Retrieval", "captioning": "Captioning"}

SAMPLE_FAILED = 1  # an exit code beside DONE and REFUSED; a signal gives 128 + its number
PATIENCE_S = 10.0  # for the first process to say what is wrong, and for torchrun to end the others
IDLE_S, POLL_S = 60.0, 1.0  # how long no process may be at work before the first stops waiting, and between two looks

log = logging.getLogger("scripts.run")  # __name__ is __main__ under python -m


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    asked = CommandLine(arguments)
    rank = Rank.of_this_process()
    with process.messages():
        try:
            if asked.help:
                print_text(asked.help_text(config_class))
            else:
                with process.signals():
                    run_all([rank.place(config) for config in asked.configs(config_class)], rank)
            return DONE
        except process.Interrupted as stop:
            log.warning("stopped by %s; the same command goes on from here", stop)
            return 128 + stop.number
        except SampleError as error:
            log.error("error: %s", error, exc_info=asked.debug)
            return SAMPLE_FAILED
        except USER_ERRORS as error:
            if rank.index:
                time.sleep(PATIENCE_S)  # all processes find it wrong
            hint = " (--debug shows where)" if isinstance(error, RuntimeError) and not asked.debug else ""
            log.error("error: %s%s", error, hint, exc_info=asked.debug)
            return REFUSED


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

    The first process of several waits for the samples of the others, and prints the table.
    """
    seen: dict[Path, RunConfig] = {}
    for config in configs:  # whatever a later run lacks is said before the first one starts
        other = seen.setdefault(path := run_path(config), config)
        if found := summary_differences(other.model_dump(mode="json"), config):
            raise ValueError(
                f"two of the runs would share the folder {path}: {'; '.join(found)}; start them one by one, each with "
                "a name=... of its own"
            )
        if Shard.of(config).is_part and getattr(config, "momentum", None) is not None:
            raise ValueError(
                "a run with momentum cannot be sharded, because a sample's result depends on all samples before it; "
                "start it without shard=..., NPROC and torchrun"
            )
        if finished_summary(config) is None:
            task_class(config).check(config)
            RunFolder(config).check()
    done: list[RunConfig] = []
    try:
        for config in configs:
            run_one(config)
            done.append(config)
        if rank.index == 0 and rank.count > 1 and all(Shard.of(config).count == rank.count for config in configs):
            _wait_for_others(configs)  # with shard=... in the command there are samples that none of them does
    finally:
        summaries = [summary for config in done if (summary := recorded_summary(config)) is not None]
        if summaries and rank.index == 0:
            print_text(summary_table(summaries))


def _wait_for_others(configs: Sequence[RunConfig]) -> None:
    """Until the other processes of torchrun have made every summary, or none has been at work for a while."""
    last_sign = time.monotonic()
    while missing := [config for config in configs if recorded_summary(config) is None]:
        if any(is_anyone_at_work(run_path(config)) for config in missing):
            last_sign = time.monotonic()
        if time.monotonic() - last_sign > IDLE_S:
            log.warning(
                "%d of the %d runs are not whole, and no process is at work on them; the same command goes on",
                len(missing), len(configs),
            )  # fmt: skip
            return
        time.sleep(POLL_S)


def run_one(config: RunConfig) -> Row | None:
    """One run, or the shard that its configuration names, to its summary; None while other shards have work to do."""
    summary, folder = finished_summary(config), RunFolder(config)
    if any(environment["code"] != process.code_digest() for environment in folder.check()):
        log.warning("%s has results of other code than today's; delete it, or give name=OTHER", folder.path)
    if summary is not None:
        log.info("%s is finished already", folder.path)
        return summary
    with folder, process.log_file(folder.path / folder.shard.file_name("log", ".txt")):
        from clipscore.models.devices import prepare_torch  # slow to import

        prepare_torch(config.num_threads, config.device)
        return run_task(task_class(config)(config), config, folder, process.describe_environment(config.device))


if __name__ == "__main__":
    sys.exit(main())
