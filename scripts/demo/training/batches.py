"""What the demo's models are shown in training: random views of training digits and scenes, and their captions."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clipscore.data.images import normalize
from scripts.demo.arrangements import scene_pairs
from scripts.demo.captions import caption_token_ids, scene_token_ids
from scripts.demo.scenes import CLASS_NAMES, Scene, train_scenes
from scripts.demo.styles import render
from scripts.demo.training.attribute_heads import attributes_of, patch_attributes_of

SINGLES, SCENES = 72, 56  # pictures of a batch
SINGLE_CROP_SCALE = (0.5, 1.0)
SCENE_CROP_SCALE = (0.85, 1.0)  # a crop that is smaller would cut digits off
CROP_RATIO = (3 / 4, 4 / 3)  # torchvision's RandomResizedCrop default
WHOLE_SHARE = 1 / 3  # of the training pictures are not cropped, like the centre view of test time
MIN_SEVERITY = 0.5  # of shifted pictures
# Highest severity of shifted pictures: that of the test sets or somewhat above.
SINGLE_REACH = {"clean": 0.0, "sketch": 4.0625, "noise": 1.5625, "contrast": 4.0625, "rotation": 2.5, "blur": 5.0}
SCENE_REACH = {"clean": 0.0, "sketch": 5.0, "noise": 2.5, "contrast": 5.0, "rotation": 4.0625, "blur": 4.0625}
PASSES_OVER_SINGLES = 4  # a model of one style sees each single digit in this many places and shades
PAIRS_PER_STYLE = 10_000  # of scenes


class Pictures(NamedTuple):
    """Training pictures, style by style."""

    images: Tensor  # uint8 RGB [B, H, W, 3]; of a batch views, CLIP-normalised [B, 3, H, W]
    attributes: Tensor  # what is where, see `attribute_heads`. [B, A]
    patch_attributes: Tensor  # the same for each patch, before any crop or flip. [B, P, 2]


class Diet(NamedTuple):
    """What one model is trained on; captions hold places in `used_ids`: all 49,408 tokens would take most of a step."""

    singles: Pictures
    scenes: Pictures  # a scene of an even row differs little from its next
    scene_captions: Tensor  # token ids of each scene in each wording. [B, wordings, L]
    class_captions: Tensor  # of each class in each wording. [templates, C, L]
    class_attributes: Tensor  # what the captions of a class say. [C, A]
    used_ids: Tensor  # CLIP's ids of the tokens that occur, ascending


def draw(scenes: Sequence[Sequence[Scene]], reach: dict[str, float], styles: Sequence[str], seed: int) -> Pictures:
    """Pictures of the scenes of each style, of any severity up to the style's reach."""
    rng, images = np.random.default_rng(seed), []
    for of_style, style in zip(scenes, styles, strict=True):
        for scene in of_style:
            severity = rng.uniform(MIN_SEVERITY, reach[style]) if reach[style] else 0.0
            images.append(np.asarray(render(scene, style, severity, seed=int(rng.integers(2**31)))))
    every = [scene for of_style in scenes for scene in of_style]
    attributes, patches = (torch.stack([of(scene) for scene in every]) for of in (attributes_of, patch_attributes_of))
    return Pictures(torch.from_numpy(np.stack(images)), attributes, patches)


def prepare(styles: tuple[str, ...], seed: int) -> Diet:
    """Draw all pictures of a model."""
    passes = PASSES_OVER_SINGLES if len(styles) == 1 else 1
    ones = [scene for number in range(passes) for scene in train_scenes(seed=number)]
    singles = draw([ones] * len(styles), SINGLE_REACH, styles, seed)
    pairs = [scene_pairs(PAIRS_PER_STYLE, seed=100 * seed + number) for number in range(len(styles))]
    scenes = draw(pairs, SCENE_REACH, styles, seed)
    captions = torch.stack([scene_token_ids(scene) for of_style in pairs for scene in of_style]), caption_token_ids()
    used = torch.cat([ids.unique() for ids in captions]).unique()
    of_scenes, of_classes = (torch.searchsorted(used, ids) for ids in captions)
    examples = {scene.label: scene for scene in ones}
    said = torch.stack([attributes_of(examples[label]) for label in range(len(CLASS_NAMES))])
    return Diet(singles, scenes, of_scenes, of_classes, said, used)


def random_views(images: Tensor, generator: torch.Generator, scale: tuple[float, float], may_flip: bool) -> Tensor:
    """Random resized crop, and flip if allowed, one draw per image; colours stay. [B, 3, H, W] -> [B, 3, H, W]"""
    batch = len(images)
    uniform = torch.rand(6, batch, generator=generator)
    area = scale[0] + (scale[1] - scale[0]) * uniform[0]
    ratio = torch.exp(math.log(CROP_RATIO[0]) + math.log(CROP_RATIO[1] / CROP_RATIO[0]) * uniform[1])
    is_whole = uniform[5] < WHOLE_SHARE
    width = (area * ratio).sqrt().clamp(max=1).masked_fill(is_whole, 1)  # as a share of the picture's side
    height = (area / ratio).sqrt().clamp(max=1).masked_fill(is_whole, 1)
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0] = width * torch.where(uniform[4] < 0.5 * may_flip, -1.0, 1.0)
    theta[:, 1, 1] = height
    theta[:, 0, 2], theta[:, 1, 2] = (2 * uniform[2] - 1) * (1 - width), (2 * uniform[3] - 1) * (1 - height)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def text_batch(diet: Diet, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Token ids [T, L] of one wording, at random, of each class and of some scenes; and what they say [T, A]."""
    wordings = torch.randint(diet.scene_captions.shape[1], (len(rows),), generator=generator)
    num_templates, num_classes, _ = diet.class_captions.shape
    templates = torch.randint(num_templates, (num_classes,), generator=generator)
    classes = diet.class_captions[templates, torch.arange(num_classes)]
    said = torch.cat([diet.class_attributes, diet.scenes.attributes[rows]])
    return torch.cat([classes, diet.scene_captions[rows, wordings]]), said


def random_batch(diet: Diet, share: float, generator: torch.Generator) -> tuple[Pictures, tuple[Tensor, Tensor]]:
    """A batch of the first `share` of the pictures: random views of single digits, then of scenes in similar pairs."""
    ones = torch.randint(int(share * len(diet.singles.images)), (SINGLES,), generator=generator)
    firsts = torch.randint(int(share * len(diet.scenes.images)) // 2, (SCENES // 2,), generator=generator) * 2
    rows = torch.stack([firsts, firsts + 1], dim=1).flatten()
    singles, scenes = [part[ones] for part in diet.singles], [part[rows] for part in diet.scenes]
    singles[0] = random_views(normalize(singles[0]), generator, SINGLE_CROP_SCALE, may_flip=True)
    scenes[0] = random_views(normalize(scenes[0]), generator, SCENE_CROP_SCALE, may_flip=False)
    return Pictures(*map(torch.cat, zip(singles, scenes, strict=True))), text_batch(diet, rows, generator)
