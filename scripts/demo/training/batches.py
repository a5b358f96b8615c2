"""What the demo's models are shown in training: random views of training digits and scenes, and their captions."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clipscore.clip_model import CLIP_MEAN, CLIP_STD
from scripts.demo.arrangements import scene_pairs
from scripts.demo.captions import caption_token_ids, scene_token_ids
from scripts.demo.scenes import CLASS_NAMES, Scene, train_scenes
from scripts.demo.styles import render
from scripts.demo.training.attribute_heads import attributes_of, patch_attributes_of

SINGLES, SCENES = 72, 56  # pictures of a batch
TEXT_BATCH = 128  # scenes of a batch of captions only
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


class Pictures(NamedTuple):
    """Training pictures, style by style; in a batch float views of them."""

    images: Tensor  # uint8 RGB. [B, 3, H, W]
    attributes: Tensor  # what is where, see `attribute_heads`. [B, A]
    patch_attributes: Tensor  # the same for each patch, before any crop or flip. [B, P, 2]

    def normalised(self, rows: Tensor) -> Tensor:
        """Some of the pictures, CLIP-normalised."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
        return (self.images[rows].float() / 255 - mean) / std


def _pictures(images: Tensor, scenes: Sequence[Scene]) -> Pictures:
    attributes, patches = (torch.stack([of(scene) for scene in scenes]) for of in (attributes_of, patch_attributes_of))
    return Pictures(images, attributes, patches)


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
    return _pictures(images, scenes * len(styles)), torch.tensor([scene.label for scene in scenes] * len(styles))


def scene_pictures(styles: tuple[str, ...], seed: int) -> tuple[Pictures, Tensor]:
    """Pictures of scenes in similar pairs, and the token ids of each scene's captions [B, wordings, L]."""
    rng = np.random.default_rng(seed)
    scenes = [scene_pairs(PAIRS_PER_STYLE, seed=100 * seed + number) for number in range(len(styles))]
    images = torch.cat([draw(fresh, style, SCENE_REACH, rng) for fresh, style in zip(scenes, styles, strict=True)])
    every = [scene for fresh in scenes for scene in fresh]
    return _pictures(images, every), torch.stack([scene_token_ids(scene) for scene in every])


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


class Diet(NamedTuple):
    """What one model is trained on; captions hold places in `used_ids`: all 49,408 tokens would take most of a step."""

    singles: Pictures
    scenes: Pictures  # a scene of an even row differs little from its next
    scene_captions: Tensor  # token ids of each scene in each wording. [B, wordings, L]
    class_captions: Tensor  # of each class in each wording. [templates, C, L]
    class_attributes: Tensor  # what the captions of a class say, see `attribute_heads`. [C, A]
    used_ids: Tensor  # CLIP's ids of the tokens that occur, ascending


class Texts(NamedTuple):
    """Token ids [T, L], and what they say [T, A]: a caption of each class, then one of each of some scenes."""

    token_ids: Tensor
    attributes: Tensor


Batch = tuple[Pictures, Texts]  # the pictures are views, float [B, 3, H, W]


def prepare(styles: tuple[str, ...], seed: int) -> Diet:
    """Draw all pictures of a model."""
    singles, labels = single_pictures(styles, seed)
    scenes, scene_captions = scene_pictures(styles, seed)
    class_captions = caption_token_ids()
    used = torch.cat([scene_captions.unique(), class_captions.unique()]).unique()
    scene_captions, class_captions = (torch.searchsorted(used, ids) for ids in (scene_captions, class_captions))
    firsts = [int((labels == label).nonzero()[0]) for label in range(len(CLASS_NAMES))]
    return Diet(singles, scenes, scene_captions, class_captions, singles.attributes[firsts], used)


def text_batch(diet: Diet, rows: Tensor, generator: torch.Generator) -> Texts:
    """One wording of each class and of each of some scenes, at random."""
    _, num_wordings, _ = diet.scene_captions.shape
    num_templates, num_classes, _ = diet.class_captions.shape
    scenes = diet.scene_captions[rows, torch.randint(num_wordings, (len(rows),), generator=generator)]
    templates = torch.randint(num_templates, (num_classes,), generator=generator)
    classes = diet.class_captions[templates, torch.arange(num_classes)]
    attributes = torch.cat([diet.class_attributes, diet.scenes.attributes[rows]])
    return Texts(torch.cat([classes, scenes]), attributes)


def random_batch(diet: Diet, share: float, generator: torch.Generator) -> Batch:
    """A batch of the first `share` of the pictures: random views of single digits, then of scenes in similar pairs."""
    ones = torch.randint(int(share * len(diet.singles.images)), (SINGLES,), generator=generator)
    firsts = torch.randint(int(share * len(diet.scenes.images)) // 2, (SCENES // 2,), generator=generator) * 2
    rows = torch.stack([firsts, firsts + 1], dim=1).flatten()
    single_views = random_views(diet.singles.normalised(ones), generator, SINGLE_CROP_SCALE, may_flip=True)
    scene_views = random_views(diet.scenes.normalised(rows), generator, SCENE_CROP_SCALE, may_flip=False)
    singles, scenes = [part[ones] for part in diet.singles[1:]], [part[rows] for part in diet.scenes[1:]]
    attributes, patch_attributes = map(torch.cat, zip(singles, scenes, strict=True))
    pictures = Pictures(torch.cat([single_views, scene_views]), attributes, patch_attributes)
    return pictures, text_batch(diet, rows, generator)
