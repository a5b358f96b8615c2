"""What a CLIP's own configuration says, before its weights are read: its towers, and how it sees a picture."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipscore.data.checks import read_json
from clipscore.models.backends import open_clip
from clipscore.models.files import HUB, OWN_CONFIG, THEIR_CONFIG, is_open_clip_tag, model_folder, open_clip_arch

SEEN = ("mean", "std", "interpolation", "resize_mode")
RESAMPLING = {2: "bilinear", 3: "bicubic"}  # PIL's numbers, in preprocessor_config.json
CLIP_VOCABULARY = 49408


@dataclass(frozen=True)
class Description:
    """Without `towers`, open_clip's configuration of them, it is a file in OpenAI's layout, which needs none."""

    towers: dict[str, Any] = field(default_factory=dict)
    seen: Mapping[str, Any] = field(default_factory=dict)  # mean, std, interpolation and resize_mode; empty: CLIP's own
    folder: Path | None = None
    is_transformers: bool = False

    @property
    def has_causal_text(self) -> bool:
        """Whether the text tower is CLIP's: causal and read at its end token, so that prompts can be tuned."""
        text = self.towers.get("text_cfg", {})
        is_other = text.get("hf_model_name") or text.get("no_causal_mask") or text.get("embed_cls")
        return not is_other and text.get("pool_type", "argmax") == "argmax"


def describe(name: str, root: Path) -> Description | None:
    """What is known of a model by its name; None for one that is on the Hugging Face hub alone.

    ValueError: no CLIP, or mean and deviation that are not told; FileNotFoundError: no such folder.
    """
    if arch := open_clip_arch(name):
        return Description(open_clip.get_model_config(arch), _seen(name, arch, root))
    if (folder := model_folder(name, root)) is None:
        return None if name.startswith(HUB) else Description()
    if not (folder / OWN_CONFIG).is_file():
        return _transformers(folder)
    config = read_json(folder / OWN_CONFIG)
    towers, seen = config.get("model_cfg"), {key: config.get("preprocess_cfg", {}).get(key) for key in SEEN}
    if not towers or not seen["mean"] or not seen["std"]:
        raise ValueError(f"{folder / OWN_CONFIG} lacks model_cfg, or mean and std in preprocess_cfg; complete it")
    return Description(towers, {key: value for key, value in seen.items() if value}, folder)


def _seen(name: str, arch: str, root: Path) -> dict[str, Any]:
    """By the tag in `arch/tag` or `arch/tag:file`; of `arch:file` by a config beside the file, or by all tags alike."""
    head, _, file = name.partition(":")
    beside = next((at for at in (Path(file), root / file) if file and at.with_name(OWN_CONFIG).is_file()), None)
    if is_open_clip_tag(head):
        found = [open_clip.get_pretrained_cfg(*head.split("/"))]
    elif beside:
        found = [read_json(beside.with_name(OWN_CONFIG)).get("preprocess_cfg", {})]
    else:
        found = [open_clip.get_pretrained_cfg(arch, tag) for tag in open_clip.list_pretrained_tags_by_model(arch)]
    ways = {json.dumps({key: config[key] for key in SEEN if config.get(key)}) for config in found}
    if len(ways) != 1 or not {"mean", "std"} <= set(json.loads(min(ways))):
        raise ValueError(
            f"{name}: {arch} does not tell the mean and deviation that its images are normalised with, and "
            f"{len(ways) or 'no'} ways are known; write arch/tag:file for those of a tag, or put an {OWN_CONFIG} with "
            '{"preprocess_cfg": {"mean": [...], "std": [...]}} beside the file'
        )
    return json.loads(min(ways))


def _transformers(folder: Path) -> Description:
    """A CLIP in transformers' layout, as a configuration of open_clip."""
    config = read_json(folder / THEIR_CONFIG)
    if config.get("model_type") != "clip" or "vision_config" not in config:
        kind = f"{config.get('model_type', 'model of unknown kind')}, and of transformers' layout only CLIP is read"
        raise ValueError(f"{folder} is a {kind}; take a folder with {OWN_CONFIG}")
    defaults = {"num_attention_heads": 8, "num_hidden_layers": 12, "hidden_size": 512, "intermediate_size": 2048}
    text = {**defaults, "vocab_size": CLIP_VOCABULARY, "max_position_embeddings": 77} | config.get("text_config", {})
    image = {**defaults, "num_attention_heads": 12, "hidden_size": 768, "intermediate_size": 3072, "image_size": 224}
    image |= {"patch_size": 32} | config["vision_config"]
    if text["vocab_size"] != CLIP_VOCABULARY:
        raise ValueError(f"{folder}: a vocabulary of {text['vocab_size']} words, expected CLIP's {CLIP_VOCABULARY}")
    file = folder / "preprocessor_config.json"
    stored = read_json(file) if file.is_file() else {}
    seen = {"mean": stored.get("image_mean"), "std": stored.get("image_std")}
    seen["interpolation"] = RESAMPLING.get(stored.get("resample", 3), "bicubic")
    if not seen["mean"] or not seen["std"]:
        raise ValueError(f"{file} has no image_mean and image_std, which are not guessed; get it with the weights")
    seeing: dict[str, Any] = {"image_size": image["image_size"], "patch_size": image["patch_size"]}
    seeing["head_width"] = image["hidden_size"] // image["num_attention_heads"]
    reading: dict[str, Any] = {"context_length": text["max_position_embeddings"], "vocab_size": CLIP_VOCABULARY}
    reading["heads"] = text["num_attention_heads"]
    for tower, part in ((seeing, image), (reading, text)):
        tower.update(width=part["hidden_size"], layers=part["num_hidden_layers"])
        tower["mlp_ratio"] = part["intermediate_size"] / part["hidden_size"]
    towers: dict[str, Any] = {"vision_cfg": seeing, "text_cfg": reading, "embed_dim": config.get("projection_dim", 512)}
    towers["quick_gelu"] = text.get("hidden_act", "quick_gelu") == "quick_gelu"
    return Description(towers, seen, folder, is_transformers=True)


_NAMES = (  # of transformers, and of open_clip
    (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    (r"^vision_model\.pre_layrnorm\.", "visual.ln_pre."),
    (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"^visual_projection\.weight$", "visual.proj"),
    (r"^text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
    (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"^text_projection\.weight$", "text_projection"),
    (r"\.layer_norm(\d)\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
)


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of transformers' CLIP under open_clip's names; KeyError: queries without keys or values."""
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.endswith(".position_ids") or re.search(r"\.self_attn\.[kv]_proj\.", key):
            continue
        if "q_proj" in key:
            value = torch.cat([state[key.replace("q_proj", f"{part}_proj")] for part in "qkv"])
            key = re.sub(r"\.self_attn\.q_proj\.(\w+)", r".attn.in_proj_\1", key)
        for pattern, name in _NAMES:
            key = re.sub(pattern, name, key)
        renamed[key] = value.T.contiguous() if key in ("visual.proj", "text_projection") else value
    return renamed
