"""Which device a run computes on, in which precision, and with which of torch's global settings."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils import deterministic

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
T = TypeVar("T")


def choose_device(name: str) -> torch.device:
    """The device of a `device` setting, auto being CUDA when there is one; ValueError for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}") from error
    if device.type != "cuda":
        return device
    num_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= num_devices:
        seen = f"{num_devices or 'no'} CUDA device{'s' * (num_devices > 1)}{', counted from 0' * (num_devices > 0)}"
        raise ValueError(
            f"device={name}, but torch sees {seen} (CUDA_VISIBLE_DEVICES="
            f"{os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}); check the number and the driver, or use cpu"
        )
    return device


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The autocast type of a `precision` setting; None computes in the weights' own precision.

    ValueError for an unknown setting, and for half precision on a device other than CUDA.
    """
    choices = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
    if precision == "auto":
        return torch.float16 if device.type == "cuda" else None
    if precision not in choices:
        raise ValueError(f"precision must be auto, fp32, fp16 or bf16, got {precision!r}")
    if choices[precision] is not None and device.type != "cuda":
        raise ValueError(f"precision={precision} needs a CUDA device, got {device}; set precision to fp32 or auto")
    return choices[precision]


def prepare_torch(num_threads: int | None, device: str) -> None:
    """Set what is global in torch, before the models are built, so that the same numbers come out again.

    CPU kernels repeat themselves for a given number of threads; torch chooses it when None. A GPU given with its number
    becomes the process's own, so that nothing is put on the first one by habit. Errors as in `choose_device`.
    """
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False  # it picks kernels by their speed at the moment, so two starts may differ
    if choose_device(device).type == "cuda":
        if device.startswith("cuda:"):
            torch.cuda.set_device(device)
        torch.use_deterministic_algorithms(True)  # only to warn would choose attention kernels that vary
        # For finding bugs; it costs a pass over all memory. torch sets the attribute's type at run time only.
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        # Without CUBLAS_WORKSPACE_CONFIG torch refuses matrix products under deterministic algorithms. It looks once,
        # and gives cuBLAS a workspace of its own in any case. Left in place, the variable is parsed again by torch 2.11
        # at each product with a bias: on an H100, a third of the time of prompt tuning.
        if CUBLAS not in os.environ:
            os.environ[CUBLAS] = ":4096:8"
            torch.ones(1, 1, device="cuda") @ torch.ones(1, 1, device="cuda")
            del os.environ[CUBLAS]


def to_host(found: T) -> T:
    """Dataclasses, lists and tuples of any depth with all their tensors on the CPU: in one copy, so one wait."""
    tensors = [tensor for tensor in _tensors(found) if not tensor.is_cpu]
    if not tensors:
        return found
    tensors.sort(key=Tensor.element_size, reverse=True)  # each then begins at a multiple of its numbers' size
    parts = [tensor.detach().flatten().view(torch.uint8) for tensor in tensors]
    copies = torch.cat(parts).cpu().split([len(part) for part in parts])
    pairs = zip(tensors, copies, strict=True)
    return _replace(found, {id(tensor): copy.view(tensor.dtype).view(tensor.shape) for tensor, copy in pairs})


def _tensors(found: Any) -> list[Tensor]:
    if isinstance(found, Tensor):
        return [found]
    items = list(vars(found).values()) if dataclasses.is_dataclass(found) else found
    return [tensor for item in items for tensor in _tensors(item)] if isinstance(items, list | tuple) else []


def _replace(found: Any, copies: Mapping[int, Tensor]) -> Any:
    if isinstance(found, Tensor):
        return copies.get(id(found), found)
    if isinstance(found, list | tuple):
        return type(found)(_replace(item, copies) for item in found)
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        return dataclasses.replace(found, **{name: _replace(item, copies) for name, item in vars(found).items()})
    return found
