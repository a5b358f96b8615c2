"""Models for benchmarks: what a step costs does not depend on the weights' values."""

from __future__ import annotations

import open_clip
import torch

from clipscore.clip_model import ClipModel
from clipscore.devices import autocast_dtype


def random_clip(name: str, device: torch.device, precision: str) -> ClipModel:
    """A CLIP of an OpenAI architecture, e.g. ViT-B-16, with random weights."""
    backend = open_clip.create_model(name, force_quick_gelu=True)
    model = ClipModel(backend, name, "random", open_clip.tokenize, autocast_dtype(precision, device))
    return model.to(device).eval().requires_grad_(False)
