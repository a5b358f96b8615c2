"""From a config to the parts of its method: policy, objective, and the state that is restored for each image."""

import functools
from collections.abc import Sequence

from torch import Tensor

from classification.config import USED_BY, ClassificationConfig
from classification.methods.distillation import atkd_loss, dkd_loss
from classification.methods.tpt import TptObjective
from classification.policy import CoCoOpPolicy, EncoderPolicy, Policy, PromptPolicy
from classification.prompt_learner import ConditionalContext, PromptLearner, class_prompts
from clipscore.clip_model import ClipModel, end_of_text
from clipscore.objectives import DistillationObjective, Objective, PseudoLabelObjective, RlcfObjective, kd_loss
from clipscore.policy_gradient import advantages_sum_to_zero
from clipscore.task import build_reward
from clipscore.text_encoder import encode_texts


def build_policy(
    config: ClassificationConfig,
    clip: ClipModel,
    class_names: Sequence[str],
    start: tuple[Tensor, dict[str, Tensor]] | None = None,
) -> Policy:
    """The classifier that a config describes, for these class names.

    `start` is CoOp's context [n_ctx, W], and CoCoOp's meta network or {}.
    """
    prompts = class_prompts(config.prompt_words, class_names)
    check_prompts(clip, prompts)
    if config.tune != "prompt" and start is None:
        with clip.full_precision():  # as in the official code, which makes them outside of autocast
            features = encode_texts(clip, prompts)
        return EncoderPolicy(clip, features, config.tune, config.bn_prior)
    context = start[0] if start else None
    learner = PromptLearner(clip, class_names, config.prompt_words, config.class_position, context)
    if start is None or not start[1]:
        if config.normalize_cocoop_features:
            raise ValueError(
                "normalize_cocoop_features needs a CoCoOp file in prompt_start; this one has no meta network"
            )
        return PromptPolicy(clip, learner, max_used_classes(config))
    conditional = ConditionalContext(*start).to(clip.device, clip.dtype)
    return CoCoOpPolicy(clip, learner, conditional, config.normalize_cocoop_features, max_used_classes(config))


def max_used_classes(config: ClassificationConfig) -> int | None:
    """How many classes the loss of one update depends on at most; None: all of them."""
    if config.method != "rlcf" or config.entropy_weight:
        return None
    options = config.reward_options
    if not advantages_sum_to_zero(options.baseline, options.baseline_over, config.num_candidates):
        return None
    return config.views.num_selected * config.num_candidates


def build_objective(
    config: ClassificationConfig, rewards: Sequence[ClipModel], class_names: Sequence[str]
) -> Objective:
    """The loss that a config describes, over the given reward models."""
    if config.method in {"tpt", "pseudo_label"}:
        return TptObjective() if config.method == "tpt" else PseudoLabelObjective()
    reward = build_reward(config, rewards)
    features = reward.encode_texts(class_prompts(config.prompt_words, class_names))
    if config.method == "rlcf":
        return RlcfObjective(reward, features, config.num_candidates, config.reward_options)
    losses = {
        "kd": functools.partial(kd_loss, temperature=config.temperature),
        "dkd": functools.partial(
            dkd_loss, alpha=config.dkd_alpha, beta=config.dkd_beta, temperature=config.temperature
        ),
        "atkd": functools.partial(atkd_loss, fixed=config.atkd_fixed),
    }
    return DistillationObjective(reward, features, losses[config.method])


def free_texts(policies: Sequence[Policy], rewards: Sequence[ClipModel]) -> None:
    """Give back the memory of text towers: only tuned prompts are encoded again once the class features exist."""
    fixed = [policy.clip for policy in policies if isinstance(policy, EncoderPolicy)]
    for clip in [*fixed, *rewards]:
        clip.free_text_tower()


def check_prompts(clip: ClipModel, prompts: Sequence[str]) -> None:
    """ValueError for a prompt that leaves no room for the class names, so that they are cut to the same tokens."""
    ids = clip.tokenize(prompts)
    is_cut = bool((end_of_text(ids) == ids.shape[1] - 1).any())  # names that differ in case only are equal tokens too
    if is_cut and len(ids.unique(dim=0)) < len(set(prompts)):
        raise ValueError(
            f"{clip.name} reads {ids.shape[1]} tokens, and the prompt is so long that class names are cut off: "
            f"{prompts[0][:200]!r}; shorten prompt"
        )


def check_candidates(config: ClassificationConfig, num_classes: int) -> None:
    """ValueError for more candidates than classes, K > C."""
    if config.method in USED_BY["num_candidates"] and config.num_candidates > num_classes:
        raise ValueError(
            f"num_candidates={config.num_candidates}, but {config.dataset} has {num_classes} classes; "
            f"set num_candidates to at most {num_classes}"
        )
