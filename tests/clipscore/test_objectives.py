"""Objectives that classification and retrieval share, and the check at the end of an episode."""

from __future__ import annotations

import math

import pytest
import torch

from clipscore.objectives import Objective, PseudoLabelObjective, check_finite, kd_loss


def test_pseudo_label_is_the_policys_own_choice():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    loss = PseudoLabelObjective().step(logits, None).loss
    assert loss.item() == pytest.approx((math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 2)


def test_kd_by_hand():
    student, teacher = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[math.log(4), 0.0]])
    # at temperature 2: student 1 to sqrt(3), teacher 2 to 1; times 2 squared
    log_s = [-math.log(1 + math.sqrt(3)), math.log(math.sqrt(3)) - math.log(1 + math.sqrt(3))]
    assert kd_loss(student, teacher, 2.0).item() == pytest.approx(-4 * (2 / 3 * log_s[0] + 1 / 3 * log_s[1]))


def test_an_objective_without_reward_looks_at_no_picture():
    assert Objective().encode_images(torch.zeros(1, 3, 4, 4)) == []


@pytest.mark.parametrize(
    ("losses", "answer", "message"),
    [
        ([1.0, math.nan], [0.0], r"losses \[1.0, nan\], answer \[0.0\]...; lower lr or use fp32"),
        ([1.0], [0.0, math.inf], r"losses \[1.0\], answer \[0.0, inf\]"),
        ([], [math.nan], r"losses \[\], answer \[nan\]"),
        ([math.inf], None, r"losses \[inf\]; lower lr"),
    ],
)
def test_either_a_loss_or_the_answer_is_refused(losses, answer, message):
    with pytest.raises(FloatingPointError, match=message):
        check_finite(list(map(torch.tensor, losses)), None if answer is None else torch.tensor(answer))
    check_finite([torch.tensor(1.0)], torch.tensor([0.0]))
