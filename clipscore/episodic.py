"""Episodes: adapt to one sample, then start again from the same weights and the same optimizer.

Source: paper Sec. 3 (momentum buffer: Sec. 4, RLCF-S-M); official TPT/clip/custom_clip.py, tune_cls_rl.py.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from clipscore.config.fields import MomentumConfig
from clipscore.lean_blocks import Copies
from clipscore.models.devices import to_host
from clipscore.updates import Updates

T = TypeVar("T")


class EpisodicState:
    """What an episode changes, and how it is put back.

    With momentum a running average follows the adapted weights, and every `update_interval` samples the start weights
    become (1 - mix) * source + mix * average; the average goes on. Without, they never move.

    Args:
        tensors: tuned parameters, and buffers that change with them, by name. Restored in place.
        optimizer: over the tuned parameters; None when nothing is tuned.
        momentum: None for purely episodic adaptation.
        scale_loss, copies: under fp16 autocast, see `Updates`.
        written: names of tuned tensors into which the policy writes the sample's own values before the first step.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer | None,
        momentum: MomentumConfig | None = None,
        scale_loss: bool = False,
        written: Iterable[str] = (),
        copies: Copies | None = None,
    ) -> None:
        self.tensors, self.momentum = dict(tensors), momentum
        self.source = self.start = _copies(self.tensors)
        self.average = _as_floats(self.source) if momentum else {}
        self.num_samples = 0  # since the last refresh of the start weights
        self.moved = torch.zeros(())  # how far the last episode moved the tuned parameters, L2 norm
        self._written = list(written)
        self._before_steps: dict[str, Tensor] | None = None  # of these, once there was a step
        device = next((tensor.device for tensor in self.tensors.values()), torch.device("cpu"))
        self.updates = Updates(optimizer, scale_loss, device, copies or [])

    @contextmanager
    def episode(self) -> Iterator[None]:
        """Restore weights, optimizer and loss scale on entry; feed the running average on a clean exit only."""
        self.restore(self.start)
        self.updates.restart()
        self._before_steps, self._is_read = None, False
        yield
        if not self._is_read:
            self.read(None)
        if self.momentum is not None:
            self._follow(self.momentum)

    def read(self, found: T) -> T:
        """What an episode found, on the host, in one copy with all that the state asks the device.

        FloatingPointError: a step was left out because it overflowed.
        """
        found, self.moved, scale = to_host((found, self._distance(), self.updates.scale()))
        self._is_read = True
        self.updates.check(scale.item())
        return found

    def restore_source(self) -> None:
        """Put back the weights of before any adaptation, whatever the momentum buffer made of the start weights."""
        self.restore(self.source)

    def step(self, loss: Tensor) -> Tensor:
        """One update of the tuned parameters that lowers the loss; returns it without its graph."""
        if self._before_steps is None:
            self._before_steps = _copies({name: self.tensors[name] for name in self._written})
        self.updates.step(loss)
        return loss.detach()

    def forget_gradients(self) -> None:
        """Give the gradients' memory to the next forward pass."""
        self.updates.forget_gradients()

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
            self.updates.refresh()

    @torch.no_grad()
    def _distance(self) -> Tensor:
        """L2 norm of the change of all tuned parameters by the steps of the episode."""
        names = [name for name, tensor in self.tensors.items() if tensor.requires_grad]
        if not names or self._before_steps is None:  # nothing to tune, or no step was made
            return torch.zeros(())
        start = {**self.start, **self._before_steps}
        changes = torch._foreach_sub([self.tensors[name] for name in names], [start[name] for name in names])
        return torch.stack(torch._foreach_norm(changes)).norm()

    @torch.no_grad()
    def _follow(self, momentum: MomentumConfig) -> None:
        averages = list(self.average.values())
        adapted = [self.tensors[name].to(average.dtype) for name, average in self.average.items()]
        torch._foreach_mul_(averages, momentum.decay)
        torch._foreach_add_(averages, adapted, alpha=1 - momentum.decay)
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
