"""Find and read the weights of any CLIP: an OpenAI name, an open_clip `arch/tag`, or a file."""

from __future__ import annotations

import difflib
import functools
import hashlib
import logging
import re
import zipfile
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from clipscore.clip_model import ClipModel

log = logging.getLogger(__name__)

OPENAI_NAMES = (
    "RN50", "RN101", "RN50x4", "RN50x16", "RN50x64", "ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px",
)  # fmt: skip
SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
ARCHIVE_EXTRAS = (
    "input_resolution",
    "context_length",
    "vocab_size",
    "attn_mask",
)  # constants that archives carry along
FILE_FORMS = "an OpenAI TorchScript archive, or a state dict (.pt or .safetensors) in OpenAI layout"


def load_clip(
    name: str,
    pretrained_root: str | Path,
    device: torch.device | str = "cpu",
    autocast_dtype: torch.dtype | None = None,
) -> ClipModel:
    """Load a CLIP, frozen and in eval mode, with fp32 weights.

    Args:
        name: one of
            an OpenAI name (`ViT-B/16`, `RN50x64`, ...), looked for as `<pretrained_root>/clip/ViT-B-16.pt` first;
            an open_clip `arch/tag` (`ViT-B-32/laion2b_s34b_b79k`);
            a file in OpenAI layout (absolute, or relative to `pretrained_root` or the working directory);
            `arch:file`, an open_clip architecture and a checkpoint of it.
        pretrained_root: folder of weight files; what is not there is downloaded by open_clip.
        device: where the model goes.
        autocast_dtype: see `ClipModel`.

    Raises:
        ValueError: an unknown name, or a file that holds no CLIP.
        FileNotFoundError: no weights, with every path tried.
    """
    root = Path(pretrained_root).expanduser()
    if name in OPENAI_NAMES:
        path = _openai_file(name, root)
        backend = _read_openai_layout(path)
    elif _is_open_clip_tag(name):
        path, backend = _open_clip_tag(name, root)
    elif ":" in name and name.split(":")[0] in open_clip.list_models():
        arch, file = name.split(":", 1)
        path = _existing_file(file, root, name)
        backend = _create(arch, path)
    else:
        path = _existing_file(name, root, name)
        backend = _read_openai_layout(path)
    arch = re.split("[/:]", name)[0]
    is_open_clip = arch in open_clip.list_models() and name not in OPENAI_NAMES
    tokenizer = (
        open_clip.get_tokenizer(arch)
        if is_open_clip
        else functools.partial(open_clip.tokenize, context_length=backend.context_length)
    )
    model = ClipModel(backend.float(), name, file_sha256(path), tokenizer, autocast_dtype)
    return model.to(device).eval().requires_grad_(False)


