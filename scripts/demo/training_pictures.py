"""What the demo's models are shown in training: pictures of training digits, in random crops and flips."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scripts.demo.evaluate import as_clip_batch
from scripts.demo.scenes import train_scenes
from scripts.demo.styles import MAX_SEVERITY, render

CROP_SCALE = (0.5, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)  # torchvision's RandomResizedCrop default
WHOLE_SHARE = 1 / 3  # of the training pictures are not cropped, like the centre view of test time
MIN_SEVERITY = 0.5  # of shifted pictures
PASSES_OVER_SCENES = 4  # a model of one style sees each training scene in this many places and shades


def draw_pictures(styles: tuple[str, ...], seed: int) -> tuple[Tensor, Tensor]:
    """Training pictures, CLIP-normalised, and their classes, style by style: [B, 3, 24, 24], [B]."""
    rng = np.random.default_rng(seed)
    pictures, labels = [], []
    passes = PASSES_OVER_SCENES if len(styles) == 1 else 1
    for style in styles:
        for round_index in range(passes):
            for scene in train_scenes(seed=round_index):
                severity = 0.0 if style == "clean" else rng.uniform(MIN_SEVERITY, MAX_SEVERITY)
                pictures.append(render(scene, style, severity, seed=int(rng.integers(2**31))))
                labels.append(scene.label)
    return as_clip_batch(pictures), torch.tensor(labels)


def random_views(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random resized crop and horizontal flip, one draw per image; colours stay. [B, 3, H, W] -> [B, 3, H, W]"""
    batch = len(images)
    uniform = torch.rand(6, batch, generator=generator)
    area = CROP_SCALE[0] + (CROP_SCALE[1] - CROP_SCALE[0]) * uniform[0]
    ratio = torch.exp(math.log(CROP_RATIO[0]) + math.log(CROP_RATIO[1] / CROP_RATIO[0]) * uniform[1])
    is_whole = uniform[5] < WHOLE_SHARE
    width = (area * ratio).sqrt().clamp(max=1).masked_fill(is_whole, 1)  # as a share of the picture's side
    height = (area / ratio).sqrt().clamp(max=1).masked_fill(is_whole, 1)
    flip = torch.where(uniform[4] < 0.5, -1.0, 1.0)
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = width * flip, height
    theta[:, 0, 2], theta[:, 1, 2] = (2 * uniform[2] - 1) * (1 - width), (2 * uniform[3] - 1) * (1 - height)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
