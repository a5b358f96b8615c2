"""From a config to its method, with the policy and the reward that it is given."""

from collections.abc import Sequence
from pathlib import Path

from classification.config import ClassificationConfig
from classification.method import Context, Method
from classification.policy import CoCoOpPolicy, EncoderPolicy, FixedPolicy, Policy, PromptPolicy, PrototypePolicy
from classification.prompt_learner import ConditionalContext, PromptLearner, PromptStart, check_same_clip
from classification.texts import class_texts, encode_classes
from clipscore.clip_model import ClipModel, end_of_text
from clipscore.config.adapting import check_enough
from clipscore.config.methods import guard
from clipscore.models.group import Models
from clipscore.task import build_reward


def build_method(
    config: ClassificationConfig, models: Models, class_names: Sequence[str], start: PromptStart | None = None
) -> Method:
    """The method that a config names, over these models; ValueError where they do not fit, or the user's file fails."""
    policy, *members = (build_policy(config, clip, class_names, start) for clip in (models.policy, *models.members))
    reward = build_reward(config, models.rewards) if models.rewards else None
    texts = class_texts(config.reward_texts, config.prompt_words, class_names, [Path(config.pretrained_root)])
    features = [encode_classes(clip, texts) for clip in models.rewards]
    with guard(config.method):
        method = config.METHOD(Context(config, class_names, policy, reward, features, members, models.scale_loss))
    assert isinstance(method, Method)
    for clip in [*(p.clip for p in (policy, *members) if isinstance(p, FixedPolicy)), *models.rewards]:
        clip.free_text_tower()  # only tuned prompts are encoded again once the class features exist
    return method


def build_policy(
    config: ClassificationConfig, clip: ClipModel, class_names: Sequence[str], start: PromptStart | None = None
) -> Policy:
    """The classifier that a config describes, for these class names; ValueError where the parts do not fit."""
    texts = class_texts(config.texts, config.prompt_words, class_names, [Path(config.pretrained_root)])
    check_prompts(clip, [text for of_class in texts for text in of_class])
    if config.tune != "prompt" and start is None:
        with clip.full_precision():  # as in the official code, which makes them outside of autocast
            features = encode_classes(clip, texts)
        if config.tunes_clip:
            encoder = EncoderPolicy(clip, features, config.tune, config.bn_prior)
            if config.cuda_graphs:
                clip.graph_visual(config.views.num_selected)
            return encoder
        return (PrototypePolicy if config.tune == "prototypes" else FixedPolicy)(clip, features)
    context = start[0] if start else None
    if config.prompt_start:
        check_same_clip(clip, config.prompt_start, [Path(config.pretrained_root)])
    learner = PromptLearner(clip, class_names, config.prompt_words, config.class_position, context)
    if start is None or not start[1]:
        if config.normalize_cocoop_features:
            raise ValueError("normalize_cocoop_features needs a CoCoOp file in prompt_start; this has no meta network")
        policy = PromptPolicy(clip, learner)
        return PrototypePolicy(clip, policy.class_features().detach()) if config.tune == "prototypes" else policy
    if config.tune == "prototypes":
        raise ValueError("tune=prototypes shifts features that all images share; CoCoOp makes them of each")
    conditional = ConditionalContext(*start).to(clip.device, clip.dtype)
    return CoCoOpPolicy(clip, learner, conditional, config.normalize_cocoop_features)


def check_prompts(clip: ClipModel, prompts: Sequence[str]) -> None:
    """ValueError for a prompt that leaves no room for the class names, so that they are cut to the same tokens."""
    ids = clip.tokenize(prompts)
    is_cut = bool((end_of_text(ids) == ids.shape[1] - 1).any())  # names that differ in case only are equal tokens too
    if is_cut and len(ids.unique(dim=0)) < len(set(prompts)):
        what = f"reads {ids.shape[1]} tokens, and the prompt is so long that class names are cut off"
        raise ValueError(f"{clip.name} {what}: {prompts[0][:200]!r}; shorten prompt")


def check_candidates(config: ClassificationConfig, num_classes: int) -> None:
    """ValueError for more candidates than classes, K > C."""
    if "num_candidates" in config.METHOD.reads:
        found = f"{config.dataset} has {num_classes} classes"
        check_enough(config.num_candidates, num_classes, "num_candidates", found)
