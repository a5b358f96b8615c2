"""Read a folder of golden traces, and collect quantities in their form, which tests/golden/README.md describes."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from safetensors.torch import load_file
from torch import Tensor

from clipscore.clip_model import ClipModel
from clipscore.models.load import build_openai_layout


class Golden:
    """A folder of traces in float64, replayed on a device."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.folder, self.device = folder, device

    def traces(self) -> list[str]:
        """Names of all traces: every file pair NAME.json, an object, and NAME.npz; inputs_* are what traces share."""
        names = {path.stem for path in self.folder.glob("*.json") if path.read_text().lstrip().startswith("{")}
        names |= {path.stem for path in self.folder.glob("*.npz")}
        return sorted(name for name in names if not name.startswith("inputs_") and not name.endswith("_f32"))

    def meta(self, trace: str) -> dict[str, Any]:
        """Hyper-parameters of a trace."""
        return json.loads((self.folder / f"{trace}.json").read_text())

    def recorded(self, trace: str) -> dict[str, np.ndarray]:
        """The recorded outputs of a trace; recalls, which are in its json, as `metrics/NAME`."""
        metrics = {f"metrics/{name}": np.array(value) for name, value in _recalls(self.meta(trace)).items()}
        if trace == "D_metrics":  # its arrays are score matrices to be judged
            return metrics
        arrays = {name: value for name, value in self.arrays(trace).items() if not name.startswith("input/")}
        return arrays | metrics

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """All arrays of an npz file."""
        with np.load(self.folder / f"{name}.npz") as data:
            return dict(data)

    def tensor(self, array: np.ndarray) -> Tensor:
        """An input, in float64."""
        return torch.from_numpy(array).double().to(self.device)

    def clip(self, name: str) -> ClipModel:
        """A fresh float64 model `clip_<name>.safetensors`."""
        weights = _state_dict(self.folder / f"clip_{name}.safetensors")
        model = ClipModel(build_openai_layout(weights), name, "", open_clip.tokenize)
        return model.double().to(self.device).eval().requires_grad_(False)


def _recalls(meta: dict[str, Any]) -> dict[str, float]:
    """Recall figures; of a run only those of its own direction, for the official code prints both."""
    figures, side = meta.get("metrics", {}), "txt" if "image2text" in meta.get("args", {}).values() else "img"
    if isinstance(figures, list):
        figures = {f"{n}_{name}": value for n, found in enumerate(figures) for name, value in found.items()}
        side = r"\d+_(txt|img)"
    return {name: value for name, value in figures.items() if re.fullmatch(rf"{side}_r\d+", name)}


@lru_cache(maxsize=8)
def _state_dict(path: Path) -> dict[str, Tensor]:
    weights = {key: value.float() for key, value in load_file(path).items()}
    ids, rows = weights.pop("token_embedding.ids").long(), weights.pop("token_embedding.rows")
    table = torch.zeros(len(open_clip.tokenizer.SimpleTokenizer().encoder), rows.shape[1])
    table[ids] = rows
    return {**weights, "token_embedding.weight": table}


class Samples:
    """Quantities recorded once per sample, or once per step of a sample, by name."""

    def __init__(self) -> None:
        self.values: defaultdict[str, list[Tensor]] = defaultdict(list)

    def add(self, rows: Mapping[str, Any], prefix: str = "") -> None:
        """The quantities of one sample or step."""
        for name, value in rows.items():
            dtype = torch.float64 if isinstance(value, float) else None
            self.values[prefix + name].append(torch.as_tensor(value, dtype=dtype).detach().clone())

    def add_weights(self, prefix: str, tensors: Mapping[str, Tensor], names: Iterable[str]) -> None:
        """Named weights as they are now, each and by their checksums."""
        chosen = {name: tensors[name] for name in names}
        self.add({f"{prefix}_checksum": checksums(chosen.values())})
        self.add(chosen, f"{prefix}/")

    def stacked(self) -> dict[str, Tensor]:
        """Each quantity with a leading dimension, that of samples or steps."""
        return {name: stack(values) for name, values in self.values.items()}


def stack(tensors: list[Tensor]) -> Tensor:
    """Stack, filled up at the end to the largest shape: integers with -1, others with 0."""
    shape = [max(sizes) for sizes in zip(*(t.shape for t in tensors), strict=True)]
    if all(list(t.shape) == shape for t in tensors):
        return torch.stack(tensors)
    result = tensors[0].new_full((len(tensors), *shape), 0 if tensors[0].is_floating_point() else -1)
    for row, tensor in zip(result, tensors, strict=True):
        row[tuple(slice(size) for size in tensor.shape)] = tensor
    return result


def checksums(tensors: Iterable[Tensor]) -> Tensor:
    """Of each: sum, sum of magnitudes, norm, and a sum weighted by the cosine of the position. [tensors, 4]"""
    found = []
    for tensor in tensors:
        x = tensor.detach().cpu().double().flatten()
        cosine = torch.arange(len(x), dtype=torch.float64).cos()
        found.append(torch.stack([x.sum(), x.abs().sum(), x.norm(), (x * cosine).sum()]))
    return torch.stack(found)


def official_settings(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What the configs of all three tasks say of an official run."""
    args, optimizer = meta["args"], meta["optimizer"] or {}
    confidences = meta.get("confidences") or {}
    reward = meta.get("reward", args["reward_arch"])
    names = [reward] if isinstance(reward, str) else reward
    momentum = {"decay": args["tta_momentum"], "update_interval": args["update_freq"], "mix": args["update_w"]}
    return {
        "dataset": "golden", "dataset_files": {"annotations": ""},
        "data_root": "", "pretrained_root": "", "output_root": "",
        "steps": args["tta_steps"],
        "lr": optimizer.get("lr", args.get("lr")),
        "weight_decay": optimizer.get("weight_decay", 0.01),  # AdamW's own, where a script passes none
        "eps": optimizer.get("eps", 1e-8),
        "momentum": momentum if args["momentum_update"] else None,
        "reward": names and {
            "models": [{"name": name, "weight": confidences.get(name, 1)} for name in names],
            "weighted": bool(args["weighted_scores"]),
            "baseline": "mean" if args["reward_process"] else "none",
            "baseline_over": "batch" if args["process_batch"] else "view",
            "standardize": bool(args["reward_amplify"]),
        },
    }  # fmt: skip
