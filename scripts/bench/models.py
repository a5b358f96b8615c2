"""Models and pictures for benchmarks: random weights of the true sizes, or the demo's small trained ones."""

import numpy as np
import torch
from PIL import Image

from clipscore.clip_model import ClipModel
from clipscore.config.load import REPOSITORY
from clipscore.models.backends import open_clip
from clipscore.models.devices import autocast_dtype
from clipscore.models.load import build_openai_layout

DEMO = REPOSITORY / "pretrained" / "demo"
PICTURE_SIZE = (500, 375)  # ImageNet's usual
GRID = (25, 19)  # patches of colour in a picture


def bench_clip(name: str, device: torch.device, precision: str) -> ClipModel:
    """The demo's `policy` or `reward`, or an OpenAI architecture, e.g. ViT-B-16, with random weights, which do not
    change what a step costs; with open_clip's own blocks."""
    if name in {"policy", "reward"}:
        backend = build_openai_layout(torch.load(DEMO / f"{name}.pt", weights_only=True))
    else:
        backend = open_clip.create_model(name, force_quick_gelu=True).half().float()  # OpenAI's lie on fp16's grid
    model = ClipModel(backend, name, "random", open_clip.tokenize, autocast_dtype(precision, device), lean=False)
    return model.to(device).eval().requires_grad_(False)


def random_picture(number: int) -> Image.Image:
    """Patches of colour, in the size of ImageNet's pictures."""
    patches = np.random.default_rng(number).integers(0, 256, (GRID[1], GRID[0], 3), dtype=np.uint8)
    return Image.fromarray(patches).resize(PICTURE_SIZE, Image.Resampling.BICUBIC)
