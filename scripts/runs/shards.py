"""Which part of a run a process does: shard i of n by `shard=i/n`, or by its place among the processes of torchrun."""

from __future__ import annotations

import functools
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

from clipscore.config.fields import RunConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """Every `count`-th sample of a run, from number `index` on. Shard 0 of 1 is the whole run."""

    index: int = 0
    count: int = 1

    @classmethod
    def of(cls, config: RunConfig) -> Shard:
        """The shard of a configuration, by its i/n; ValueError when there is no such shard."""
        match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", config.shard or "0/1")
        if match is None or not int(match[1]) < int(match[2]):
            raise ValueError(f"shard={config.shard}: expected i/n with i from 0 to n - 1, n at most 9999, like 0/4")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def file_name(self, stem: str, suffix: str) -> str:
        """rows.jsonl of the whole run, rows-0-of-4.jsonl of a part."""
        return f"{stem}-{self.index}-of-{self.count}{suffix}" if self.count > 1 else stem + suffix


@dataclass(frozen=True)
class Rank:
    """A process among those that torchrun started; without torchrun the only one."""

    index: int = 0
    count: int = 1
    local: int = 0  # among those on this machine

    @classmethod
    def of_this_process(cls) -> Rank:
        """As torchrun's environment variables say; those of the same names that a cluster sets mean no such thing."""
        values = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
        is_torchrun = "TORCHELASTIC_RUN_ID" in os.environ and all(value.isdigit() for value in values)
        return cls(*map(int, values)) if is_torchrun else cls()

    def place(self, config: RunConfig) -> RunConfig:
        """The configuration with this process's shard and GPU; ValueError: more processes than the GPUs can share."""
        if self.count == 1:
            return config
        import torch  # slow to import, and only torchrun's processes choose a GPU

        given, device = Shard.of(config), config.device
        shard = Shard(given.index + given.count * self.index, given.count * self.count)
        if device in ("auto", "cuda") and (num_gpus := torch.cuda.device_count()):
            gpu, most = self.local // config.procs_per_gpu, num_gpus * config.procs_per_gpu
            if gpu >= num_gpus:
                there = f"{num_gpus} CUDA device(s) for {config.procs_per_gpu} each (procs_per_gpu)"
                what = f"torchrun started more than {most} processes on this machine, which has {there}"
                raise ValueError(f"{what}; start fewer, or raise it")
            device = f"cuda:{gpu}"
            if config.procs_per_gpu > 1 and not self.index:
                _say_if_processes_take_turns()
        return config.model_copy(update={"shard": str(shard), "device": device})


@functools.cache
def _say_if_processes_take_turns() -> None:
    pipes = os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")
    if not Path(pipes, "control").exists():
        mend = "`nvidia-cuda-mps-control -d` starts it (looked for in %s), or set NPROC to the number of GPUs"
        log.warning(f"several processes share a GPU without NVIDIA's MPS, so that they take turns; {mend}", pipes)
