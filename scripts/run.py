"""Start a run, or take up one that was stopped: `python -m scripts.run --config configs/... key=value ...`."""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import logging
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from clipscore.config import RunConfig
from clipscore.config_fields import describe_fields, nearest
from clipscore.settings import ConfigError, available_configs, draft_config, load_config
from scripts.environment import (
    ALONE,
    Interrupted,
    code_digest,
    describe_environment,
    log_file,
    messages,
    prepare_torch,
    signals,
)
from scripts.identity import config_differences
from scripts.locks import is_anyone_at_work
from scripts.loop import Task, run_task
from scripts.record_files import Row
from scripts.records import RunFolder, finished_summary, recorded_summary, run_path
from scripts.shards import Rank, Shard
from scripts.summary import SampleError, summary_table

# task name -> module and class of its configuration, module and class of the task; imported when needed
TASKS = {
    "classification": ("classification.config", "ClassificationConfig", "classification.task", "ClassificationTask"),
    "retrieval": ("retrieval.config", "RetrievalConfig", "retrieval.task", "RetrievalTask"),
    "captioning": ("captioning.config", "CaptioningConfig", "captioning.task", "CaptioningTask"),
}

DONE, SAMPLE_FAILED, REFUSED = 0, 1, 2  # exit codes; a signal gives 128 + its number
USER_ERRORS = (ValueError, OSError, RuntimeError, FloatingPointError)
IDLE_S, POLL_S = 60.0, 1.0  # how long no process may be at work before the first stops waiting, and between two looks

HELP = """\
overrides (key=value, dots for sections, values as in YAML; a later one wins):
  dataset=imagenet_a          one data set, or several separated by commas; replaces --datasets
  limit=200                   only the first 200 samples; raise it later and the rows are used again
  seed=1                      other random views
  lr=7e-3 reward.scale=2.5    any key of the configuration; --config FILE --help lists all with their values
  device=cuda:0 precision=fp16 num_workers=8 num_threads=2
  shard=0/4                   every fourth sample from the first; 1/4, 2/4 and 3/4 do the others, each when it likes
  procs_per_gpu=2             under torchrun: processes that share a GPU
  on_error=skip               leave unreadable samples out and count them, instead of stopping
  name=my_run                 name of the run folder; the config's file name if not given
  data_root=DIR pretrained_root=DIR output_root=DIR
                              else RLCF_DATA, RLCF_PRETRAINED, RLCF_OUTPUT, else configs/paths.yaml

A run writes to OUTPUT/NAME__DATASET__seedSEED. The same command takes up a run that was stopped, and prints the
summary of a finished one. Several processes: torchrun --standalone --nproc-per-node=N -m scripts.run --config ...
Exit code: 0 done, 1 a sample failed, 2 bad input or a full disk, 130 or 143 stopped by a signal.
"""

log = logging.getLogger("scripts.run")  # __name__ is __main__ under python -m


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = _parser()
    args = parser.parse_intermixed_args(arguments)
    datasets, words = split_datasets(args.datasets or [], args.overrides)
    sweeps, words = split_sweeps(args.sweep or [], words)
    rank = Rank.of_this_process()
    with messages({task[2].partition(".")[0] for task in TASKS.values()}, rank):
        try:
            if args.help:
                print(_help(parser, args.config, words))
                return DONE
            if args.config is None:
                parser.error(f"--config FILE is missing; there are: {', '.join(available_configs())}")
            with signals(), rank.first_speaks(USER_ERRORS):
                configs = _load_all(args.config, words, datasets, sweeps)
                run_all([rank.place(config) for config in configs], rank)
            return DONE
        except Interrupted as stop:
            log.warning("stopped by %s; the same command goes on from here", stop)
            return 128 + stop.number
        except (SampleError, *USER_ERRORS) as error:
            hint = " (--debug shows where)" if isinstance(error, RuntimeError) and not args.debug else ""
            log.error("error: %s%s", error, hint, exc_info=args.debug)
            return SAMPLE_FAILED if isinstance(error, SampleError) else REFUSED


