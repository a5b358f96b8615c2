"""The demo benchmark: zero-shot and its adaptations on real images, through the configs of the paper's tables.

`python -m scripts.demo.benchmark [--full] [--open] [key=value ...]` writes the demo's test sets, runs every method (a
run that was stopped goes on), prints each task's table as soon as it is there, and writes a report. The quick form has
some of the test sets and samples; --full has all, in ten minutes and more on two CPU cores. --open shows the report.
--same-information asks what the gradient adds over asking the teacher: best of K, the votes of the reward model,
distillation and RLCF in three tunings, on the same views with the same reward model, paired against best of K.
"""

import argparse
import importlib
import logging
import multiprocessing
import os
import signal
import sys
import time
import webbrowser
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm

from clipscore.cli import DONE, print_text
from clipscore.config.fields import RunConfig
from scripts.demo.demo_tables import BASELINE, SAME_INFORMATION, SKETCH, TABLES, Runs, Table, demo_runs, table_grid
from scripts.demo.make_data import make_data
from scripts.report.__main__ import write_report
from scripts.run import TASKS, run_one
from scripts.runs.folder import run_path
from scripts.runs.process import command, lasting_imports
from scripts.runs.rows import Row
from scripts.tables.grid import markdown

log = logging.getLogger("scripts.demo.benchmark")  # __name__ is __main__ under python -m


@contextmanager
def worker_pool(num_runs: int) -> Iterator[ProcessPoolExecutor]:
    """A process per core. They share the imports, where a process can be forked: half the work of a short run."""
    can_fork = sys.platform == "linux"
    if can_fork:
        torch.set_num_threads(1)  # threads do not live through a fork
        for task in TASKS:
            importlib.import_module(f"{task}.task")
    context = multiprocessing.get_context("fork" if can_fork else "spawn")
    with ProcessPoolExecutor(min(os.cpu_count() or 1, num_runs), context, _begin_worker) as pool:
        try:
            yield pool
        except BaseException:  # an interrupt is for this process alone
            for process in multiprocessing.active_children():  # every record so far is on the disk
                process.kill()
            raise


def _begin_worker() -> None:
    """Interrupts are for the parent; on the screen only warnings, beside the tables."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.WARNING)


def _run(config: RunConfig) -> tuple[Row, int, float]:
    """A run's summary, the process that made it, and that process's CPU seconds so far."""
    summary = run_one(config)
    assert summary is not None, "a run of one process has a summary"
    return summary, os.getpid(), time.process_time()


def make_tables(tables: Sequence[Table], words: Sequence[str], full: bool) -> Runs:
    """Make all runs of these tables, and print each table when it is there; see `demo_runs`. The runs."""
    with lasting_imports():
        runs = [demo_runs(words, [table], full) for table in tables]
    every = {key: config for of_table in runs for key, config in of_table.items()}
    make_data(Path(next(iter(every.values())).data_root))
    spent: dict[int, float] = {}  # CPU seconds of the processes
    with (
        worker_pool(len(every)) as pool,
        tqdm(total=len(every), unit="run", desc="demo benchmark", dynamic_ncols=True) as bar,
    ):
        for table, of_table in zip(tables, runs, strict=True):
            begun = [pool.submit(_run, config) for config in reversed(of_table.values())]  # adaptation takes longest
            for future in as_completed(begun):
                summary, process, spent[process] = future.result()
                shown = next(f"{key} {summary[key]:.1f}" for key in ("accuracy", "r1", "clipscore") if key in summary)
                bar.set_postfix_str(f"{summary['name']} on {summary['dataset']}: {shown}")
                bar.update()
            with tqdm.external_write_mode():
                print_text(f"{markdown(table_grid(table, of_table))}\n{table.meaning}\n")
            log.info("CPU time so far: %.0f s", sum(os.times()[:4]) + sum(spent.values()))
    return every


def _benchmark() -> int:
    keys = "keys that fit every method: limit, seed, output_root, pretrained_root, device"
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=keys, formatter_class=raw)
    parser.add_argument("words", nargs="*", metavar="key=value")
    for option in ("--full", "--open", "--same-information"):
        parser.add_argument(option, action="store_true")
    args = parser.parse_intermixed_args()
    if args.same_information:
        make_tables([SAME_INFORMATION], args.words, full=True)
        return DONE
    every = make_tables(TABLES, args.words, args.full)
    chosen = [run_path(every[name, SKETCH]) for name in (BASELINE, "RLCF encoder")]
    report = chosen[1].parent / "report.html"
    write_report(chosen, report)
    again = "" if args.full else "; all test sets: bash scripts/quickstart.sh --full"
    print_text(f"report of a run: {report}\nnext: your own picture, python -m classification.predict --help{again}")
    if args.open:
        webbrowser.open(report.as_uri())
    return DONE


if __name__ == "__main__":
    sys.exit(command(_benchmark))
