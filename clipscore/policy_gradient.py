"""The loss of RLCF: REINFORCE with a baseline over the K candidates that the policy proposed.

Source: paper Sec. 3; official TPT/tpt_cls_rl.py, retrieval/clip_ret_policy.py.
"""

import torch
from torch import Tensor


def reinforce_loss(nll: Tensor, advantages: Tensor) -> Tensor:
    """Policy-gradient loss of one episode: minimising it raises candidates with a positive advantage. -> scalar

    Args:
        nll: negative log-probability of each candidate under the policy, nats. [S, K]
        advantages: reward minus baseline, constant. [S, K]

    Raises:
        ValueError: the two shapes differ.
    """
    if nll.shape != advantages.shape:
        raise ValueError(f"one advantage per candidate expected, got {list(advantages.shape)} for {list(nll.shape)}")
    return (advantages * nll).mean()


def candidate_loss(logits: Tensor, candidates: Tensor, advantages: Tensor, zero_sum: bool) -> Tensor:
    """`reinforce_loss` of the candidates' cross-entropies, from logits. -> scalar

    With A_s the sum of a view's advantages,
        mean(advantages * nll) = (sum_s A_s * logsumexp_s - sum_sk advantages_sk * logits_sk) / (S * K).
    A baseline that is each view's own mean makes every A_s zero; the normaliser drops out, and gradient flows through
    the logits of the candidates only. The other classes, however many, need no backward pass.

    Args:
        logits: of the policy. [S, C]
        candidates: class numbers. [S, K]
        advantages: reward minus baseline, constant. [S, K]
        zero_sum: whether each row of `advantages` adds up to zero by construction, see `advantages_sum_to_zero`.
    """
    chosen = logits.gather(1, candidates)  # [S, C] -> [S, K]
    if zero_sum:
        return reinforce_loss(chosen, -advantages)  # not -chosen, which would be one more operation backwards
    return reinforce_loss(torch.logsumexp(logits, dim=1, keepdim=True) - chosen, advantages)


def advantages_sum_to_zero(baseline: str, over: str, num_candidates: int) -> bool:
    """Whether `subtract_baseline` with these options gives rows that add up to zero."""
    return baseline == "mean" and over == "view" and num_candidates > 1
