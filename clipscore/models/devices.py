"""Which device a run computes on, and in which precision."""

import os

import torch


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
