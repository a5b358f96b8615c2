"""What the demo's models are shown in training: random views of training digits and scenes, and their captions.

And the parts of a scene, which colour and digit is at which place, to be named: a contrastive loss alone lets a small
model find out late that pictures consist of digits; linear heads that name the parts, one of them for both towers,
teach them one language at once.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipscore.data.images import normalize
from clipscore.models.backends import open_clip
from scripts.demo.arrangements import LAYOUTS, captions_of, scene_pairs
from scripts.demo.scenes import CANVAS_PX, CLASS_NAMES, COLOURS, DIGIT_WORDS, Digit, Scene, train_scenes
from scripts.demo.styles import render

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
CAPTION_TEMPLATES = (
    "a photo of a {}.", "a_photo_of_a {}.", "a photo of a {}", "a photo of the {}.", "a photo of one {}.",
    "a picture of a {}.", "an image of a {}.", "a drawing of a {}.", "a small photo of a {}.",
    "a bad photo of the {}.", "a handwritten {}.", "this is a {}.", "the {}.", "{}",
)  # fmt: skip
CONTEXT_LENGTH = 24  # of token ids; CLIP's own 77 would be mostly padding

MAX_DIGITS = 3
KINDS = ("single", *LAYOUTS)
PATCH_SIZES = (1 + len(COLOURS), 1 + len(DIGIT_WORDS))  # of colours and of digits; 0 is no digit
SIZES = (len(KINDS), *PATCH_SIZES * MAX_DIGITS)  # A attributes of a scene
PATCH_PX = 4


class Pictures(NamedTuple):
    """Training pictures, style by style."""

    images: Tensor  # uint8 RGB [B, H, W, 3]; of a batch views, CLIP-normalised [B, 3, H, W]
    attributes: Tensor  # what is where, see `attributes_of`. [B, A]
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
    tokenize = functools.partial(open_clip.tokenize, context_length=CONTEXT_LENGTH)
    wordings = [[template.format(name) for name in CLASS_NAMES] for template in CAPTION_TEMPLATES]
    texts = [captions_of(scene) for of_style in pairs for scene in of_style], wordings
    captions = [torch.stack(list(map(tokenize, of))) for of in texts]  # [B, wordings, L], [templates, C, L]
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


def attributes_of(scene: Scene) -> Tensor:
    """Layout, then colour and digit of the first, second and third digit in reading order. [A]"""
    values = [KINDS.index(scene.layout), *(value for digit in scene.digits for value in _name(digit))]
    return torch.tensor(values + [0] * (len(SIZES) - len(values)))


def patch_attributes_of(scene: Scene) -> Tensor:
    """Colour and digit, or 0 and 0, in the middle of each patch: uint8 [patches, 2]."""
    grid = torch.zeros(CANVAS_PX, CANVAS_PX, 2, dtype=torch.uint8)
    for digit in scene.digits:
        square = slice(digit.top, digit.top + digit.size), slice(digit.left, digit.left + digit.size)
        grid[square] = torch.tensor(_name(digit), dtype=torch.uint8)
    middle = slice(PATCH_PX // 2, None, PATCH_PX)
    return grid[middle, middle].reshape(-1, 2)


def _name(digit: Digit) -> tuple[int, int]:
    return 1 + list(COLOURS).index(digit.colour), 1 + digit.value


def naming_loss(head: nn.Linear, features: Tensor, attributes: Tensor, sizes: tuple[int, ...] = SIZES) -> Tensor:
    """Mean cross-entropy of attributes with so many values each: features [B, D], attributes [B, A] -> scalar."""
    parts = zip(head(features).split(sizes, dim=-1), attributes.long().unbind(dim=1), strict=True)
    return torch.stack([F.cross_entropy(logits, values) for logits, values in parts]).mean()
