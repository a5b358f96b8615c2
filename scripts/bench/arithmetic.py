"""What the arithmetic alone costs: FLOPs counted over an episode, and the rate of the machine's matrix products."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # torch's profiler talks a lot

CPU_PRODUCTS = [(2048, 2048, 2048), (4096, 768, 3072), (1182, 768, 3072)]  # the last: six views in ViT-B/16's MLP
CUDA_PRODUCTS = [(8192, 8192, 8192), (4096, 4096, 4096), (1182, 768, 3072)]
REPEATS = 5
NUM_OPERATORS = 8


def count_flops(work: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products and convolutions in some work, a multiplication and an addition
    counted as two. Attention is counted as the plain products that it replaces."""
    was_fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its one operator is unknown to the counter
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            work()
    finally:
        torch.backends.mha.set_fastpath_enabled(was_fast)
    return counter.get_total_flops()


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the best of several large matrix products."""
    best = 0.0
    for rows, inner, columns in CUDA_PRODUCTS if device.type == "cuda" else CPU_PRODUCTS:
        a = torch.randn(rows, inner, device=device, dtype=dtype)
        b = torch.randn(inner, columns, device=device, dtype=dtype)
        for _ in range(REPEATS):
            _wait(device)
            started = time.perf_counter()
            a @ b
            _wait(device)
            best = max(best, 2 * rows * inner * columns / (time.perf_counter() - started))
    return best


def top_operators(work: Callable[[], Any], device: torch.device) -> dict[str, float]:
    """The operators that take most time in some work, and their shares of it."""
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    for _ in range(2):  # the first time, setting up the profiler itself is counted too
        with profile(activities=activities) as profiler:
            work()
            _wait(device)
    seconds = {
        event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total
        for event in profiler.key_averages()
    }
    total = sum(seconds.values())
    longest = sorted(seconds, key=seconds.__getitem__, reverse=True)[:NUM_OPERATORS]
    return {name: seconds[name] / total for name in longest}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
