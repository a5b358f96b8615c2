"""From a config to its method, with the policy and the reward that it is given."""

from collections.abc import Sequence

from torch import Tensor

from clipscore.clip_model import ClipModel
from clipscore.config.adapting import check_enough
from clipscore.config.methods import guard
from clipscore.models.group import Models
from clipscore.task import build_reward
from retrieval.config import RetrievalConfig
from retrieval.method import Context, Method
from retrieval.policy import ImageTowerPolicy, Policy, TextTowerPolicy


def build_method(config: RetrievalConfig, models: Models, galleries: Sequence[Tensor]) -> Method:
    """The method that a config names, over models and their galleries [G, D], the policy's first.

    ValueError where they do not fit, or the user's file fails.
    """
    check_tower(config, models.policy)
    reward = build_reward(config, models.rewards) if models.rewards else None
    rewards = galleries[1 : 1 + len(models.rewards)]
    with guard(config.method):
        policy = build_policy(config, models.policy) if config.tunes else None
        method = config.METHOD(Context(config, policy, galleries[0], reward, rewards, models.scale_loss))
    assert isinstance(method, Method)
    return method


def build_policy(config: RetrievalConfig, clip: ClipModel) -> Policy:
    """The tower that the config's direction tunes."""
    if config.direction == "image_to_text":
        policy = ImageTowerPolicy(clip)
        if config.cuda_graphs:
            clip.graph_visual(1)
        return policy
    return TextTowerPolicy(clip, whole_table=config.momentum is not None)


def check_tower(config: RetrievalConfig, clip: ClipModel) -> None:
    """ValueError for a text tower that is to be tuned, in text-to-image, but cannot be, because it is not CLIP's."""
    if config.tunes_texts and not clip.has_clip_text_tower:
        mend = "use an OpenAI CLIP or an open_clip model with the same text tower"
        raise ValueError(f"{clip.name} has no causal CLIP text tower, which text_to_image tunes; {mend}")


def check_candidates(config: RetrievalConfig, gallery_size: int) -> None:
    """ValueError for more candidates than gallery items, K > G."""
    if "num_candidates" in config.METHOD.reads:
        found = f"the gallery of {config.dataset} has {gallery_size} items"
        check_enough(config.k, gallery_size, f"num_candidates.{config.direction}", found)
