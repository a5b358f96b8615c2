"""Rewards and objectives that the tasks share, beside what the traces replay."""

import math

import pytest
import torch

from clipscore.objectives import PseudoLabelObjective, check_finite
from clipscore.policy_gradient import reinforce_loss
from clipscore.reward import ClipReward, clip_score, ensemble_weights


def test_pseudo_label_is_the_policys_own_choice():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    loss = PseudoLabelObjective().step(logits, None).loss
    assert loss.item() == pytest.approx((math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 2)


@pytest.mark.parametrize(("losses", "answer", "message"), [
    ([1.0, math.nan], [0.0], r"losses \[1.0, nan\], answer \[0.0\]...; lower lr or use fp32"),
    ([1.0], [0.0, math.inf], r"losses \[1.0\], answer \[0.0, inf\]"),
    ([], [math.nan], r"losses \[\], answer \[nan\]"),
    ([math.inf], None, r"losses \[inf\]; lower lr"),
])  # fmt: skip
def test_either_a_loss_or_the_answer_is_refused(losses, answer, message):
    with pytest.raises(FloatingPointError, match=message):
        check_finite(list(map(torch.tensor, losses)), None if answer is None else torch.tensor(answer))
    check_finite([torch.tensor(1.0)], torch.tensor([0.0]))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"got \[1, 2\] for \[2, 2\]"):
        reinforce_loss(torch.ones(2, 2), torch.ones(1, 2))


def test_clip_score_by_hand():
    anchor, texts = torch.tensor([[1.0, 0.0]]), torch.tensor([[[0.6, 0.8], [-1.0, 0.0]]])
    torch.testing.assert_close(clip_score(anchor, texts), torch.tensor([[1.5, 0.0]]))  # 2.5 * 0.6; negative gives 0
    with pytest.raises(ValueError, match=r"\[2, 3\] and \[1, 4, 3\]"):  # which would broadcast
        clip_score(torch.ones(2, 3), torch.ones(1, 4, 3))


def test_paper_weights_are_rounded_and_add_up_to_1_01():
    assert ensemble_weights([10, 3, 5]) == [0.56, 0.17, 0.28]
    assert ensemble_weights([10, 3, 5], weighted=False) == [1 / 3] * 3
    with pytest.raises(ValueError, match="positive weights"):
        ensemble_weights([1, 0])
    with pytest.raises(ValueError, match=r"rounded to \[1.0, 0.0\]"):
        ensemble_weights([1000, 1])
    with pytest.raises(ValueError, match="at least one"):
        ClipReward([], [])


def test_ensemble_clips_each_model_before_weighting(tiny_clip):
    reward = ClipReward([tiny_clip("P"), tiny_clip("R1")], [0.5, 0.5])
    up, down = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]])
    score = reward.score([up, up], [up[None], down[None]])
    torch.testing.assert_close(score, torch.tensor([[1.25]]))  # 0.5 * 2.5 + 0.5 * 0, not 0
    with pytest.raises(ValueError, match="one teacher, got 2"):
        reward.teacher_logits([up, up], [up, up])
