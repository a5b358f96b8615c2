"""What a command takes at most, measured in its own process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass

from clipscore.config.load import REPOSITORY

# `ru_maxrss` starts with the peak of the process that started this one, VmHWM does not.
WRAPPER = """
import pathlib, resource, runpy, sys
module, sys.argv = sys.argv[1], sys.argv[1:]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
finally:
    status = pathlib.Path("/proc/self/status")
    if status.is_file():
        peak = next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"\\npeak {peak}", file=sys.stderr)
"""


@dataclass
class Measured:
    """What a command printed, how long it took, and its peak memory in bytes."""

    stdout: str
    seconds: float
    peak: int


def measure(module: str, *words: str) -> Measured:
    """Run `python -m module words...` from the repository's root; it must succeed."""
    started = time.monotonic()
    command = [sys.executable, "-c", WRAPPER, module, *words]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return Measured(done.stdout, time.monotonic() - started, int(done.stderr.rsplit("peak ", 1)[1]))
