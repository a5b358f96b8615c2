"""What makes an image in a run slower than the same episode in a bench: `python -m scripts.gpu_causes`, 40 s on a GPU.

One difference at a time, first as the bench has it, then in a second process with a run's environment. Milliseconds of
prompt tuning with 200 classes; and of captioning, by how often the host looks whether a beam search has ended.
"""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import sys
import time
import warnings

import torch
from torch.utils.data import DataLoader, TensorDataset

from captioning import generate
from scripts.gpu_check import ROOT, bench_of, clock

RUN_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # what a run has and a bench has not


def main() -> None:
    """Print one line per difference."""
    as_in_run = all(os.environ.get(name) == value for name, value in RUN_ENVIRONMENT.items())
    suffix = ", environment of a run" if as_in_run else ""
    bench = bench_of("classification", "--classes", "200", "--tune", "prompt")
    case = bench.cases()[0]
    form, views = bench.form(case, "fast"), bench.sample(case, 0)[0]

    def measure(what: str, repeats: int = 5) -> None:
        seconds = [clock(lambda: form.run(views, bench.options.steps)) for _ in range(repeats)]
        print(f"{what}{suffix}: {1000 * statistics.median(seconds[1:]):.1f} ms", flush=True)

    def deterministic(on: bool, warn_only: bool = True) -> None:
        torch.use_deterministic_algorithms(on, warn_only=warn_only)
        setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 - mypy does not know it

    measure("as in the bench", 8)
    deterministic(True)
    measure("deterministic, warnings ignored")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        measure("deterministic, warnings on")
    deterministic(True, warn_only=False)
    try:
        measure("deterministic, strict")
    except RuntimeError as error:
        print(f"deterministic, strict{suffix}: {str(error)[:200]}", flush=True)
    deterministic(False)
    if not as_in_run:
        torch.backends.cuda.enable_cudnn_sdp(False)
        measure("no cuDNN attention")
        torch.backends.cuda.enable_cudnn_sdp(True)
        gc.disable()
        measure("no garbage collection")
        gc.enable()
        data = TensorDataset(torch.zeros(640, 8))
        batches = iter(DataLoader(data, batch_size=4, num_workers=8))
        next(batches)
        time.sleep(1)
        measure("8 idle readers")
        del batches
        bench, interval = bench_of("captioning", "--steps", "2"), generate.LOOK_INTERVAL["cuda"]
        case = bench.cases()[0]
        form, views = bench.form(case, "fast"), bench.sample(case, 0)[0]
        for tokens in (1, interval, 50):
            generate.LOOK_INTERVAL["cuda"] = tokens
            measure(f"captioning, a look every {tokens} tokens", 4)
        again = [sys.executable, "-m", "scripts.gpu_causes"]
        subprocess.run(again, cwd=ROOT, env=os.environ | RUN_ENVIRONMENT, check=False)


if __name__ == "__main__":
    main()
