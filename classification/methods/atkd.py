"""Distillation with adaptive temperatures.

Source: Guo et al. 2020, "Reducing the teacher-student gap via adaptive temperatures"; official TPT/utils/ATKD.py.
"""

import functools

import torch
from pydantic import Field
from torch import Tensor

from classification.methods.kd import Kd
from clipscore.config.fields import StrictModel
from clipscore.objectives import Loss

ATKD_EPS = 1e-5
ATKD_GAIN = 2.0  # logits are standardised to this deviation


class Atkd(Kd):
    """Distillation by `atkd_loss`, which has no other temperature."""

    class Options(StrictModel):
        """The form of its loss."""

        atkd_fixed: bool = Field(False, description="as published; false: as released, mean and deviation swapped")

    reads = Kd.reads - {"temperature"}
    batches = True

    def loss(self) -> Loss:
        """Of student and teacher logits, [S, C] each."""
        return functools.partial(atkd_loss, fixed=self.options.atkd_fixed)


def atkd_loss(student: Tensor, teacher: Tensor, fixed: bool = False) -> Tensor:
    """Distillation of the reward model with standardised logits. [S, C], [S, C] -> scalar

    `fixed` is the formula as published. The release swaps mean and deviation (official TPT/utils/ATKD.py), and the
    paper's row depends on it, so that is the default.
    """
    s_shift, s_scale = _shift_and_scale(student, fixed)
    t_shift, t_scale = _shift_and_scale(teacher, fixed)
    log_s = ((student - s_shift) / s_scale * ATKD_GAIN).log_softmax(dim=1)
    log_t = ((teacher - t_shift) / t_scale * ATKD_GAIN).log_softmax(dim=1)
    divergence = (log_t.exp() * (log_t - log_s)).sum(dim=1, keepdim=True)  # [S, 1]
    return (divergence * (s_scale - ATKD_EPS) ** 2).mean()


@torch.no_grad()
def _shift_and_scale(logits: Tensor, fixed: bool) -> tuple[Tensor, Tensor]:
    std, mean = torch.std_mean(logits, dim=1, keepdim=True, unbiased=False)
    return (mean, std + ATKD_EPS) if fixed else (std, mean + ATKD_EPS)
