"""From a config to the parts of its method: captioner, objective, and the state that is restored for each image."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from captioning.captioner import Captioner, embedding_width
from captioning.checkpoints import CHECKPOINT, load_lm, load_mapper, read_checkpoint
from captioning.config import CaptioningConfig
from captioning.mapper import ClipLength
from captioning.method import Context, Method
from clipscore.clip_model import ClipModel
from clipscore.config.methods import guard
from clipscore.data.images import model_input, open_image
from clipscore.reward import resize_images
from clipscore.task import build_reward


def find_checkpoint(name: str, roots: Sequence[Path]) -> Path:
    """The file of a trained mapper, by its name or its folder's: absolute, or relative to a root or where we are.

    FileNotFoundError with every path tried.
    """
    places = [root / Path(name).expanduser() for root in (*roots, Path.cwd())]
    files = [file for place in places for file in (place, place / CHECKPOINT)]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        tried = ", ".join(dict.fromkeys(map(str, files)))
        raise FileNotFoundError(
            f"checkpoint={name} not found; tried {tried}; `bash scripts/fetch_pretrained.sh mappers` fetches "
            "the released ones; or give the file that holds a trained mapper, or its folder"
        )
    return found


def check_language_model(name: str, pretrained_root: Path) -> None:
    """FileNotFoundError for a folder that is not there; whether the Hugging Face hub has a model is seen later."""
    is_hub_name = re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name) is not None
    beside_others = "/" in name and (pretrained_root / name).parent.is_dir()
    is_found = any((place / "config.json").is_file() for place in _places(name, pretrained_root))
    if (beside_others or not is_hub_name) and not is_found:
        tried = ", ".join(dict.fromkeys(map(str, _places(name, pretrained_root))))
        raise FileNotFoundError(f"llm={name}: no config.json in any of {tried}; give the language model's folder")


UNIMPORTANT = {"transformers_version", "torch_dtype", "dtype", "architectures", "use_cache"}  # for what a model says


def find_language_model(name: str, pretrained_root: Path) -> str:
    """The folder of a language model, or its Hugging Face name when no folder is there.

    A folder is absolute, or relative to `pretrained_root` or the working directory; `facebook/NAME` may be the folder
    NAME of `pretrained_root`.
    """
    return next((str(place) for place in _places(name, pretrained_root) if (place / "config.json").is_file()), name)


def _places(name: str, pretrained_root: Path) -> list[Path]:
    places = (pretrained_root / name, pretrained_root / name.removeprefix("facebook/"), Path(name))
    return [place.expanduser() for place in places]


def load_language_model(name: str, pretrained_root: Path) -> tuple[Any, Any]:
    """A causal language model with fp32 weights, and its tokenizer.

    FileNotFoundError: no folder, and no such model on the Hugging Face hub or no way to reach it.
    """
    place = find_language_model(name, pretrained_root)
    disable_progress_bar()  # of reading the file, a second or less
    try:
        return AutoModelForCausalLM.from_pretrained(place).float(), load_tokenizer(place)
    except OSError as error:
        tried = ", ".join(map(str, _places(name, pretrained_root)))
        raise FileNotFoundError(
            f"no language model {name!r}: no config.json in any of {tried}, and Hugging Face answers: {error}; "
            f"`bash scripts/fetch_pretrained.sh opt` fetches OPT-125m into {pretrained_root / 'opt-125m'}"
        ) from error


def load_tokenizer(place: str | Path) -> Any:
    """The tokenizer of a folder or a Hugging Face name; its decoding leaves spaces as they are."""
    return AutoTokenizer.from_pretrained(place, clean_up_tokenization_spaces=False)


def load_captioner(
    config: CaptioningConfig, clip: ClipModel, checkpoint: Path, autocast_dtype: torch.dtype | None = None
) -> Captioner:
    """The captioner of a run, on the device of the policy's CLIP.

    A language model that the `checkpoint` of the mapper holds takes the place of `llm`'s weights. ValueError or
    FileNotFoundError for parts that do not fit together or are missing.
    """
    mapper_state, lm_state = read_checkpoint(checkpoint)
    lm, tokenizer = load_language_model(config.llm, Path(config.pretrained_root))
    try:
        lm = lm.to(clip.device)
        captioner = build_captioner(config, clip.feature_width, lm, tokenizer, mapper_state, autocast_dtype)
        load_lm(captioner.lm, lm_state)
    except ValueError as error:
        raise ValueError(f"checkpoint {checkpoint}, policy {clip.name}, llm {config.llm}: {error}") from error
    return captioner


def language_model_digest(lm: Any, tokenizer: Any) -> str:
    """sha256 over a language model's parameters, its configuration, and the words and merges of its tokenizer."""
    weights = hashlib.sha256()
    for name, parameter in sorted(lm.named_parameters()):
        weights.update(name.encode())
        weights.update(parameter.detach().float().cpu().contiguous().numpy().data)
    settings = {k: v for k, v in lm.config.to_dict().items() if not k.startswith("_") and k not in UNIMPORTANT}
    parts = [weights.hexdigest(), json.dumps(settings, sort_keys=True, default=str)]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts.append(backend.to_str() if backend else json.dumps(tokenizer.get_vocab(), sort_keys=True))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def build_captioner(
    config: CaptioningConfig,
    clip_width: int,
    lm: Any,
    tokenizer: Any,
    mapper_state: Mapping[str, Tensor],
    autocast_dtype: torch.dtype | None = None,
) -> Captioner:
    """The captioner that a config describes, on the language model's device; `clip_width` is D of the policy's CLIP.

    ValueError for parts that do not fit together, and for captions that are longer than the language model can read.
    """
    lengths = config.prefix_length, config.mapper_layers, config.clip_length
    mapper: Any = load_mapper(config.mapper, mapper_state, clip_width, embedding_width(lm), *lengths)
    length = config.prefix_length + 1 + config.decoding.max_new_tokens
    limit = getattr(lm.config, "max_position_embeddings", length)
    if length > limit:
        raise ValueError(
            f"prefix_length={config.prefix_length}, the start token and decoding.max_new_tokens="
            f"{config.decoding.max_new_tokens} are {length} positions, but the language model has {limit}; lower one"
        )
    embeddings = lm.get_input_embeddings().weight
    return Captioner(lm, tokenizer, mapper.to(embeddings.device, embeddings.dtype), autocast_dtype)


