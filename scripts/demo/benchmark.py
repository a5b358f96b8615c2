"""The demo benchmark: zero-shot and its adaptations on real images, through the configs of the paper's tables.

`python -m scripts.demo.benchmark [key=value ...]` writes the demo's test sets, runs every method on every one of them
(a run that was stopped goes on), and prints a table for each task. Wall time: a few minutes on two CPU cores.
"""

import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from clipscore.cli import DONE, print_text
from clipscore.config.fields import RunConfig
from scripts.demo import make_data
from scripts.demo.demo_runs import demo_runs
from scripts.demo.demo_tables import demo_tables
from scripts.run import run_one
from scripts.runs.process import command

log = logging.getLogger("scripts.demo.benchmark")  # __name__ is __main__ under python -m


def run_all(configs: Sequence[RunConfig]) -> None:
    """Finish every run, as many at a time as there are cores."""
    spawn = multiprocessing.get_context("spawn")
    num_processes = min(os.cpu_count() or 1, len(configs))
    with (
        ProcessPoolExecutor(num_processes, spawn, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool,
        tqdm(total=len(configs), unit="run", desc="demo benchmark", dynamic_ncols=True) as bar,
    ):
        try:
            for future in as_completed([pool.submit(run_one, config) for config in configs]):
                summary = future.result()
                assert summary is not None, "a run of one process has a summary"
                shown = next(f"{key} {summary[key]:.1f}" for key in ("accuracy", "r1", "clipscore") if key in summary)
                bar.set_postfix_str(f"{summary['name']} on {summary['dataset']}: {shown}")
                bar.update()
        except BaseException:  # an interrupt is for this process alone
            for process in multiprocessing.active_children():  # every record so far is on the disk
                process.kill()
            raise


def main(words: Sequence[str]) -> int:
    """Everything; `words` are overrides for all runs. Returns the exit code."""
    if {"-h", "--help"} & set(words):
        print(f"{__doc__}\nkeys that fit every method: limit, seed, output_root, pretrained_root, device")
        return 0
    return command(lambda: _benchmark(words))


def _benchmark(words: Sequence[str]) -> int:
    configs = list(demo_runs(words).values())
    make_data.make_data(Path(configs[0].data_root))
    run_all(configs)
    print_text(demo_tables(words))
    return DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
