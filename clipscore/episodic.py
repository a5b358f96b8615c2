"""Episodes: adapt to one sample, then start again from the same weights and the same optimizer.

Source: paper Sec. 3 (momentum buffer: Sec. 4, RLCF-S-M); official TPT/clip/custom_clip.py, tune_cls_rl.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler

from clipscore.config.fields import MomentumConfig

INIT_LOSS_SCALE = 1000.0  # the official code's; used under fp16 autocast only


class EpisodicState:
    """What an episode changes, and how it is put back.

    Without momentum the start weights never move. With it, a running average follows the adapted weights, and every
    `update_interval` samples the start weights become (1 - mix) * source + mix * average; the average goes on.

    Args:
        tensors: tuned parameters, and buffers that change with them, by name. Restored in place.
        optimizer: over the tuned parameters; None when nothing is tuned.
        momentum: None for purely episodic adaptation.
        scale_loss: scale the loss against fp16 underflow; the scale restarts with each episode.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer | None,
        momentum: MomentumConfig | None = None,
        scale_loss: bool = False,
    ) -> None:
        self.tensors = dict(tensors)
        self.optimizer = optimizer
        self.momentum = momentum
        self.source = _copies(self.tensors)
        self.start = self.source
        self.average = _as_floats(self.source) if momentum else {}
        self.num_samples = 0  # since the last refresh of the start weights
        self.moved = torch.zeros(())  # how far the last episode moved the tuned parameters, L2 norm
        self._versions: dict[str, int] | None = None  # of the tensors when they were restored, until the first step
        self._prepared: dict[str, Tensor] = {}  # what a policy wrote into tuned tensors before the first step
        self.scaler = GradScaler("cuda", init_scale=INIT_LOSS_SCALE, enabled=scale_loss)
        self._scaler_start = self.scaler.state_dict()

    @contextmanager
    def episode(self) -> Iterator[None]:
        """Restore weights, optimizer and loss scale on entry; feed the running average on a clean exit only."""
        self.restore(self.start)
        if self.optimizer is not None:
            self.optimizer.state.clear()
        self.scaler.load_state_dict(self._scaler_start)
        self._versions, self._prepared = {name: tensor._version for name, tensor in self.tensors.items()}, {}
        yield
        self.moved = self._distance()
        if self.momentum is not None:
            self._follow(self.momentum)

    def restore_source(self) -> None:
        """Put back the weights of before any adaptation, whatever the momentum buffer made of the start weights."""
        self.restore(self.source)

    def step(self, loss: Tensor) -> None:
        """One update of the tuned parameters that lowers the loss."""
        assert self.optimizer is not None
        if self._versions is not None:
            written = [name for name, version in self._versions.items() if self.tensors[name]._version != version]
            self._prepared, self._versions = _copies({name: self.tensors[name] for name in written}), None
        self.forget_gradients()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:  # torch's fused optimizers leave out this note of a write
                torch.autograd.graph.increment_version(parameter)

    def forget_gradients(self) -> None:
        """Give the gradients' memory to the next forward pass."""
        assert self.optimizer is not None
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """What the next sample depends on: nothing without momentum."""
        if self.momentum is None:
            return {}
        state = {"average": self.average, "num_samples": self.num_samples}
        # Right after a refresh the start weights follow from the average, and the state is half as large.
        just_refreshed = self.num_samples == 0 and self.start is not self.source
        return state if just_refreshed else {**state, "start": self.start}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        if self.momentum is None:
            return
        self.num_samples = state["num_samples"]
        self.average = self._on_device(state["average"])
        self.start = self._on_device(state["start"]) if "start" in state else self._refreshed(self.momentum)

    @torch.no_grad()
    def restore(self, weights: Mapping[str, Tensor]) -> None:
        """Put these weights into the tuned tensors, in place."""
        if self.tensors:
            torch._foreach_copy_(list(self.tensors.values()), [weights[name] for name in self.tensors])

    @torch.no_grad()
    def _distance(self) -> Tensor:
        """L2 norm of the change of all tuned parameters by the steps of the episode."""
        tuned = {name: tensor for name, tensor in self.tensors.items() if tensor.requires_grad}
        if not tuned or self._versions is not None:  # nothing to tune, or no step was made
            return torch.zeros(())
        start = {**self.start, **self._prepared}
        return torch.stack([torch.dist(tensor, start[name]) for name, tensor in tuned.items()]).norm()

    @torch.no_grad()
    def _follow(self, momentum: MomentumConfig) -> None:
        for name, average in self.average.items():
            average.mul_(momentum.decay).add_(self.tensors[name].to(average.dtype), alpha=1 - momentum.decay)
        self.num_samples += 1
        if self.num_samples == momentum.update_interval:
            self.start = self._refreshed(momentum)
            self.num_samples = 0

    def _refreshed(self, momentum: MomentumConfig) -> dict[str, Tensor]:
        return {
            name: (1 - momentum.mix) * self.source[name] + momentum.mix * average
            for name, average in self.average.items()
        }

    def _on_device(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensors[name].to(tensor.device, copy=True) for name, tensor in self.tensors.items()}


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _as_floats(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # BatchNorm counts its batches in integers; their average is a fraction, cut off again when it is loaded.
    return {name: t.clone() if t.is_floating_point() else t.double() for name, t in tensors.items()}
