"""From a config to the parts of its method: policy, objective, and the state that is restored for each query."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clipscore.clip_model import ClipModel
from clipscore.episodic import EpisodicState
from clipscore.objectives import DistillationObjective, Objective, PseudoLabelObjective, RlcfObjective
from clipscore.reward import ClipReward, ensemble_weights
from retrieval.config import RetrievalConfig
from retrieval.policy import ImageTowerPolicy, Policy, TextTowerPolicy


def build_policy(config: RetrievalConfig, clip: ClipModel) -> Policy:
    """The tower that the config's direction tunes."""
    if config.direction == "image_to_text":
        return ImageTowerPolicy(clip)
    return TextTowerPolicy(clip, whole_table=config.momentum is not None)


def build_objective(config: RetrievalConfig, rewards: Sequence[ClipModel], gallery: Sequence[Tensor]) -> Objective:
    """The loss that a config describes.

    Args:
        config: `method`, `reward` and `num_candidates` are read.
        rewards: the reward models.
        gallery: their features of the gallery. M x [G, D]
    """
    if config.method == "pseudo_label":
        return PseudoLabelObjective()
    options = config.reward
    weights = ensemble_weights([model.weight for model in options.models], options.weighted)
    reward = ClipReward(rewards, weights, options.scale)
    if config.method == "kd":
        return DistillationObjective(reward, gallery)
    return RlcfObjective(reward, gallery, config.k, options)


def build_state(config: RetrievalConfig, policy: Policy, scale_loss: bool = False) -> EpisodicState:
    """AdamW over what the policy tunes, and the state that is restored for each query."""
    optimizer = torch.optim.AdamW(
        policy.tuned.values(), lr=config.lr, weight_decay=config.weight_decay, eps=config.eps, fused=True
    )
    return EpisodicState(policy.state, optimizer, config.momentum, scale_loss)


def check_tower(clip: ClipModel, direction: str) -> None:
    """Refuse a text tower that cannot be tuned.

    Raises:
        ValueError: text-to-image with a text tower that is not CLIP's.
    """
    if direction == "text_to_image" and not clip.has_clip_text_tower:
        raise ValueError(
            f"{clip.name} has no causal CLIP text tower, which text_to_image tunes; use an OpenAI CLIP or an open_clip "
            "model with the same text tower"
        )


def check_candidates(config: RetrievalConfig, gallery_size: int) -> None:
    """Refuse more candidates than gallery items.

    Raises:
        ValueError: K > G.
    """
    if config.method == "rlcf" and config.k > gallery_size:
        raise ValueError(
            f"num_candidates.{config.direction}={config.k}, but the gallery of {config.dataset} has {gallery_size} "
            f"items; set it to at most {gallery_size}"
        )
