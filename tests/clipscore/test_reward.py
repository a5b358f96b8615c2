"""Scores, weights and baselines against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from clipscore.reward import ClipReward, clip_score, ensemble_weights, resize_images, subtract_baseline


def test_clip_score_by_hand():
    anchor, texts = torch.tensor([[1.0, 0.0]]), torch.tensor([[[0.6, 0.8], [-1.0, 0.0]]])
    torch.testing.assert_close(clip_score(anchor, texts), torch.tensor([[1.5, 0.0]]))  # 2.5 * 0.6; negative gives 0


def test_clip_score_refuses_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match=r"\[2, 3\] and \[1, 4, 3\]"):
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


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [[-1.0, 1.0], [-0.5, 0.5]]),
        ({"over": "batch"}, [[-1.25, 0.75], [0.0 - 0.25 + 0.0, 0.75]]),
        ({"baseline": "none"}, [[0.0, 2.0], [1.0, 2.0]]),
        ({"standardize": True}, [[-(0.5**0.5), 0.5**0.5], [-(0.5**0.5), 0.5**0.5]]),  # unbiased std of 2 numbers
    ],
)
def test_baselines_by_hand(options, expected):
    rewards = torch.tensor([[0.0, 2.0], [1.0, 2.0]])
    torch.testing.assert_close(subtract_baseline(rewards, **options), torch.tensor(expected), atol=2e-5, rtol=0)


def test_one_candidate_has_no_baseline():
    rewards = torch.tensor([[0.3], [0.7]])
    assert subtract_baseline(rewards) is rewards
    torch.testing.assert_close(subtract_baseline(rewards, over="batch"), torch.tensor([[-0.2], [0.2]]))


def test_ensemble_clips_each_model_before_weighting(tiny_clip):
    reward = ClipReward([tiny_clip("P"), tiny_clip("R1")], [0.5, 0.5])
    up, down = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]])
    score = reward.score([up, up], [up[None], down[None]])
    torch.testing.assert_close(score, torch.tensor([[1.25]]))  # 0.5 * 2.5 + 0.5 * 0, not 0
    with pytest.raises(ValueError, match="one teacher, got 2"):
        reward.teacher_logits([up, up], [up, up])


def test_resizing_keeps_corners_and_leaves_fitting_images_alone():
    images = torch.rand(1, 3, 4, 4)
    assert resize_images(images, 4) is images
    larger = resize_images(images, 7)  # align_corners: every second pixel of 7 is a pixel of 4
    torch.testing.assert_close(larger[..., ::2, ::2], images)
