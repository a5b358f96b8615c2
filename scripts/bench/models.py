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
    """25 x 19 patches of colour, in the usual size of ImageNet's pictures."""
    patches = np.random.default_rng(number).integers(0, 256, (19, 25, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((500, 375), Image.Resampling.BICUBIC)
