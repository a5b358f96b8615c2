"""From a config to the parts of its method: captioner, objective, and the state that is restored for each image."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from captioning.captioner import Captioner, embedding_width
from captioning.checkpoints import CHECKPOINT, LM_CONSTANTS, load_lm, load_mapper, read_checkpoint
from captioning.config import CaptioningConfig
from captioning.mapper import ClipLength
from captioning.method import Context, Method
from clipscore.clip_model import ClipModel
from clipscore.config.methods import guard
from clipscore.data.checks import list_some
from clipscore.data.images import model_input
from clipscore.data.open_image import open_image
from clipscore.models.files import check_whole
from clipscore.models.pickles import check_numbers
from clipscore.reward import resize_images
from clipscore.task import build_reward

FETCH_OPT = "`bash scripts/fetch_pretrained.sh opt` fetches OPT-125m"

log = logging.getLogger(__name__)


def find_checkpoint(name: str, roots: Sequence[Path]) -> Path:
    """A trained mapper's file, by its or its folder's name, under a root or where we are; FileNotFoundError: none."""
    places = [root / Path(name).expanduser() for root in (*roots, Path.cwd())]
    files = [file for place in places for file in (place, place / CHECKPOINT)]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        tried = ", ".join(dict.fromkeys(map(str, files)))
        mend = "`bash scripts/fetch_pretrained.sh mappers` fetches the released ones; or give the file that holds a"
        raise FileNotFoundError(f"checkpoint={name} not found; tried {tried}; {mend} trained mapper, or its folder")
    return found


def check_language_model(name: str, pretrained_root: Path) -> Path | None:
    """The weight file of a language model's folder, the first of several; None for one of the Hugging Face hub.

    FileNotFoundError for a folder that is not there or has no weights; ValueError for files that are not whole.
    """
    is_hub_name = re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name) is not None
    beside_others = "/" in name and (pretrained_root / name).parent.is_dir()
    folder = Path(find_language_model(name, pretrained_root))
    if not (folder / "config.json").is_file():
        if not beside_others and is_hub_name:
            return None
        raise FileNotFoundError(f"llm={name}: {_nowhere(name, pretrained_root)}; give its folder; {FETCH_OPT}")
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not weights:
        raise FileNotFoundError(f"llm={name}: no weights in {folder}, expected model.safetensors or pytorch_model.bin")
    for file in (*weights, *folder.glob("*.json"), *folder.glob("*.txt")):
        check_whole(file)
    return weights[0]


UNIMPORTANT = {"transformers_version", "torch_dtype", "dtype", "architectures", "use_cache"}  # for what a model says


def find_language_model(name: str, pretrained_root: Path) -> str:
    """A language model's folder, as given or under `pretrained_root`; or its Hugging Face name if there is none."""
    return next((str(place) for place in _places(name, pretrained_root) if (place / "config.json").is_file()), name)


def _places(name: str, pretrained_root: Path) -> list[Path]:
    places = (pretrained_root / name, pretrained_root / name.removeprefix("facebook/"), Path(name))
    return [place.expanduser() for place in places]


def _nowhere(name: str, pretrained_root: Path) -> str:
    return f"no config.json in any of {', '.join(dict.fromkeys(map(str, _places(name, pretrained_root))))}"


def load_language_model(name: str, pretrained_root: Path, is_replaced: bool = False) -> tuple[Any, Any]:
    """A causal language model with fp32 weights, and its tokenizer.

    FileNotFoundError: no folder, and no such model on the Hugging Face hub or no way to reach it. ValueError: its files
    do not fit together, or lack tensors, unless all of its weights are replaced later.
    """
    place = find_language_model(name, pretrained_root)
    is_folder = check_language_model(name, pretrained_root) is not None
    disable_progress_bar()  # of reading the file, a second or less
    set_verbosity_error()  # tensors that are missing are named below
    try:
        made: Any = AutoModelForCausalLM.from_pretrained(place, output_loading_info=True, trust_remote_code=False)
        tokenizer = load_tokenizer(place)
    except Exception as error:  # whatever is wrong with a folder
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        if is_folder or not isinstance(error, OSError):
            raise ValueError(f"llm={name}: {place} is no whole language model ({reason}); get it again") from error
        found = f"{_nowhere(name, pretrained_root)}, and Hugging Face answers: {reason}"
        raise FileNotFoundError(f"no language model {name!r}: {found}; {FETCH_OPT}") from error
    lm, found = made
    missing, surplus = (sorted(found[key]) for key in ("missing_keys", "unexpected_keys"))
    if missing and not is_replaced:
        lacks = f"{place} lacks {len(missing)} tensors{list_some(missing)}"
        has = f" and has {len(surplus)} others{list_some(surplus)}" if surplus else ""
        raise ValueError(f"llm={name}: {lacks}{has}; get it again, or save it with the names that transformers gives")
    if unused := [key for key in surplus if not key.endswith(LM_CONSTANTS)]:
        log.warning("%s: %d tensors of its file are not used%s", place, len(unused), list_some(unused))
    if not is_replaced:
        check_numbers(lm, {}, f"llm={name}: {place}")
    return lm.float(), tokenizer


def load_tokenizer(place: str | Path) -> Any:
    """The tokenizer of a folder or a Hugging Face name; its decoding leaves spaces as they are."""
    return AutoTokenizer.from_pretrained(place, clean_up_tokenization_spaces=False, trust_remote_code=False)


def load_captioner(
    config: CaptioningConfig, clip: ClipModel, checkpoint: Path, autocast_dtype: torch.dtype | None = None
) -> Captioner:
    """The captioner of a run, on the device of the policy's CLIP.

    A language model in the mapper's `checkpoint` takes the place of `llm`'s weights. ValueError, FileNotFoundError:
    parts do not fit together, or are missing.
    """
    mapper_state, lm_state = read_checkpoint(checkpoint)
    lm, tokenizer = load_language_model(config.llm, Path(config.pretrained_root), is_replaced=bool(lm_state))
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
        new = f"decoding.max_new_tokens={config.decoding.max_new_tokens} are {length} positions"
        what = f"prefix_length={config.prefix_length}, the start token and {new}"
        raise ValueError(f"{what}, but the language model has {limit}; lower one")
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
    seen = [None if reward.form.is_seen_as(policy.form) else reward.form for reward in rewards]  # in another form
    if not any(seen):
        return image
    picture = open_image(picture) if isinstance(picture, Path) else picture
    return [image if form is None else model_input(picture, form)[None].to(image) for form in seen]


@torch.no_grad()
def image_features(clip: ClipModel, images: Tensor, normalize: bool, clip_length: ClipLength = None) -> Tensor:
    """What the mapper reads: the policy's features of its images, at its size. [B, 3, H, W] -> [B, D] or [B, C, D]"""
    images = resize_images(images, clip.image_size)
    features = clip.project_patches(images) if clip_length == "patches" else clip.project_images(images)
    return F.normalize(features, dim=-1) if normalize else features
