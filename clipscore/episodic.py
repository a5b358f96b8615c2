"""Episodes: adapt to one sample, then start again from the same weights and the same optimizer.

Source: paper Sec. 3 (momentum buffer: Sec. 4, RLCF-S-M); official TPT/clip/custom_clip.py, tune_cls_rl.py.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler

from clipscore.config.fields import MomentumConfig

INIT_LOSS_SCALE = 1000.0  # the official code's; used under fp16 autocast only
MAX_REPEATED_STEPS = 20  # a gradient that is not finite at 1000 / 2^20 is so at any scale


class EpisodicState:
    """What an episode changes, and how it is put back.

    With momentum a running average follows the adapted weights, and every `update_interval` samples the start weights
    become (1 - mix) * source + mix * average; the average goes on. Without, they never move.

    Args:
        tensors: tuned parameters, and buffers that change with them, by name. Restored in place.
        optimizer: over the tuned parameters; None when nothing is tuned.
        momentum: None for purely episodic adaptation.
        scale_loss: scale the loss against fp16 underflow; the scale restarts with each episode.
        written: names of tuned tensors into which the policy writes the sample's own values before the first step.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer | None,
        momentum: MomentumConfig | None = None,
        scale_loss: bool = False,
        written: Iterable[str] = (),
    ) -> None:
        self.tensors, self.optimizer, self.momentum = dict(tensors), optimizer, momentum
        self.source = self.start = _copies(self.tensors)
        self.average = _as_floats(self.source) if momentum else {}
        self.num_samples = 0  # since the last refresh of the start weights
        self.moved = torch.zeros(())  # how far the last episode moved the tuned parameters, L2 norm
        self._written = list(written)
        self._before_steps: dict[str, Tensor] | None = None  # of these, once there was a step
        device = next((tensor.device.type for tensor in self.tensors.values()), "cpu")
        self.scaler = GradScaler(device, init_scale=INIT_LOSS_SCALE, enabled=scale_loss)
        self._scaler_start = self.scaler.state_dict()
        self.repeated_steps = 0  # of the last episode

    @contextmanager
    def episode(self) -> Iterator[None]:
        """Restore weights, optimizer and loss scale on entry; feed the running average on a clean exit only."""
        self.restore(self.start)
        self._restart_optimizer()
        self._before_steps, self.repeated_steps = None, 0
        yield
        self.moved = self._distance()
        if self.momentum is not None:
            self._follow(self.momentum)

    def restore_source(self) -> None:
        """Put back the weights of before any adaptation, whatever the momentum buffer made of the start weights."""
        self.restore(self.source)

    def step(self, loss: Tensor) -> Tensor:
        """One update of the tuned parameters that lowers the loss; returns it without its graph, which fp16 keeps.

        A gradient that overflows is taken again at half the loss scale. FloatingPointError: it is finite at no scale.
        """
        assert self.optimizer is not None
        if self._before_steps is None:
            self._before_steps = _copies({name: self.tensors[name] for name in self._written})
        while True:
            self.forget_gradients()
            self.scaler.scale(loss).backward(retain_graph=self.scaler.is_enabled())
            self.scaler.step(self.optimizer)  # does nothing where a gradient is not finite ...
            self.scaler.update()  # ... and this halves the scale then
            if not self.scaler.is_enabled() or self.scaler.get_scale() == INIT_LOSS_SCALE / 2**self.repeated_steps:
                break
            self.repeated_steps += 1
            if self.repeated_steps > MAX_REPEATED_STEPS:
                raise FloatingPointError(f"the gradient is not finite (loss {loss.item()}); lower lr or use fp32")
        return loss.detach()

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
    def _restart_optimizer(self) -> None:
        """AdamW as it was made: moments and step counters are zero, in the memory that they have."""
        if self.optimizer is not None:
            moments = [tensor for state in self.optimizer.state.values() for tensor in state.values()]
            if moments:
                torch._foreach_zero_(moments)
        self.scaler.load_state_dict(self._scaler_start)

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
