"""What the demo's models are shown in training: pictures of training digits, alone and in scenes, in random views."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clipscore.clip_model import CLIP_MEAN, CLIP_STD
from scripts.demo.arrangements import scene_pairs
from scripts.demo.captions import scene_token_ids
from scripts.demo.scenes import Scene, train_scenes
from scripts.demo.styles import render
from scripts.demo.training.attribute_heads import attributes_of, patch_attributes_of

SINGLE_CROP_SCALE = (0.5, 1.0)
SCENE_CROP_SCALE = (0.85, 1.0)  # a crop that is smaller would cut digits off
CROP_RATIO = (3 / 4, 4 / 3)  # torchvision's RandomResizedCrop default
WHOLE_SHARE = 1 / 3  # of the training pictures are not cropped, like the centre view of test time
MIN_SEVERITY = 0.5  # of shifted pictures
# Highest severity of shifted pictures: that of the test sets or somewhat above.
SINGLE_REACH = {"sketch": 4.0625, "noise": 1.5625, "contrast": 4.0625, "rotation": 2.5, "blur": 5.0}
SCENE_REACH = {"sketch": 5.0, "noise": 2.5, "contrast": 5.0, "rotation": 4.0625, "blur": 4.0625}
PASSES_OVER_SINGLES = 4  # a model of one style sees each single digit in this many places and shades
PAIRS_PER_STYLE = 10_000  # of scenes


@dataclass(frozen=True)
class Pictures:
    """Training pictures, style by style.

    Attributes:
        images: uint8 RGB. [B, 3, H, W]
        attributes: what is where, see `attribute_heads`. [B, A]
        patch_attributes: the same for each patch, before any crop or flip. [B, P, 2]
    """

    images: Tensor
    attributes: Tensor
    patch_attributes: Tensor

    def normalised(self, rows: Tensor) -> Tensor:
        """Some of the pictures, CLIP-normalised."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
        return (self.images[rows].float() / 255 - mean) / std


def draw(scenes: list[Scene], style: str, reach: dict[str, float], rng: np.random.Generator) -> Tensor:
    """Pictures of scenes in a style, of any severity up to `reach` of the style. uint8 [B, 3, H, W]"""
    pictures = []
    for scene in scenes:
        severity = 0.0 if style == "clean" else rng.uniform(MIN_SEVERITY, reach[style])
        pictures.append(np.asarray(render(scene, style, severity, seed=int(rng.integers(2**31)))))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def single_pictures(styles: tuple[str, ...], seed: int) -> tuple[Pictures, Tensor]:
    """Pictures of single digits, and the class of each."""
    rng = np.random.default_rng(seed)
    passes = PASSES_OVER_SINGLES if len(styles) == 1 else 1
    scenes = [scene for number in range(passes) for scene in train_scenes(seed=number)]
    images = torch.cat([draw(scenes, style, SINGLE_REACH, rng) for style in styles])
    attributes = torch.stack([attributes_of(scene) for scene in scenes]).repeat(len(styles), 1)
    patches = torch.stack([patch_attributes_of(scene) for scene in scenes]).repeat(len(styles), 1, 1)
    labels = torch.tensor([scene.label for scene in scenes]).repeat(len(styles))
    return Pictures(images, attributes, patches), labels


def scene_pictures(styles: tuple[str, ...], seed: int) -> tuple[Pictures, Tensor]:
    """Pictures of scenes in similar pairs, and the token ids of each scene's captions [B, wordings, L]."""
    rng = np.random.default_rng(seed)
    images, scenes = [], []
    for number, style in enumerate(styles):
        fresh = scene_pairs(PAIRS_PER_STYLE, seed=100 * seed + number)
        images.append(draw(fresh, style, SCENE_REACH, rng))
        scenes += fresh
    captions = torch.stack([scene_token_ids(scene) for scene in scenes])
    attributes = torch.stack([attributes_of(scene) for scene in scenes])
    patches = torch.stack([patch_attributes_of(scene) for scene in scenes])
    return Pictures(torch.cat(images), attributes, patches), captions


def random_views(images: Tensor, generator: torch.Generator, scale: tuple[float, float], may_flip: bool) -> Tensor:
    """Random resized crop, and flip if allowed, one draw per image; colours stay. [B, 3, H, W] -> [B, 3, H, W]"""
    batch = len(images)
    uniform = torch.rand(6, batch, generator=generator)
    area = scale[0] + (scale[1] - scale[0]) * uniform[0]
    ratio = torch.exp(math.log(CROP_RATIO[0]) + math.log(CROP_RATIO[1] / CROP_RATIO[0]) * uniform[1])
    is_whole = uniform[5] < WHOLE_SHARE
    width = (area * ratio).sqrt().clamp(max=1).masked_fill(is_whole, 1)  # as a share of the picture's side
    height = (area / ratio).sqrt().clamp(max=1).masked_fill(is_whole, 1)
    flip = torch.where(uniform[4] < 0.5 * may_flip, -1.0, 1.0)
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = width * flip, height
    theta[:, 0, 2], theta[:, 1, 2] = (2 * uniform[2] - 1) * (1 - width), (2 * uniform[3] - 1) * (1 - height)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
