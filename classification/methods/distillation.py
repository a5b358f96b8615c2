"""Distillation in other forms than the plain one: decoupled, and with adaptive temperatures.

Source of the official versions: TPT/tune_cls_kd.py, TPT/utils/{DKD,ATKD}.py.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

ATKD_EPS = 1e-5
ATKD_GAIN = 2.0  # logits are standardised to this deviation


def dkd_loss(
    student: Tensor, teacher: Tensor, alpha: float = 1.0, beta: float = 0.5, temperature: float = 1.0
) -> Tensor:
    """Decoupled distillation: target against the rest, and within the rest. [S, C], [S, C] -> scalar

    The target is the teacher's first choice. Source: Zhao et al. 2022 (arXiv 2203.08679).
    """
    target = teacher.argmax(dim=1, keepdim=True)  # [S, 1]
    s, t = student / temperature, teacher / temperature
    target_term = _kl(_binary_log_probs(s, target), _binary_log_probs(t, target))
    rest = torch.arange(teacher.shape[1] - 1, device=target.device).expand(len(target), -1)
    rest = rest + (rest >= target)  # all classes but the target: [S, C - 1]
    s_rest, t_rest = (z.gather(1, rest).log_softmax(dim=1) for z in (s, t))
    return temperature**2 * (alpha * target_term + beta * _kl(s_rest, t_rest))


def atkd_loss(student: Tensor, teacher: Tensor, fixed: bool = False) -> Tensor:
    """Distillation with standardised logits. [S, C], [S, C] -> scalar

    Args:
        student: logits of the policy.
        teacher: logits of the reward model.
        fixed: the formula as published. The release swaps mean and deviation (official TPT/utils/ATKD.py), and the
            paper's row depends on it, so that is the default.

    Source: Guo et al. 2020, "Reducing the teacher-student gap via adaptive temperatures".
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


def _binary_log_probs(logits: Tensor, target: Tensor) -> Tensor:
    """Log-probability of the target class and of all others together. [S, C], [S, 1] -> [S, 2]"""
    log_p = logits.log_softmax(dim=1)
    others = log_p.scatter(1, target, -torch.inf).logsumexp(dim=1, keepdim=True)  # [S, 1]
    return torch.cat([log_p.gather(1, target), others], dim=1)


def _kl(log_student: Tensor, log_teacher: Tensor) -> Tensor:
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
