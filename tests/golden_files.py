"""Read a folder of golden traces; the format is described in tests/golden/README.md."""

from __future__ import annotations

import json
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
        """Names of all traces: every file pair NAME.json and NAME.npz."""
        names = {path.stem for path in self.folder.glob("[A-Z]_*.json")}
        return sorted(names | {p.stem for p in self.folder.glob("[A-Z]_*.npz") if not p.stem.endswith("_f32")})

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
        model = ClipModel(
            build_openai_layout(_state_dict(self.folder / f"clip_{name}.safetensors")), name, "", open_clip.tokenize
        )
        return model.double().to(self.device).eval().requires_grad_(False)


def _recalls(meta: dict[str, Any]) -> dict[str, float]:
    """Recall figures; of a run only those of its own direction, for the official code prints both."""
    figures = meta.get("metrics", {})
    if isinstance(figures, list):
        return {f"{n}_{name}": v for n, found in enumerate(figures) for name, v in found.items() if _is_recall(name)}
    prefix = "txt_r" if meta.get("args", {}).get("retrieval_task") == "image2text" else "img_r"
    return {name: v for name, v in figures.items() if _is_recall(name) and name.startswith(prefix)}


def _is_recall(name: str) -> bool:
    return name.startswith(("txt_r", "img_r")) and name.rpartition("_r")[2].isdecimal()


@lru_cache(maxsize=8)
def _state_dict(path: Path) -> dict[str, Tensor]:
    weights = {key: value.float() for key, value in load_file(path).items() if not key.startswith("token_embedding.")}
    stored = load_file(path)
    table = torch.zeros(len(open_clip.tokenizer.SimpleTokenizer().encoder), stored["token_embedding.rows"].shape[1])
    table[stored["token_embedding.ids"].long()] = stored["token_embedding.rows"].float()
    return {**weights, "token_embedding.weight": table}


def checksum(tensor: Tensor) -> Tensor:
    """Sum, sum of magnitudes, norm, and a sum weighted by the cosine of the position. [...] -> [4]"""
    x = tensor.detach().cpu().double().flatten()
    cosine = torch.arange(len(x), dtype=torch.float64).cos()
    return torch.stack([x.sum(), x.abs().sum(), x.norm(), (x * cosine).sum()])
