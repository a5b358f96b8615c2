"""A task without models, for tests of the launcher. As a program it is `scripts.run` with this task in the registry.

Files in the data root, which is no part of a run's identity, say what goes wrong: samples in broken.txt cannot be read,
those in nan.txt have no finite result, those in stop.txt get SIGTERM; slow.txt holds the seconds that a sample takes.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from clipscore.config.fields import RunConfig, StrictModel
from scripts import run
from scripts.runs import loop

sys.modules["dummy.config"] = sys.modules["dummy.task"] = sys.modules[__name__]  # where scripts.run looks
CARRY_INTERVAL = 4


class Section(StrictModel):
    scale: float = Field(2.5, gt=0, description="a factor")
    models: list[str] = []
    pair: tuple[float, float] = (0.0, 1.0)


class Item(StrictModel):
    weight: float = 1.0


class DummyConfig(RunConfig):
    task: Literal["dummy"] = "dummy"
    order: Literal["shuffled", "listed"] = "listed"
    lr: float = 0.1
    steps: int = 1
    flag: bool = False
    items: list[Item] = []
    section: Section = Section()
    momentum: Section | None = None
    num_samples: int = 10
    sequential: bool = False


@dataclass
class DummySample:
    id: str
    error: str | None


class DummyTask:
    """Sample number i gives i * lr * scale; a sequential task adds half of what came before."""

    progress_metric = "mean"
    fingerprint: dict[str, str] = {"weights": "abc"}
    about = {"unit": "none"}
    num_built, at_once = 0, 1

    def __init__(self, config: DummyConfig) -> None:
        type(self).num_built += 1
        self.config = config
        self.ids = [f"sample{index}" for index in range(config.num_samples)]
        self.sequential = config.sequential
        self._carried = 0.0

    @classmethod
    def check(cls, config: DummyConfig) -> None:
        if config.dataset == "nowhere":
            raise FileNotFoundError("no data set nowhere")

    def samples(self, ids: list[str]) -> Iterator[DummySample]:
        broken = self._listed("broken.txt")
        for key in ids:
            yield DummySample(key, f"cannot read /data/{key}.png" if key in broken else None)

    def adapt(self, sample: DummySample) -> dict:
        time.sleep(float(next(iter(self._listed("slow.txt")), 0)))
        if sample.id in self._listed("stop.txt"):
            os.kill(os.getpid(), signal.SIGTERM)
        value = int(sample.id.removeprefix("sample")) * self.config.lr * self.config.section.scale
        if self.sequential:
            value += 0.5 * self._carried
            self._carried = value
        if sample.id in self._listed("nan.txt"):
            value = float("nan")
        return {"id": sample.id, "value": value, "seconds": 0.25}

    def progress(self, rows: list[dict]) -> float:
        return self.summarize(rows)["mean"]

    def summarize(self, rows: list[dict]) -> dict[str, float]:
        return {"mean": sum(row["value"] for row in rows) / len(rows)}

    def state_dict(self) -> dict:
        import torch  # only sequential runs need it

        return {"carried": self._carried, "ballast": torch.zeros(4096)}

    def load_state_dict(self, state: dict) -> None:
        self._carried = state["carried"]

    def _listed(self, name: str) -> list[str]:
        file = Path(self.config.data_root) / name
        return file.read_text().split() if file.is_file() else []


if __name__ == "__main__":
    run.TASKS["dummy"] = "Dummy"
    loop.CARRY_INTERVAL = CARRY_INTERVAL
    sys.exit(run.main())
