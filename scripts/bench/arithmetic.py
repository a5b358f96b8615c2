"""What the arithmetic alone costs: FLOPs counted over an episode, and the rate of the machine's matrix products."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

CPU_PRODUCTS = [(2048, 2048, 2048), (4096, 768, 3072), (1182, 768, 3072)]  # the last: six views in ViT-B/16's MLP
CUDA_PRODUCTS = [(8192, 8192, 8192), (4096, 4096, 4096), (1182, 768, 3072)]
REPEATS = 5


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
            synchronize(device)
            started = time.perf_counter()
            a @ b
            synchronize(device)
            best = max(best, 2 * rows * inner * columns / (time.perf_counter() - started))
    return best


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
