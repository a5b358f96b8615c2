"""Which part of a run a process does: shard i of n by `shard=i/n`, or by its place among the processes of torchrun."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clipscore.config.fields import RunConfig

PATIENCE_S = 10.0  # for the first process to say what is wrong, and for torchrun to end the others


@dataclass(frozen=True)
class Shard:
    """Every `count`-th sample of a run, from number `index` on. Shard 0 of 1 is the whole run."""

    index: int = 0
    count: int = 1

    @classmethod
    def of(cls, config: RunConfig) -> Shard:
        """The shard of a configuration; ValueError when there is no such shard."""
        return cls.parse(config.shard) if config.shard else cls()

    @classmethod
    def parse(cls, text: str) -> Shard:
        """i/n -> shard i of n; ValueError when there is no such shard."""
        match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
        if match is None or not int(match[1]) < int(match[2]):
            raise ValueError(f"shard={text}: expected i/n with i from 0 to n - 1, n at most 9999, like 0/4 to 3/4")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def is_part(self) -> bool:
        """Whether other shards have samples too."""
        return self.count > 1

    def take(self, ids: Sequence[str]) -> list[str]:
        """The shard's samples among all of a run; a longer run adds to them."""
        return list(ids[self.index :: self.count])

    def file_name(self, stem: str, suffix: str) -> str:
        """rows.jsonl of the whole run, rows-0-of-4.jsonl of a part."""
        return f"{stem}-{self.index}-of-{self.count}{suffix}" if self.is_part else stem + suffix

    @classmethod
    def of_file(cls, path: Path) -> Shard:
        """The shard whose `file_name` it is."""
        match = re.search(r"-(\d+)-of-(\d+)$", path.stem)
        return cls(int(match[1]), int(match[2])) if match else cls()

    def refuse_sequence(self, sequential: bool) -> None:
        """A run whose samples build on each other has no shards; ValueError when it is such a one."""
        if self.is_part and sequential:
            raise ValueError(
                "a run with momentum cannot be sharded, because a sample's result depends on all samples before it; "
                "start it without shard=..., NPROC and torchrun"
            )


@dataclass(frozen=True)
class Rank:
    """A process among those that torchrun started; without torchrun the only one."""

    index: int = 0
    count: int = 1
    local: int = 0  # among those on this machine

    @classmethod
    def of_this_process(cls) -> Rank:
        """As torchrun's environment variables say."""
        values = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
        return cls(*map(int, values)) if all(value.isdigit() for value in values) else cls()

    def place(self, config: RunConfig) -> RunConfig:
        """The configuration with this process's shard and GPU; ValueError: more processes than the GPUs can share."""
        if self.count == 1:
            return config
        given = Shard.of(config)
        shard = Shard(given.index + given.count * self.index, given.count * self.count)
        return config.model_copy(update={"shard": str(shard), "device": self._device(config)})

    def _device(self, config: RunConfig) -> str:
        if config.device not in ("auto", "cuda"):
            return config.device
        import torch  # slow to import, and only torchrun's processes choose a GPU

        num_gpus, gpu = torch.cuda.device_count(), self.local // config.procs_per_gpu
        if num_gpus and gpu >= num_gpus:
            raise ValueError(
                f"torchrun started more than {num_gpus * config.procs_per_gpu} processes on this machine, which has "
                f"{num_gpus} CUDA device(s) for {config.procs_per_gpu} each (procs_per_gpu); start fewer, or raise it"
            )
        return f"cuda:{gpu}" if num_gpus else config.device

    @contextmanager
    def first_speaks(self, errors: tuple[type[Exception], ...]) -> Iterator[None]:
        """What all processes find wrong is said once: the first one says it, and torchrun ends the others meanwhile."""
        try:
            yield
        except errors:
            if self.index:
                time.sleep(PATIENCE_S)
            raise