def build_method(
    config: CaptioningConfig, captioner: Captioner, rewards: Sequence[ClipModel], scale_loss: bool = False
) -> Method:
    """The method that a config names, over a captioner and reward models; ValueError: the user's file fails."""
    reward = build_reward(config, rewards) if rewards else None
    with guard(config.method):
        method = config.METHOD(Context(config, captioner, reward, scale_loss))
    assert isinstance(method, Method)
    return method


def reward_views(
    image: Tensor, policy: ClipModel, rewards: Sequence[ClipModel], picture: Path | Image.Image
) -> Tensor | list[Tensor]:
    """The policy's image for all reward models, as in the official code; or one for each: M x [1, 3, H, W]

    A model that squashes pictures, for example, while the policy crops them, sees the picture in its own way.
    """
    if all(reward.form.is_seen_as(policy.form) for reward in rewards):
        return image
    picture = open_image(picture) if isinstance(picture, Path) else picture
    return [
        image if reward.form.is_seen_as(policy.form) else model_input(picture, reward.form)[None].to(image)
        for reward in rewards
    ]


@torch.no_grad()
def image_features(clip: ClipModel, images: Tensor, normalize: bool, clip_length: ClipLength = None) -> Tensor:
    """What the mapper reads: the policy's features of its images, at its size. [B, 3, H, W] -> [B, D] or [B, C, D]"""
    images = resize_images(images, clip.image_size)
    features = clip.project_patches(images) if clip_length == "patches" else clip.project_images(images)
    return F.normalize(features, dim=-1) if normalize else features
