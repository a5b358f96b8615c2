"""The loop that all trainings of the demo share."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

DEFAULT_FOLDER = Path("pretrained/demo")
Step = TypeVar("Step")


def fit(
    title: str,
    steps: Collection[Step],
    loss_of: Callable[[Step], Tensor],
    optimizer: torch.optim.Optimizer,
    rate: torch.optim.lr_scheduler.LRScheduler,
    clipped: Sequence[Tensor] = (),
) -> None:
    """An update against the loss of each step. The gradient of the `clipped` parameters has at most length 1."""
    for step in (bar := tqdm(steps, desc=title, mininterval=1.0)):
        loss = loss_of(step)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(clipped, 1.0)
        optimizer.step()
        rate.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
