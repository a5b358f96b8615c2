"""Peak memory of one form of an episode, in a process of its own: a process cannot take back its peak."""

import argparse
import multiprocessing
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

PROCESS_STATUS = Path("/proc/self/status")
STEPS = 2  # the plain form's first step is its greatest; from the second on the optimizer has its state


def peak_memory(make_bench: Callable[[argparse.Namespace], Any], options: argparse.Namespace, *form: str) -> float:
    """GiB: of the whole process, models and libraries included; on CUDA of what torch holds there.

    `make_bench` is importable by name; `form` is a case, and "plain" or "fast". BrokenProcessPool: it was killed.
    """
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, make_bench, options, *form).result() / 2**30


def _peak(make_bench: Callable[[argparse.Namespace], Any], options: argparse.Namespace, case: str, which: str) -> int:
    bench = make_bench(options)
    bench.form(case, which, alone=True).run(bench.sample(case, 0), min(options.steps, STEPS))
    if bench.device.type != "cuda":
        return peak_of_this_process()
    import torch  # not at the top: a process that is measured may have no use for it

    return torch.cuda.max_memory_allocated(bench.device)


def peak_of_this_process() -> int:
    """Bytes. Linux's `ru_maxrss` starts with the peak of the process that started this one; VmHWM does not."""
    if PROCESS_STATUS.is_file():
        lines = PROCESS_STATUS.read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
