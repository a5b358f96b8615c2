"""Models and pictures for benchmarks: random weights of the true sizes, or the demo's small trained ones."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clipscore.clip_model import ClipModel
from clipscore.config.load import REPOSITORY
from clipscore.data.images import model_input
from clipscore.data.open_image import open_image
from clipscore.models.backends import open_clip
from clipscore.models.devices import autocast_dtype
from clipscore.models.load import build_openai_layout

DEMO = REPOSITORY / "pretrained" / "demo"
PICTURE_SIZE = (500, 375)  # ImageNet's usual
GRID = (25, 19)  # patches of colour in a random picture


def bench_clip(name: str, device: torch.device, precision: str) -> ClipModel:
    """The demo's `policy` or `reward`, or an OpenAI architecture, e.g. ViT-B-16, with random weights, which do not
    change what a step costs; with open_clip's own blocks."""
    if name in {"policy", "reward"}:
        backend = build_openai_layout(torch.load(DEMO / f"{name}.pt", weights_only=True))
    else:
        backend = open_clip.create_model(name, force_quick_gelu=True).half().float()  # OpenAI's lie on fp16's grid
    model = ClipModel(backend, name, "random", open_clip.tokenize, autocast_dtype(precision, device), lean=False)
    return model.to(device).eval().requires_grad_(False)


class Pictures:
    """Picture files, written when they are first asked for and gone with this object.

    Of the demo's noisy digits, or, for another `size`, random patches of colour in the size of ImageNet's pictures.
    """

    def __init__(self, size: str) -> None:
        self._draw, self._ending = (_demo_picture, "png") if size == "demo" else (_random_picture, "jpg")
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")

    def path(self, number: int) -> Path:
        """The file of a picture."""
        file = Path(self._folder.name) / f"{number}.{self._ending}"
        if not file.exists():
            self._draw(number).save(file)
        return file

    def batch(self, number: int, size: int) -> Tensor:
        """The centre view of a picture, CLIP-normalised. [1, 3, size, size]"""
        return model_input(open_image(self.path(number)), size)[None]


def _demo_picture(number: int) -> Image.Image:
    from scripts.demo.styles import TEST_SEVERITY, render, test_scenes  # scikit-learn would count as memory

    scenes = test_scenes()
    index = number * 7 % len(scenes)  # of different classes
    return render(scenes[index], "noise", TEST_SEVERITY["noise"], seed=index)


def _random_picture(number: int) -> Image.Image:
    patches = np.random.default_rng(number).integers(0, 256, (GRID[1], GRID[0], 3), dtype=np.uint8)
    return Image.fromarray(patches).resize(PICTURE_SIZE, Image.Resampling.BICUBIC)
