"""One test sample on its way to a method, and the seed of what is drawn for it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class NoRoom(Exception):
    """A sample is too large for the GPU; the message names it, and what to lower."""


def describe_error(error: Exception) -> str:
    """Its message; of a GPU that is full, by torch's class, which may not be imported here, also what to lower."""
    if type(error).__name__ != "OutOfMemoryError":
        return str(error)
    said = ". ".join(str(error).split(". ")[:3])  # how much was asked for, and how much is free
    return f"{said}; take precision=fp16, fewer processes (NPROC), smaller reward.models, fewer views or candidates"


@dataclass(frozen=True)
class Sample:
    """One test sample as the method reads it, or None where it reads nothing; or the sentence why it is unreadable."""

    id: str
    tensor: Tensor | None
    error: str | None = None
    truncated: bool = False  # only a part of its picture was there

    def pin_memory(self) -> Self:
        """For the DataLoader."""
        return self if self.tensor is None else replace(self, tensor=self.tensor.pin_memory())

    def on(self, device: torch.device) -> Tensor:
        """The tensor of a sample that has one."""
        assert self.tensor is not None, self.id
        return self.tensor.to(device, non_blocking=True)


def sample_seed(run_seed: int, dataset: str, sample_id: str) -> int:
    """Seed of all that is drawn for one sample, in [0, 2^63): no order, shard or restart changes it."""
    key = json.dumps([run_seed, dataset, sample_id]).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1
