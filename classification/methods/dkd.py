"""Decoupled distillation. Source: Zhao et al. 2022 (arXiv 2203.08679); official TPT/utils/DKD.py."""

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

from classification.methods.kd import Kd
from clipscore.config.fields import StrictModel
from clipscore.objectives import Loss


class Dkd(Kd):
    """Distillation by `dkd_loss`."""

    class Options(StrictModel):
        """Weights of its two terms."""

        dkd_alpha: float = 1.0
        dkd_beta: float = 0.5

    def loss(self) -> Loss:
        """Of student and teacher logits, [S, C] each."""
        options = self.options
        return functools.partial(
            dkd_loss, alpha=options.dkd_alpha, beta=options.dkd_beta, temperature=options.temperature
        )


def dkd_loss(
    student: Tensor, teacher: Tensor, alpha: float = 1.0, beta: float = 0.5, temperature: float = 1.0
) -> Tensor:
    """Target, the teacher's first choice, against the rest, and within the rest. [S, C], [S, C] -> scalar"""
    target = teacher.argmax(dim=1, keepdim=True)  # [S, 1]
    s, t = student / temperature, teacher / temperature
    target_term = _kl(_binary_log_probs(s, target), _binary_log_probs(t, target))
    rest = torch.arange(teacher.shape[1] - 1, device=target.device).expand(len(target), -1)
    rest = rest + (rest >= target)  # all classes but the target: [S, C - 1]
    s_rest, t_rest = (z.gather(1, rest).log_softmax(dim=1) for z in (s, t))
    return temperature**2 * (alpha * target_term + beta * _kl(s_rest, t_rest))


def _binary_log_probs(logits: Tensor, target: Tensor) -> Tensor:
    """Log-probability of the target class and of all others together. [S, C], [S, 1] -> [S, 2]"""
    log_p = logits.log_softmax(dim=1)
    others = log_p.scatter(1, target, -torch.inf).logsumexp(dim=1, keepdim=True)  # [S, 1]
    return torch.cat([log_p.gather(1, target), others], dim=1)


def _kl(log_student: Tensor, log_teacher: Tensor) -> Tensor:
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
