"""The least time that an episode can take: its matrix products at the machine's rate, and what has to pass memory."""

import functools
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

CPU_PRODUCTS = [(2048, 2048, 2048), (4096, 768, 3072), (1182, 768, 3072)]  # the last: six views in ViT-B/16's MLP
CUDA_PRODUCTS = [(8192, 8192, 8192), (4096, 4096, 4096), (1182, 768, 3072)]
COPY_BYTES = {"cpu": 2**28, "cuda": 2**30}  # more than a cache holds
REPEATS = 5
# Bytes that pass memory for each one of the arguments: AdamW reads weight, gradient and two moments, and writes three.
PASSES = {torch.ops.aten._fused_adamw_: 7 / 4, torch.ops.aten._foreach_copy_: 1.0}


class Floor(TorchDispatchMode):
    """Adds up what some work takes at least, while it is entered: `flops` in all, and `seconds` of each stage.

    Of a product or convolution it is the longer of its arithmetic, a multiplication and an addition counted as two, and
    of its inputs and outputs passing memory; of AdamW and of weights that are put back it is the memory. What works
    number by number is left out: it could be done on the way. Attention is plain products. `stage` says what it is of.
    """

    def __init__(self, flops_per_second: float, bytes_per_second: float, stage: Callable[[], str] = str) -> None:
        super().__init__()
        self.rates, self._stage, self.flops = (flops_per_second, bytes_per_second), stage, 0
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def of(self, work: Callable[[], Any]) -> "Floor":
        """This, with what the work needs at least."""
        with sdpa_kernel(SDPBackend.MATH), self:
            work()
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out, packet = func(*args, **(kwargs or {})), func.overloadpacket
        if packet in flop_registry or packet in PASSES:
            formula = flop_registry.get(packet, lambda *_, **__: 0)
            flops = formula(*args, **(kwargs or {}), out_val=out)
            num_bytes = PASSES.get(packet, 1) * sum(x.nbytes for x in tree_leaves((args, out)) if isinstance(x, Tensor))
            self.flops += flops
            self.seconds[self._stage()] += max(flops / self.rates[0], num_bytes / self.rates[1])
        return out


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the best of several large matrix products."""
    best = 0.0
    for rows, inner, columns in CUDA_PRODUCTS if device.type == "cuda" else CPU_PRODUCTS:
        a = torch.randn(rows, inner, device=device, dtype=dtype)
        b = torch.randn(inner, columns, device=device, dtype=dtype)
        best = max(best, 2 * rows * inner * columns / least_seconds(device, functools.partial(torch.mm, a, b)))
    return best


def copy_rate(device: torch.device) -> float:
    """Bytes that a copy in the device's memory reads and writes in a second."""
    source = torch.ones(COPY_BYTES[device.type], device=device, dtype=torch.uint8)
    into = torch.empty_like(source)
    return 2 * len(source) / least_seconds(device, lambda: into.copy_(source))


def least_seconds(device: torch.device, work: Callable[[], Any]) -> float:
    """The shortest of several times until the device has done some work."""
    least = float("inf")
    for _ in range(REPEATS):
        synchronize(device)
        started = time.perf_counter()
        work()
        synchronize(device)
        least = min(least, time.perf_counter() - started)
    return least


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
