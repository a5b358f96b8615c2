"""Find and read the weights of any CLIP: an OpenAI name, an open_clip `arch/tag`, or a file."""

import functools
import hashlib
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clipscore.clip_model import ClipModel
from clipscore.models import files
from clipscore.models.backends import open_clip, with_towers
from clipscore.models.descriptions import Description, describe, from_transformers
from clipscore.models.files import FOLDER, HUB, OPENAI_NAMES, is_open_clip_tag, open_clip_arch
from clipscore.models.pickles import check_numbers, load_tensors

log = logging.getLogger(__name__)

ARCHIVE_EXTRAS = ("input_resolution", "context_length", "vocab_size", "attn_mask")  # constants that archives carry
FILE_FORMS = "an OpenAI TorchScript archive, or a state dict (.pt or .safetensors) in OpenAI layout"


def load_clip(
    name: str,
    pretrained_root: str | Path,
    device: torch.device | str = "cpu",
    autocast_dtype: torch.dtype | None = None,
) -> ClipModel:
    """Load a CLIP, frozen and in eval mode, with fp32 weights; `autocast_dtype`: see `ClipModel`.

    Args:
        name: one of
            an OpenAI name (`ViT-B/16`, `RN50x64`, ...), looked for as `<pretrained_root>/clip/ViT-B-16.pt` first;
            an open_clip `arch/tag` (`ViT-B-32/laion2b_s34b_b79k`);
            a file in OpenAI layout (absolute, or relative to `pretrained_root` or the working directory);
            `arch:file`, an open_clip architecture and a checkpoint of it; `arch/tag:file` if it was trained as a tag;
            `local-dir:folder` or `hf-hub:org/name`: open_clip's configuration, weights and tokenizer, or a CLIP in
            transformers' layout; the latter's folder is looked for as `<pretrained_root>/org/name` first.
        pretrained_root: folder of weight files; what is not there is downloaded by open_clip.

    Raises:
        ValueError: an unknown name, a file that is cut off or holds no CLIP, or another sha256 than OpenAI's.
        FileNotFoundError: no weights, with every path tried.
    """
    root = Path(pretrained_root).expanduser()
    path = files.weight_file(name, root)
    files.check_whole(path)
    sha256 = files.file_digest(path)
    if name in OPENAI_NAMES:
        files.check_published(name, path, sha256, root)
    described = describe(f"{FOLDER}{path.parent}" if name.startswith(HUB) else name, root)
    assert described is not None
    if described.folder is not None:  # its numbers depend on the configuration too
        configs = sorted(described.folder.glob("*config.json"))
        sha256 = hashlib.sha256(b"".join([sha256.encode(), *(file.read_bytes() for file in configs)])).hexdigest()
    if not described.towers:
        backend = _read_openai_layout(path)
        tokenizer: Any = functools.partial(open_clip.tokenize, context_length=backend.context_length)
    else:
        backend, tokenizer = _create(name, described, path), find_tokenizer(described, root)
    model = ClipModel(backend.float(), name, sha256, tokenizer, autocast_dtype, seen=described.seen)
    return model.to(device).eval().requires_grad_(False)


def build_openai_layout(state_dict: dict[str, Tensor]) -> nn.Module:
    """open_clip's `CLIP` in fp32 from a state dict in OpenAI layout, with QuickGELU; sizes are read off the tensors.

    ValueError for missing or surplus keys and shapes that do not fit.
    """
    weights = {k: value for k, value in state_dict.items() if k.rpartition(".")[2] not in ARCHIVE_EXTRAS}
    try:
        shapes = {key: value.to("meta") for key, value in weights.items()}
        with torch.device("meta"):  # else it draws weights at random, and rounds those it is given to fp16
            model = open_clip.model.build_model_from_openai_state_dict(shapes, cast_dtype=torch.float32).float()
        for name, empty in (own := model.state_dict()).items():
            own[name] = torch.empty_like(empty, device="cpu").copy_(weights[name].reshape(empty.shape))
        model.load_state_dict(own, assign=True)
        model.attn_mask = torch.full_like(model.attn_mask, -torch.inf, device="cpu").triu_(1)  # not stored
    except (KeyError, RuntimeError, AssertionError, ZeroDivisionError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"the state dict is not a CLIP in OpenAI layout: {reason}") from error
    check_numbers(model, weights, "its weights")
    return model


