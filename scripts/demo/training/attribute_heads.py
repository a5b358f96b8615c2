"""Naming the parts of a scene, in training only: which colour and digit is at which place.

A contrastive loss alone lets a small model find out late that pictures consist of digits; linear heads that name the
parts, one of them for both towers, teach them one language at once.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.demo.arrangements import LAYOUTS
from scripts.demo.scenes import CANVAS_PX, COLOURS, DIGIT_WORDS, Digit, Scene

MAX_DIGITS = 3
KINDS = ("single", *LAYOUTS)
PATCH_SIZES = (1 + len(COLOURS), 1 + len(DIGIT_WORDS))  # of colours and of digits; 0 is no digit
SIZES = (len(KINDS), *PATCH_SIZES * MAX_DIGITS)  # A attributes of a scene
PATCH_PX = 4


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