def build_openai_layout(state_dict: dict[str, Tensor], quick_gelu: bool = True) -> nn.Module:
    """A CLIP from a state dict in OpenAI layout; every size is read off the tensors.

    Args:
        state_dict: keys `visual.*`, `transformer.resblocks.*`, `token_embedding.weight`, ...
        quick_gelu: the activation of OpenAI's weights.

    Returns:
        open_clip `CLIP` in fp32.

    Raises:
        ValueError: keys are missing or surplus, or shapes do not fit.
    """
    weights = {key: value for key, value in state_dict.items() if key not in ARCHIVE_EXTRAS}
    try:
        # The builder rounds weights to fp16 as OpenAI's files are; fp32 weights are loaded again, unrounded.
        model = open_clip.model.build_model_from_openai_state_dict(
            dict(weights), quick_gelu=quick_gelu, cast_dtype=torch.float32
        ).float()
        model.load_state_dict(weights)
    except (KeyError, RuntimeError, AssertionError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the state dict is not a CLIP in OpenAI layout: {type(error).__name__}: {reason}") from error
    return model


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(stream)


def _digest(stream: Any) -> str:  # Python 3.10 has no hashlib.file_digest
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _openai_file(name: str, root: Path) -> Path:
    stem = name.replace("/", "-").replace("@", "-")
    tried = [root / folder / f"{stem}{suffix}" for folder in ("clip", ".") for suffix in SUFFIXES]
    for path in tried:
        if path.is_file():
            return path
    cfg = open_clip.get_pretrained_cfg(re.sub("@.*", "-336", name).replace("/", "-"), "openai")
    log.info("%s is not under %s; open_clip downloads it", name, root)
    try:
        return Path(open_clip.download_pretrained(cfg, prefer_hf_hub=False))
    except Exception as error:
        raise FileNotFoundError(
            f"no weights for {name} and the download failed ({type(error).__name__}: {error}). "
            f"Put the OpenAI file from {cfg.get('url')} at {tried[0]}. Tried: {', '.join(map(str, tried))}"
        ) from error


def _is_open_clip_tag(name: str) -> bool:
    arch, _, tag = name.partition("/")
    return bool(tag) and (arch, tag) in set(open_clip.list_pretrained())


def _open_clip_tag(name: str, root: Path) -> tuple[Path, nn.Module]:
    arch, tag = name.split("/")
    cfg = open_clip.get_pretrained_cfg(arch, tag)
    tried = [root / "open_clip" / f"{arch}-{tag}{suffix}" for suffix in SUFFIXES]
    path = next((path for path in tried if path.is_file()), None) or _download_tag(name, cfg, tried)
    # The activation and the normalisation belong to the weights, not to the architecture's name.
    backend = _create(arch, path, force_quick_gelu=cfg.get("quick_gelu", False))
    backend.visual.image_mean, backend.visual.image_std = cfg.get("mean"), cfg.get("std")
    return path, backend


def _download_tag(name: str, cfg: dict[str, Any], tried: list[Path]) -> Path:
    try:
        return Path(open_clip.download_pretrained(cfg))
    except Exception as error:
        raise FileNotFoundError(
            f"no weights for {name} and the download failed ({type(error).__name__}: {error}). "
            f"Put the checkpoint at one of: {', '.join(map(str, tried))}"
        ) from error


def _create(arch: str, path: Path, **options: Any) -> nn.Module:
    try:
        return open_clip.create_model(arch, pretrained=str(path), **options)
    except (RuntimeError, KeyError, OSError) as error:
        raise ValueError(f"{path} does not fit the architecture {arch}: {' '.join(str(error).split())}") from error


def _existing_file(file: str, root: Path, name: str) -> Path:
    tried = [Path(file).expanduser(), root / file]
    for path in tried:
        if path.is_file():
            return path
        if path.is_dir():
            raise ValueError(f"{path} is a folder; name the weight file in it")
    near = difflib.get_close_matches(name, OPENAI_NAMES, n=1, cutoff=0.3)
    raise FileNotFoundError(
        f"no CLIP called {name!r}: it is neither an OpenAI name ({', '.join(OPENAI_NAMES)}), nor an open_clip "
        f"arch/tag, nor a file (tried {', '.join(str(path.absolute()) for path in tried)})"
        + (f"; did you mean {near[0]}?" if near else "")
    )


def _read_openai_layout(path: Path) -> nn.Module:
    checkpoint = _read_file(path)
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path} holds a {type(checkpoint).__name__}; expected {FILE_FORMS}")
    if "state_dict" in checkpoint or path.name.startswith("open_clip"):
        raise ValueError(
            f"{path} is an open_clip checkpoint, which does not say its architecture; write arch:file, "
            f"for example ViT-B-32:{path}"
        )
    if "visual.conv1.weight" not in checkpoint:
        raise ValueError(f"{path} holds no CLIP in OpenAI layout (no visual.conv1.weight); expected {FILE_FORMS}")
    try:
        return build_openai_layout(checkpoint)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if _is_torchscript(path):
            return dict(torch.jit.load(path, map_location="cpu").state_dict())
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be read as CLIP weights: {type(error).__name__}: {reason}; "
            f"expected {FILE_FORMS}. Fetch it again if it is cut off"
        ) from error


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())
