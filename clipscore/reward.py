"""The CLIP reward: how well a frozen CLIP, or several of them, thinks a candidate fits the test sample.

Source: paper Sec. 3; CLIPScore, Hessel et al. 2021 (arXiv 2104.08718); official TPT/clip_reward.py.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from clipscore.clip_model import ClipModel
from clipscore.text_encoder import encode_texts

STD_EPS = 1e-5  # added to the standard deviation, as in the official code


def clip_score(anchor: Tensor, candidates: Tensor, scale: float = 2.5) -> Tensor:
    """CLIPScore of each candidate: max(scale * cos, 0). Symmetric in image and text.

    Args:
        anchor: unit-length features of the test sample. [S, D]
        candidates: unit-length features of what the policy proposed. [S, K, D]
        scale: CLIPScore's w.

    Returns:
        [S, K], in [0, scale].

    Raises:
        ValueError: the shapes do not fit.
    """
    if anchor.ndim != 2 or candidates.ndim != 3 or candidates.shape[::2] != anchor.shape:
        raise ValueError(
            f"anchor [S, D] and candidates [S, K, D] expected, got {list(anchor.shape)} and {list(candidates.shape)}"
        )
    return (scale * torch.einsum("sd,skd->sk", anchor, candidates)).clamp(min=0)


def ensemble_weights(confidences: Sequence[float], weighted: bool = True) -> list[float]:
    """Weights of several reward models, from the relative trust in each.

    Returns:
        Each confidence over their sum, rounded to two decimals (10, 3, 5 -> 0.56, 0.17, 0.28: they may not add up to
        1); unrounded 1/M when not weighted.

    Raises:
        ValueError: no confidence, one that is not positive, or one so small that it is rounded to nothing.
    """
    if not confidences or min(confidences) <= 0:
        raise ValueError(f"reward models need positive weights, got {list(confidences)}")
    if not weighted:
        return [1 / len(confidences)] * len(confidences)
    weights = [round(confidence / sum(confidences), 2) for confidence in confidences]
    if min(weights) == 0:
        raise ValueError(f"reward weights {list(confidences)} are rounded to {weights}; drop the models that get 0")
    return weights


def resize_images(images: Tensor, size: int) -> Tensor:
    """The policy's normalised image at another model's input size. [B, 3, H, W] -> [B, 3, size, size]"""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, size=(size, size), mode="bicubic", align_corners=True)


def subtract_baseline(rewards: Tensor, baseline: str = "mean", over: str = "view", standardize: bool = False) -> Tensor:
    """Advantages: how much better a candidate is than the average candidate.

    Args:
        rewards: [S, K]
        baseline: "mean" or "none".
        over: the mean runs "view": over the K of each view, or "batch": over all S * K.
        standardize: also divide by the unbiased standard deviation + 1e-5, over the same numbers.

    Returns:
        [S, K]; the rewards unchanged when there is one number to average over (K = 1 per view, or S * K = 1).

    Source: official TPT/clip_reward.py (reward_process, process_batch, reward_amplify).
    """
    groups = rewards.reshape(1, -1) if over == "batch" else rewards  # [S, K] -> [1, S * K]
    if baseline == "none" or groups.shape[-1] == 1:
        return rewards
    advantages = groups - groups.mean(dim=-1, keepdim=True)
    if standardize:
        advantages = advantages / (groups.std(dim=-1, keepdim=True) + STD_EPS)
    return advantages.reshape(rewards.shape)


class ClipReward:
    """M frozen CLIPs with weights, see `ensemble_weights`. It keeps no features: what it scores is passed in."""

    def __init__(self, models: Sequence[ClipModel], weights: Sequence[float], scale: float = 2.5) -> None:
        if not models or len(models) != len(weights):
            raise ValueError(f"as many weights as models, at least one, expected; got {len(models)} and {len(weights)}")
        self.models, self.weights, self.scale = list(models), list(weights), scale

    @torch.no_grad()
    def encode_images(self, images: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """Unit-length features per model of images, or of those of each, at its own size. [S, 3, H, W] -> M x [S, D]"""
        own = [images] * len(self.models) if isinstance(images, Tensor) else images
        return [m.encode_images(resize_images(seen, m.image_size)) for m, seen in zip(self.models, own, strict=True)]

    def encode_texts(self, texts: Sequence[str]) -> list[Tensor]:
        """Unit-length text features per model. C strings -> M x [C, D]"""
        return [encode_texts(model, texts) for model in self.models]

    def score(self, anchor: Sequence[Tensor], candidates: Sequence[Tensor]) -> Tensor:
        """Weighted sum of the models' scores, each clipped at 0 first. M x [S, D], M x [S, K, D] -> [S, K]"""
        scores = [clip_score(*features, self.scale) for features in zip(anchor, candidates, strict=True)]
        if self.weights == [1.0]:
            return scores[0]
        return torch.stack([score * weight for score, weight in zip(scores, self.weights, strict=True)]).sum(dim=0)

    def teacher_logits(self, anchor: Sequence[Tensor], candidates: Sequence[Tensor]) -> Tensor:
        """Logits of the one reward model over all candidates, with its own logit scale. 1 x [S, D], [C, D] -> [S, C]

        Raises:
            ValueError: several reward models; their logits have different scales.
        """
        if len(self.models) != 1:
            raise ValueError(f"distillation takes one teacher, got {len(self.models)} reward models")
        return self.models[0].logit_scale * anchor[0] @ candidates[0].T
