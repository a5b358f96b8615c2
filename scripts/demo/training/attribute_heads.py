"""Heads that are there in training only: they read from a feature which colour and digit is at which place.

A contrastive loss alone lets a small model find out late that pictures consist of digits; naming the parts, with the
same head for both towers, teaches them one language at once.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scripts.demo.arrangements import LAYOUTS
from scripts.demo.scenes import CANVAS_PX, COLOURS, DIGIT_WORDS, Scene

MAX_DIGITS = 3
KINDS = ("single", *LAYOUTS)
SIZES = (len(KINDS), *(1 + len(COLOURS), 1 + len(DIGIT_WORDS)) * MAX_DIGITS)  # 0 is no digit
FEATURE_SCALE = 10.0  # unit-length features would need large weights
PATCH_PX = 4
PATCH_SIZES = (1 + len(COLOURS), 1 + len(DIGIT_WORDS))


def attributes_of(scene: Scene) -> Tensor:
    """Layout, then colour and digit of the first, second and third digit in reading order: [1 + 2 * MAX_DIGITS]."""
    values = [KINDS.index(scene.layout)]
    for digit in scene.digits:
        values += [1 + list(COLOURS).index(digit.colour), 1 + digit.value]
    return torch.tensor(values + [0] * (len(SIZES) - len(values)))


def patch_attributes_of(scene: Scene) -> Tensor:
    """Colour and digit, or 0 and 0, in the middle of each patch: uint8 [patches, 2]."""
    grid = torch.zeros(CANVAS_PX, CANVAS_PX, 2, dtype=torch.uint8)
    for digit in scene.digits:
        square = slice(digit.top, digit.top + digit.size), slice(digit.left, digit.left + digit.size)
        grid[square] = torch.tensor([1 + list(COLOURS).index(digit.colour), 1 + digit.value], dtype=torch.uint8)
    middle = slice(PATCH_PX // 2, None, PATCH_PX)
    return grid[middle, middle].reshape(-1, 2)


class AttributeHead(nn.Linear):
    """A linear head for all attributes."""

    def __init__(self, feature_width: int) -> None:
        super().__init__(feature_width, sum(SIZES))

    def loss(self, features: Tensor, attributes: Tensor) -> Tensor:
        """Mean cross-entropy of the attributes: unit-length features [B, D], attributes [B, A] -> scalar."""
        logits = self(FEATURE_SCALE * features).split(SIZES, dim=-1)
        losses = [F.cross_entropy(part, attributes[:, place]) for place, part in enumerate(logits)]
        return torch.stack(losses).mean()


class PatchHead(nn.Linear):
    """A linear head for the colour and the digit that a patch lies on."""

    def __init__(self, token_width: int) -> None:
        super().__init__(token_width, sum(PATCH_SIZES))

    def loss(self, tokens: Tensor, attributes: Tensor) -> Tensor:
        """Mean cross-entropy over patches: image tokens [B, P, W], attributes [B, P, 2] -> scalar."""
        colour, digit = self(tokens).flatten(0, 1).split(PATCH_SIZES, dim=-1)
        attributes = attributes.long().flatten(0, 1)
        return (F.cross_entropy(colour, attributes[:, 0]) + F.cross_entropy(digit, attributes[:, 1])) / 2
