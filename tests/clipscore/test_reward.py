"""Scores and weights against numbers worked out by hand; the trace `G_losses` holds the baselines."""

from __future__ import annotations

import pytest
import torch

from clipscore.reward import ClipReward, clip_score, ensemble_weights


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
