"""From a config to the parts of its method: policy and objective."""

from collections.abc import Sequence

from torch import Tensor

from clipscore.clip_model import ClipModel
from clipscore.objectives import DistillationObjective, Objective, PseudoLabelObjective, RlcfObjective
from clipscore.task import build_reward
from retrieval.config import RetrievalConfig
from retrieval.policy import ImageTowerPolicy, Policy, TextTowerPolicy


def build_policy(config: RetrievalConfig, clip: ClipModel) -> Policy:
    """The tower that the config's direction tunes."""
    if config.direction == "image_to_text":
        return ImageTowerPolicy(clip)
    return TextTowerPolicy(clip, whole_table=config.momentum is not None)


def build_objective(config: RetrievalConfig, rewards: Sequence[ClipModel], gallery: Sequence[Tensor]) -> Objective:
    """The loss that a config describes, over the reward models and their features of the gallery, M x [G, D]."""
    if config.method == "pseudo_label":
        return PseudoLabelObjective()
    reward = build_reward(config, rewards)
    if config.method == "kd":
        return DistillationObjective(reward, gallery)
    return RlcfObjective(reward, gallery, config.k, config.reward_options)


def check_tower(clip: ClipModel, direction: str) -> None:
    """ValueError for a text tower that cannot be tuned, because it is not CLIP's, in text-to-image."""
    if direction == "text_to_image" and not clip.has_clip_text_tower:
        raise ValueError(
            f"{clip.name} has no causal CLIP text tower, which text_to_image tunes; use an OpenAI CLIP or an open_clip "
            "model with the same text tower"
        )


def check_candidates(config: RetrievalConfig, gallery_size: int) -> None:
    """ValueError for more candidates than gallery items, K > G."""
    if config.method == "rlcf" and config.k > gallery_size:
        raise ValueError(
            f"num_candidates.{config.direction}={config.k}, but the gallery of {config.dataset} has {gallery_size} "
            f"items; set it to at most {gallery_size}"
        )
