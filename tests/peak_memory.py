"""What a command takes at most, measured in its own process."""

import subprocess
import sys
import time
from dataclasses import dataclass

from clipscore.config.load import REPOSITORY

WRAPPER = """
import runpy, sys
from scripts.bench.memory import peak_of_this_process
module, sys.argv = sys.argv[1], sys.argv[1:]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
finally:
    print(f"\\npeak {peak_of_this_process()}", file=sys.stderr)
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
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Measured(done.stdout, time.monotonic() - started, int(done.stderr.rsplit("peak ", 1)[1]))
