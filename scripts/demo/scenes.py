"""Scenes of coloured handwritten digits, from the 1,797 images that ship with scikit-learn; `styles` draws them.

A scene of one digit has one of 60 classes (colour x digit, "red seven"); `arrangements` makes those of two or three.
Training and test scenes use disjoint handwritten images.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from sklearn.datasets import load_digits

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (1.0, 0.1, 0.1), "green": (0.1, 0.85, 0.1), "blue": (0.15, 0.3, 1.0),
    "yellow": (1.0, 0.95, 0.1), "purple": (0.75, 0.15, 0.9), "cyan": (0.1, 0.9, 0.95),
}  # fmt: skip
DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CLASS_NAMES = tuple(f"{colour} {word}" for colour in COLOURS for word in DIGIT_WORDS)
CANVAS_PX, DIGIT_PX = 24, 20  # sides
TEST_IMAGES_PER_CLASS = 7  # handwritten images held out for each colour
TEST_PICTURES_PER_CLASS = 4  # of a test set: enough to compare methods within a few minutes
TEST_STRIDE = 4  # every fourth image of a digit is a test image, until there are enough for all colours

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Digit:
    """One handwritten digit of a scene."""

    image_index: int  # which of scikit-learn's 1,797 images
    colour: str  # a key of COLOURS
    left: int  # corner of its square on the canvas, pixels
    top: int
    size: int = DIGIT_PX  # side of the square, pixels

    @property
    def value(self) -> int:
        """The digit that was written, 0 to 9."""
        return int(handwritten()[1][self.image_index])

    @property
    def name(self) -> str:
        """Its words, for example "red seven"."""
        return f"{self.colour} {DIGIT_WORDS[self.value]}"


@dataclass(frozen=True)
class Scene:
    """Digits on the canvas; a later digit is painted over an earlier one."""

    digits: tuple[Digit, ...]  # in reading order, rows from the top and each row from the left
    layout: str = "single"  # one digit; otherwise a key of arrangements.LAYOUTS

    @property
    def content(self) -> tuple[str, ...]:
        """What the scene shows, apart from handwriting and exact places: its layout and the names of its digits."""
        return self.layout, *(digit.name for digit in self.digits)

    @property
    def label(self) -> int:
        """Class index of a single-digit scene, into CLASS_NAMES."""
        if len(self.digits) != 1:
            raise ValueError(f"a class label needs a scene of exactly one digit, got {len(self.digits)}")
        return CLASS_NAMES.index(self.digits[0].name)


@cache
def handwritten() -> tuple[np.ndarray, np.ndarray]:
    """Ink in [0, 1], [1797, 8, 8], and the digit written, [1797]."""
    bunch = load_digits()
    return bunch.images / 16, bunch.target  # scikit-learn's pixels are 0..16


@cache
def digit_images(split: Split) -> dict[int, tuple[int, ...]]:
    """Image indices of a split for each digit value; the two splits share none."""
    chosen: dict[int, tuple[int, ...]] = {}
    for value in range(len(DIGIT_WORDS)):
        indices = np.flatnonzero(handwritten()[1] == value)
        test = indices[::TEST_STRIDE][: TEST_IMAGES_PER_CLASS * len(COLOURS)]
        chosen[value] = tuple((test if split == "test" else np.setdiff1d(indices, test)).tolist())
    return chosen


def _placed(image_index: int, colour: str, rng: np.random.Generator) -> Scene:
    """Scene of one digit, moved at random within the canvas."""
    left, top = (int(offset) for offset in rng.integers(0, CANVAS_PX - DIGIT_PX + 1, size=2))
    return Scene((Digit(image_index, colour, left, top),))


def test_scenes(seed: int = 0) -> list[Scene]:
    """The 240 test scenes: 4 of each class in label order, no handwritten test image twice."""
    rng = np.random.default_rng(seed)
    images = {value: iter(rng.permutation(indices)) for value, indices in digit_images("test").items()}
    classes = [(colour, value) for colour in COLOURS for value in images for _ in range(TEST_PICTURES_PER_CLASS)]
    return [_placed(int(next(images[value])), colour, rng) for colour, value in classes]


def train_scenes(seed: int = 0) -> list[Scene]:
    """Each handwritten training image once in each colour."""
    rng = np.random.default_rng(seed)
    indices = [index for group in digit_images("train").values() for index in group]
    return [_placed(index, colour, rng) for index in indices for colour in COLOURS]
