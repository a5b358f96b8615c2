"""Updates of tuned weights under fp16 autocast: the loss is scaled against underflow, and weights are cast at once."""

import torch
from torch import Tensor
from torch.amp import GradScaler

from clipscore.lean_blocks import Copies

INIT_LOSS_SCALE = 1000.0  # the official code's; used under fp16 autocast only
MAX_REPEATED_STEPS = 20  # a gradient that is not finite at 1000 / 2^20 is so at any scale


class Updates:
    """Steps of one optimizer.

    Args:
        optimizer: over the tuned parameters; None when nothing is tuned.
        scale_loss: scale the loss; the scale restarts with each sample.
        device: of the tuned parameters.
        copies: tuned weights and their copies in the autocast type, see `lean_blocks.cast_tuned`.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer | None, scale_loss: bool, device: torch.device, copies: Copies
    ) -> None:
        self.optimizer, self.copies = optimizer, copies
        self.scaler = GradScaler(device.type, init_scale=INIT_LOSS_SCALE, enabled=scale_loss)
        self.looks = True  # at each step for an overflow, which the host waits for; or in `check` only
        self.num_repeated = 0  # since `restart`
        self._scaler_start, self._one = self.scaler.state_dict(), torch.ones((), device=device)

    @torch.no_grad()
    def restart(self) -> None:
        """The optimizer as it was made: moments and step counters are zero, in the memory that they have."""
        if self.optimizer is not None:
            moments = [tensor for state in self.optimizer.state.values() for tensor in state.values()]
            if moments:
                torch._foreach_zero_(moments)
        self.scaler.load_state_dict(self._scaler_start)
        self.num_repeated = 0

    def step(self, loss: Tensor) -> None:
        """Lower the loss. A gradient that overflows is taken again at half the loss scale, or left out: see `looks`.

        FloatingPointError: it is finite at no scale.
        """
        assert self.optimizer is not None
        looks = self.looks and self.scaler.is_enabled()
        while True:
            self.forget_gradients()
            loss.backward(self.scale() if self.scaler.is_enabled() else None, retain_graph=looks)
            self._gather_gradients()
            self.scaler.step(self.optimizer)  # does nothing where a gradient is not finite ...
            self.scaler.update()  # ... and this halves the scale then
            if not looks or not self._is_lost(self.scaler.get_scale()):
                break
            self.num_repeated += 1
            if self.num_repeated > MAX_REPEATED_STEPS:
                raise FloatingPointError(f"the gradient is not finite (loss {loss.item()}); lower lr or use fp32")
        self.refresh()

    def scale(self) -> Tensor:
        """The loss scale, on the device; to be given to `check`."""
        return self.scaler.scale(self._one)

    def check(self, scale: float) -> None:
        """FloatingPointError where a step since `restart` was left out because its gradient overflowed."""
        if self.scaler.is_enabled() and self._is_lost(scale):
            raise FloatingPointError("the gradient overflows at this loss scale")

    def forget_gradients(self) -> None:
        """Give the gradients' memory to the next forward pass."""
        assert self.optimizer is not None
        self.optimizer.zero_grad(set_to_none=True)
        for _, copy in self.copies:  # they have some where a backward pass was broken off
            copy.grad = None

    def forget(self) -> None:
        """Give all memory back: an episode was broken off at any place."""
        if self.optimizer is not None:
            self.forget_gradients()
            self.optimizer.state.clear()
            for name in ("grad_scale", "found_inf"):  # of the loss scale, which a step that ends takes off again
                vars(self.optimizer).pop(name, None)

    @torch.no_grad()
    def refresh(self) -> None:
        """The weights have changed: so do their copies, by one operation."""
        if self.copies:
            torch._foreach_copy_([copy for _, copy in self.copies], [weight for weight, _ in self.copies])

    @torch.no_grad()
    def _gather_gradients(self) -> None:
        """Gradients of the copies become those of their weights; autocast casts them one by one to the same numbers."""
        halves: list[Tensor] = []
        wholes: list[Tensor] = []
        for weight, copy in self.copies:
            if copy.grad is not None:
                halves.append(copy.grad)
                wholes.append(torch.empty_like(weight))
                weight.grad, copy.grad = wholes[-1], None
        if halves:
            torch._foreach_copy_(wholes, halves)

    def _is_lost(self, scale: float) -> bool:
        return scale != INIT_LOSS_SCALE / 2**self.num_repeated
