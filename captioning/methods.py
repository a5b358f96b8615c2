"""From a config to the parts of its method: captioner, objective, and the state that is restored for each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from captioning.adapt import RlcfObjective
from captioning.captioner import Captioner, embedding_width
from captioning.checkpoints import load_mapper
from captioning.config import CaptioningConfig
from clipscore.clip_model import ClipModel
from clipscore.episodic import EpisodicState
from clipscore.reward import ClipReward, ensemble_weights, resize_images


def find_language_model(name: str, pretrained_root: Path) -> str:
    """The folder of a language model, or its Hugging Face name when no folder is there.

    Args:
        name: a folder (absolute, or relative to `pretrained_root` or the working directory), or a Hugging Face name,
            whose last part may be a folder of `pretrained_root`.
        pretrained_root: folder of weights.
    """
    return next((str(place) for place in _places(name, pretrained_root) if (place / "config.json").is_file()), name)


def _places(name: str, pretrained_root: Path) -> list[Path]:
    places = [pretrained_root / name, pretrained_root / Path(name).name, Path(name)]
    return [place.expanduser() for place in places]


def load_language_model(name: str, pretrained_root: Path) -> tuple[nn.Module, Any]:
    """A causal language model with fp32 weights, and its tokenizer.

    Raises:
        FileNotFoundError: no folder, and no such model on the Hugging Face hub or no way to reach it.
    """
    place = find_language_model(name, pretrained_root)
    try:
        lm = AutoModelForCausalLM.from_pretrained(place).float()
        return lm, load_tokenizer(place)
    except OSError as error:
        tried = ", ".join(map(str, _places(name, pretrained_root)))
        raise FileNotFoundError(
            f"no language model {name!r}: no config.json in any of {tried}, and Hugging Face answers: {error}; "
            f"put the files of https://huggingface.co/facebook/opt-125m into {pretrained_root / 'opt-125m'}"
        ) from error


def load_tokenizer(place: str | Path) -> Any:
    """The tokenizer of a folder or a Hugging Face name; its decoding leaves spaces as they are."""
    return AutoTokenizer.from_pretrained(place, clean_up_tokenization_spaces=False)


def build_captioner(
    config: CaptioningConfig,
    clip_width: int,
    lm: nn.Module,
    tokenizer: Any,
    mapper_state: Mapping[str, Tensor],
    autocast_dtype: torch.dtype | None = None,
) -> Captioner:
    """The captioner that a config describes, on the language model's device.

    Args:
        config: `mapper`, `mapper_layers`, `prefix_length` and `decoding.max_new_tokens` are read.
        clip_width: D, of the policy's CLIP.
        lm: the language model.
        tokenizer: its tokenizer.
        mapper_state: the mapper's weights.
        autocast_dtype: see `Captioner`.

    Raises:
        ValueError: the parts do not fit together, or the captions are longer than the language model can read.
    """
    length = config.prefix_length + 1 + config.decoding.max_new_tokens
    limit = getattr(lm.config, "max_position_embeddings", length)
    if length > limit:
        raise ValueError(
            f"prefix_length={config.prefix_length}, the start token and decoding.max_new_tokens="
            f"{config.decoding.max_new_tokens} are {length} positions, but the language model has {limit}; lower one"
        )
    mapper = load_mapper(
        config.mapper, mapper_state, clip_width, embedding_width(lm), config.prefix_length, config.mapper_layers
    )
    embeddings = lm.get_input_embeddings().weight
    return Captioner(lm, tokenizer, mapper.to(embeddings.device, embeddings.dtype), autocast_dtype)


def build_objective(config: CaptioningConfig, rewards: Sequence[ClipModel]) -> RlcfObjective:
    """The loss that a config describes, over the given reward models."""
    options = config.reward
    weights = ensemble_weights([model.weight for model in options.models], options.weighted)
    return RlcfObjective(ClipReward(rewards, weights, options.scale), config)


def build_state(config: CaptioningConfig, captioner: Captioner, scale_loss: bool = False) -> EpisodicState:
    """AdamW over the mapper, and the state that is restored for each image."""
    tuned = dict(captioner.mapper.named_parameters())
    optimizer = torch.optim.AdamW(tuned.values(), lr=config.lr, weight_decay=config.weight_decay, eps=config.eps)
    return EpisodicState(tuned, optimizer, config.momentum, scale_loss)


@torch.no_grad()
def image_features(clip: ClipModel, images: Tensor, normalize: bool) -> Tensor:
    """What the mapper reads: the policy's features of its images, at its size. [B, 3, H, W] -> [B, D]"""
    images = resize_images(images, clip.image_size)
    return clip.encode_images(images) if normalize else clip.project_images(images)
