"""The candidate form of the loss against the plain one."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from clipscore.policy_gradient import advantages_sum_to_zero, candidate_loss, reinforce_loss
from clipscore.reward import subtract_baseline

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(6, 10, generator=GENERATOR, dtype=torch.float64) * 5
SCORES = torch.rand(6, 3, generator=GENERATOR, dtype=torch.float64)


def plain_loss(logits, candidates, advantages):
    """mean over views and candidates of advantage * cross-entropy: the oracle."""
    k = candidates.shape[1]
    nll = F.cross_entropy(logits.repeat_interleave(k, dim=0), candidates.flatten(), reduction="none")
    return (nll * advantages.flatten()).mean()


@pytest.mark.parametrize("over", ["view", "batch"])
@pytest.mark.parametrize("baseline", ["mean", "none"])
@pytest.mark.parametrize("k", [1, 3])
def test_value_and_gradient_equal_the_plain_form(baseline, over, k):
    logits = LOGITS.clone().requires_grad_()
    candidates = LOGITS.topk(k, dim=1).indices
    advantages = subtract_baseline(SCORES[:, :k], baseline, over)
    zero_sum = advantages_sum_to_zero(baseline, over, k)
    ours, plain = candidate_loss(logits, candidates, advantages, zero_sum), plain_loss(logits, candidates, advantages)
    torch.testing.assert_close(ours, plain, atol=1e-14, rtol=0)
    torch.testing.assert_close(
        torch.autograd.grad(ours, logits)[0], torch.autograd.grad(plain, logits)[0], atol=1e-16, rtol=0
    )
    assert zero_sum == (baseline == "mean" and over == "view" and k > 1)


def test_only_candidates_get_a_gradient():
    logits = LOGITS.clone().requires_grad_()
    candidates = LOGITS.topk(3, dim=1).indices
    candidate_loss(logits, candidates, subtract_baseline(SCORES), zero_sum=True).backward()
    others = torch.ones_like(LOGITS, dtype=torch.bool).scatter(1, candidates, False)
    assert (logits.grad[others] == 0).all()
    assert (logits.grad[~others] != 0).all()


def test_minimising_raises_the_better_candidate():
    logits = torch.zeros(1, 2, requires_grad=True)
    candidate_loss(logits, torch.tensor([[0, 1]]), torch.tensor([[0.5, -0.5]]), zero_sum=True).backward()
    assert logits.grad[0, 0] < 0 < logits.grad[0, 1]


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"got \[1, 2\] for \[2, 2\]"):
        reinforce_loss(torch.ones(2, 2), torch.ones(1, 2))
