"""All CLIPs of a configuration, on one device and in one precision."""

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from clipscore.clip_model import ClipModel
from clipscore.config.adapting import AdaptingConfig
from clipscore.models.descriptions import describe
from clipscore.models.devices import autocast_dtype, choose_device, prepare_torch
from clipscore.models.files import check_clip
from clipscore.models.load import load_clip

log = logging.getLogger(__name__)


class Models(NamedTuple):
    """The CLIPs of a config, and where and how they compute."""

    policy: ClipModel
    rewards: list[ClipModel]
    members: list[ClipModel]  # of a zero-shot ensemble, beside the policy
    device: torch.device
    precision: torch.dtype | None  # under autocast

    @property
    def scale_loss(self) -> bool:
        return self.precision is torch.float16

    def fingerprint(self) -> dict[str, str]:
        """The weights, and how they compute."""
        roles = {"policy": [self.policy], "reward": self.rewards, "zero_shot": self.members}
        weights = {f"{role}:{model.name}": model.sha256 for role, models in roles.items() for model in models}
        return {"precision": str(self.precision or torch.float32)} | weights


def check_models(config: AdaptingConfig) -> tuple[torch.device, torch.dtype | None]:
    """Device and precision of a config; errors of these and of the weight files, which are looked at, not read."""
    device = choose_device(config.device)
    precision = autocast_dtype(config.precision, device)
    if config.cuda_graphs and device.type != "cuda":
        raise ValueError(f"cuda_graphs=true needs a CUDA device, got {device}; leave it out")
    root = Path(config.pretrained_root).expanduser()
    for name in itertools.chain(*config.model_names):
        check_clip(name, config.pretrained_root)
        described = describe(name, root)
        if name == config.policy and config.tunes_texts and described and not described.has_causal_text:
            raise ValueError(
                f"policy={name}: its text tower is not causal and read at an end token as CLIP's, so that prompts and "
                "texts cannot be tuned; it serves as reward, teacher, zero-shot model, and to tune its image tower"
            )
    return device, precision


def load_models(config: AdaptingConfig) -> Models:
    """Every CLIP of a config, in a torch that is prepared for it; all files are looked at before the first is read.

    Errors as in `load_clip`.
    """
    device, precision = check_models(config)
    if config.tunes_clip and device.type == "cuda" and precision is not torch.float16:
        text = "the published figures are of fp16 on a GPU, where small updates of a CLIP are partly rounded away; "
        log.warning(text + "with precision=%s they act in full, so another lr may be better", config.precision)
    prepare_torch(config.num_threads, config.device)

    def load(names: Sequence[str]) -> list[ClipModel]:
        models = [load_clip(name, config.pretrained_root, device, precision) for name in names]
        return [model.compile_visual() for model in models] if config.compile else models

    [policy], rewards, members = map(load, config.model_names)
    for model in rewards:  # never tuned; of the others their task knows what is
        model.cast_frozen(images=not config.FP32_REWARD_IMAGES)
    return Models(policy, rewards, members, device, precision)