def split_datasets(listed: Sequence[str], overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell data sets from overrides.

    Args:
        listed: the words after --datasets; overrides may follow the data sets.
        overrides: the other words.

    Returns:
        The data sets, those of the last `dataset=a,b` if there is one, and the `key=value` words without it.
    """
    names = list(itertools.takewhile(lambda word: "=" not in word, listed))
    words = [*overrides, *listed[len(names) :]]
    chosen = [word.removeprefix("dataset=") for word in words if word.startswith("dataset=")]
    if chosen:
        names = [name.strip() for name in chosen[-1].split(",") if name.strip()]
        words = [word for word in words if not word.startswith("dataset=") or not names]
    return list(dict.fromkeys(names)), words


def split_sweeps(listed: Sequence[str], words: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """The values that are swept over, one run for each combination.

    Args:
        listed: `key=a,b` words after --sweep.
        words: `key=value` overrides; one with a swept key replaces that sweep, and may hold several values too.

    Returns:
        For each swept key its `key=value` words, and the other overrides.
    """
    sweeps = dict(word.split("=", 1) for word in listed)
    others = []
    for word in words:
        key, _, values = word.partition("=")
        if key in sweeps:
            sweeps[key] = values
        else:
            others.append(word)
    return [[f"{key}={value}" for value in _values(text)] for key, text in sweeps.items()], others


def _values(text: str) -> list[str]:
    """a,b -> a and b; a value with brackets is one."""
    values = [text] if set(text) & set("[]{}") else text.split(",")
    return [value.strip() for value in values if value.strip()]


def config_class(task: str) -> type[RunConfig]:
    """The config class of a task.

    Raises:
        ValueError: there is no such task.
    """
    if task not in TASKS:
        valid = list(TASKS)
        raise ValueError(f"unknown task {task!r}; valid: {', '.join(valid)}; the nearest is {nearest(task, valid)}")
    module, name, _, _ = TASKS[task]
    return getattr(importlib.import_module(module), name)


def run_all(configs: Sequence[RunConfig], rank: Rank = ALONE) -> None:
    """One run after the other, then one table; when one fails, the table has those before it.

    Args:
        configs: the runs, each with the shard of this process.
        rank: of this process; the first one waits for the samples of the others and prints the table.
    """
    _check_folders(configs)
    for config in configs:  # whatever a later run lacks is said before the first one starts
        Shard.of(config).refuse_sequence(getattr(config, "momentum", None) is not None)
        if finished_summary(config) is None:
            _task_class(config).check(config)
            RunFolder(config).check()
    done: list[RunConfig] = []
    try:
        for config in configs:
            run_one(config)
            done.append(config)
        if rank.is_first_of_many:
            _wait_for_others(configs)
    finally:
        found = (recorded_summary(config) for config in done)
        summaries = [summary for summary in found if summary is not None]
        if summaries and rank.index == 0:
            print(summary_table(summaries))


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


def _check_folders(configs: Sequence[RunConfig]) -> None:
    seen: dict[Path, RunConfig] = {}
    for config in configs:
        other = seen.setdefault(run_path(config), config)
        found = config_differences(other.model_dump(mode="json"), config.model_dump(mode="json"))
        if found:
            raise ValueError(
                f"two of the runs would share the folder {run_path(config)}: {'; '.join(found)}; start them one by "
                "one, each with a name=... of its own"
            )


def run_one(config: RunConfig) -> Row | None:
    """One run, or the shard of it that the configuration names, from its configuration to its summary.

    Returns:
        The summary; None as long as other shards have samples to do.
    """
    summary = finished_summary(config)
    _warn_of_other_code(run_path(config))
    if summary is not None:
        log.info("%s is finished already", run_path(config))
        return summary
    with RunFolder(config) as folder, log_file(folder.log_file):
        try:
            prepare_torch(config.num_threads, config.device)
            summary = run_task(_task_class(config)(config), config, folder, describe_environment())
        except BaseException:
            log.debug("ended by", exc_info=True)
            raise
        if summary is not None:
            log.info("wrote %s", folder.path / "summary.json")
        return summary


def _warn_of_other_code(path: Path) -> None:
    file = path / "env.json"
    environments = json.loads(file.read_text(encoding="utf-8"))["environments"] if file.is_file() else []
    if any(environment["code"] != code_digest() for environment in environments):
        log.warning("%s has results of other code than today's; delete it, or give name=OTHER, to have new ones", path)


def _task_class(config: RunConfig) -> type[Task]:
    _, _, module, name = TASKS[config.task]
    return getattr(importlib.import_module(module), name)


def _load_all(
    path: str, words: Sequence[str], datasets: Sequence[str], sweeps: Sequence[Sequence[str]]
) -> list[RunConfig]:
    """One configuration per data set and combination; the mistakes of all are reported together."""
    configs, problems = [], []
    for dataset, *swept in itertools.product(datasets or [None], *sweeps):
        try:
            configs.append(load_config(path, [*words, *swept], config_class, dataset))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return configs


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.run",
        usage="%(prog)s --config FILE [--datasets NAME ...] [key=value ...]",
        description="Run a test-time adaptation on one or more data sets.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of the configuration")
    parser.add_argument("--config", metavar="FILE", help="a YAML file under configs/")
    parser.add_argument("--datasets", nargs="+", metavar="NAME", help="data sets, unless dataset=... is given")
    parser.add_argument(
        "--sweep", action="append", type=_sweep, metavar="KEY=A,B", help="a run for each value, unless KEY=... is given"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("-h", "--help", action="store_true", help="show this, and with --config all keys and values")
    return parser


def _sweep(word: str) -> str:
    if not re.fullmatch(r"[^=]+=.+", word):
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE,VALUE, got {word!r}")
    return word


def _help(parser: argparse.ArgumentParser, path: str | None, words: Sequence[str]) -> str:
    """The general help, and with a config file every key with its type and current value."""
    if path is None:
        files = "\n".join(f"  {file}" for file in available_configs())
        return f"{parser.format_help()}\nconfig files:\n{files}"
    draft = draft_config(path, words)
    if draft.problems:
        raise ConfigError(draft.problems)
    lines = [f"keys of {path}, with type and current value:"]
    for key, kind, value, text in describe_fields(config_class(draft.values.get("task", "")), draft.values):
        shown = value if isinstance(value, str) else json.dumps(value)
        lines.append(f"  {key}: {kind} = {shown}" + (f"    # {text}" if text else ""))
    return parser.format_help() + "\n" + "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