def _create(name: str, described: Description, path: Path) -> nn.Module:
    """A model of open_clip. The activation belongs to a tag, not to its architecture."""
    head, arch = name.partition(":")[0], open_clip_arch(name)
    state = load_tensors(path)  # open_clip reads it again; what it refuses without a word of its own is said here
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    with_towers(described.towers)
    try:
        if described.is_transformers:
            backend, state = open_clip.CLIP(**described.towers), from_transformers(state)
            backend.load_state_dict(state)
        elif described.folder:
            backend = open_clip.create_model(f"{FOLDER}{described.folder}", load_weights=False, pretrained_text=False)
            open_clip.load_checkpoint(backend, str(path))
        else:
            cfg = open_clip.get_pretrained_cfg(*head.split("/")) if is_open_clip_tag(head) else None
            options = {} if cfg is None else {"force_quick_gelu": cfg.get("quick_gelu", False)}
            if cfg is None and f"{arch}-quickgelu" in open_clip.list_models():
                text = "%s computes with GELU; weights that began as OpenAI's need %s-quickgelu:%s"
                log.warning(text, head, arch, path)
            backend = open_clip.create_model(arch, pretrained=str(path), **options)
    except (RuntimeError, KeyError, OSError, TypeError, pickle.UnpicklingError) as error:
        of = f"the architecture {arch}" if arch else "the configuration beside it"
        raise ValueError(f"{path} does not fit {of}: {' '.join(str(error).split())}") from error
    for key, tensor in backend.state_dict().items():
        if "positional_embedding" in key and key in state and state[key].shape != tensor.shape:
            sizes = f"{key} {list(state[key].shape)}, expected {list(tensor.shape)}"
            raise ValueError(f"{path} is of another size than {arch}: {sizes}; name the architecture of its size")
    check_numbers(backend, state, str(path))
    return backend


def find_tokenizer(described: Description, root: Path) -> Callable[[list[str]], Tensor]:
    """CLIP's own, or the one that the text tower names: from its folder, or `root/org/name`, or the Hugging Face hub.

    FileNotFoundError: it is nowhere.
    """
    text = described.towers["text_cfg"]
    length, name = text.get("context_length", 77), text.get("hf_tokenizer_name")
    if not name:
        return open_clip.SimpleTokenizer(context_length=length)
    tried = [*([described.folder] if described.folder else []), root / name, root / Path(name).name]
    options = text.get("tokenizer_kwargs", {}) | {"tokenizer_mode": text.get("tokenizer_mode")}
    found = next((at for at in tried if any(at.glob("tokenizer*.json"))), name)
    try:
        return open_clip.tokenizer.HFTokenizer(str(found), context_length=length, **options)
    except (OSError, ValueError) as error:
        reason = f"not in {', '.join(map(str, tried))}, and Hugging Face answers: {str(error).splitlines()[0]}"
        raise FileNotFoundError(f"no tokenizer {name}: {reason}; put its tokenizer.json at {root / name}") from error


def _read_openai_layout(path: Path) -> nn.Module:
    checkpoint = load_tensors(path)
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path} holds a {type(checkpoint).__name__}; expected {FILE_FORMS}")
    if "state_dict" in checkpoint or path.name.startswith("open_clip"):
        raise ValueError(
            f"{path} is an open_clip checkpoint, which says neither architecture nor activation; write arch:file: "
            f"ViT-B-32-quickgelu:{path}, for example, for weights that began as OpenAI's or were trained with "
            f"--force-quick-gelu, and ViT-B-32:{path} for others, which have GELU"
        )
    if "visual.conv1.weight" not in checkpoint:
        raise ValueError(f"{path} holds no CLIP in OpenAI layout (no visual.conv1.weight); expected {FILE_FORMS}")
    try:
        return build_openai_layout(checkpoint)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
