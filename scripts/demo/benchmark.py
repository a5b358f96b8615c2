"""The demo benchmark: zero-shot and its adaptations on real images, through the configs of the paper's tables.

`python -m scripts.demo.benchmark [--full] [--open] [key=value ...]` writes the demo's test sets, runs every method (a
run that was stopped goes on), prints each task's table as soon as it is there, and writes a report. The quick form has
some of the test sets and samples; --full has all, in ten minutes and more on two CPU cores. --open shows the report.
"""

import importlib
import logging
import multiprocessing
import os
import resource
import signal
import sys
import webbrowser
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm

from clipscore.cli import DONE, print_text
from clipscore.config.fields import RunConfig
from scripts.demo import make_data
from scripts.demo.demo_runs import BASELINE, SKETCH, TABLES, Runs, Table, demo_runs
from scripts.demo.demo_tables import table_grid
from scripts.report.__main__ import write_report
from scripts.run import TASKS, run_one
from scripts.runs.folder import run_path
from scripts.runs.process import command
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
    num_processes = min(os.cpu_count() or 1, num_runs)
    with ProcessPoolExecutor(num_processes, context, _begin_worker) as pool:
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


def run_all(pool: ProcessPoolExecutor, configs: Sequence[RunConfig], bar: tqdm) -> None:
    """Finish every run, as many at a time as there are processes."""
    for future in as_completed([pool.submit(run_one, config) for config in configs]):
        summary = future.result()
        assert summary is not None, "a run of one process has a summary"
        shown = next(f"{key} {summary[key]:.1f}" for key in ("accuracy", "r1", "clipscore") if key in summary)
        bar.set_postfix_str(f"{summary['name']} on {summary['dataset']}: {shown}")
        bar.update()


def main(words: Sequence[str]) -> int:
    """Everything; `words` are overrides for all runs. Returns the exit code."""
    if {"-h", "--help"} & set(words):
        print(f"{__doc__}\nkeys that fit every method: limit, seed, output_root, pretrained_root, device")
        return 0
    return command(lambda: _benchmark(words))


def make_tables(tables: Sequence[Table], words: Sequence[str], full: bool) -> Runs:
    """Make all runs of these tables, and print each table when it is there; see `demo_runs`. The runs."""
    runs = [demo_runs(words, [table], full) for table in tables]
    every = {key: config for of_table in runs for key, config in of_table.items()}
    make_data.make_data(Path(next(iter(every.values())).data_root))
    with (
        worker_pool(len(every)) as pool,
        tqdm(total=len(every), unit="run", desc="demo benchmark", dynamic_ncols=True) as bar,
    ):
        for table, of_table in zip(tables, runs, strict=True):
            run_all(pool, list(reversed(of_table.values())), bar)  # adaptation takes longest
            with tqdm.external_write_mode():
                print_text(f"{markdown(table_grid(table, of_table))}\n{table.meaning}\n")
            log.info("CPU time so far: %.0f s", _cpu_seconds())
    return every


def _benchmark(words: Sequence[str]) -> int:
    options = {word for word in words if word in ("--full", "--open")}
    words, full = [word for word in words if word not in options], "--full" in options
    every = make_tables(TABLES, words, full)
    chosen = [run_path(every[name, SKETCH]) for name in (BASELINE, "RLCF encoder")]
    report = chosen[1].parent / "report.html"
    write_report(chosen, report)
    again = "" if full else "; all test sets: bash scripts/quickstart.sh --full"
    print_text(f"report of a run: {report}\nnext: your own picture, python -m classification.predict --help{again}")
    if "--open" in options:
        webbrowser.open(report.as_uri())
    return DONE


def _cpu_seconds() -> float:
    """User and system time of this process and of those that it has waited for or that still run in its pool."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = [_of_child(process.pid) for process in multiprocessing.active_children() if process.pid]
    return own.ru_utime + own.ru_stime + sum(children)


def _of_child(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # its own, and that of its children


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
