"""Figures of a run for TensorBoard or Weights & Biases, beside its own files."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from clipscore.config.fields import RunConfig
from scripts.runs.process import optional
from scripts.runs.rows import Row

MODULES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}
Log = Callable[[Mapping[str, float], int], Any]  # figures, and the step that they are of

log = logging.getLogger(__name__)


def module(config: RunConfig) -> Any:
    """What logs, None for nothing; RuntimeError: its package is not installed."""
    name = config.log_to
    return None if name == "none" else optional(MODULES[name], name, f"log_to={name}")


@contextmanager
def tracker(config: RunConfig, folder: Path) -> Iterator[Log]:
    """What takes figures: event files in the run folder, or a run of the project rlcf of W&B, offline or not."""
    kind = module(config)
    if config.log_to == "tensorboard":
        with kind.SummaryWriter(folder / "tensorboard") as writer:
            yield lambda figures, step: [writer.add_scalar(key, value, step) for key, value in figures.items()]
    elif config.log_to == "wandb":
        with kind.init(project="rlcf", name=folder.name, dir=folder, config=config.model_dump(mode="json")) as run:
            yield lambda figures, step: run.log(dict(figures), step=step)
    else:
        yield lambda figures, step: None


def log_run(config: RunConfig, folder: Path, summary: Row, rows: Sequence[Row]) -> None:
    """The mean reward at each step of adaptation, and then the figures of the summary, which is on the disk already."""
    rewards = [row["rewards"] for row in rows if row.get("rewards")]
    try:
        with tracker(config, folder) as add:
            for step in range(min(map(len, rewards), default=0)):
                add({"reward": float(np.mean([np.mean(of_sample[step]) for of_sample in rewards]))}, step)
            figures = {key: value for key, value in summary.items() if isinstance(value, int | float)}
            add(figures, max(map(len, rewards), default=0))
    except Exception as error:  # of a network, a server, a disk: the run is done in any case
        log.warning("log_to=%s failed (%r); the summary is in %s", config.log_to, error, folder)
