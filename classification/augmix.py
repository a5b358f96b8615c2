"""AugMix: a picture mixed with three randomly distorted copies of itself.

Source: Hendrycks et al., "AugMix", ICLR 2020, with the nine operations that are not ImageNet-C corruptions, at
severity 1; official TPT/data/augmix_ops.py and datautils.py.
"""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

NUM_CHAINS = 3
MAX_CHAIN_DEPTH = 3
MIN_LEVEL, SEVERITY = 0.1, 1.0  # an operation's strength is drawn uniformly between the two; 10 would be full strength
FULL_STRENGTH = 10.0
MAX_BITS_DROPPED, MAX_DEGREES, MAX_SOLARIZE, MAX_SHEAR = 4, 30, 256, 0.3
MAX_TRANSLATE = 1 / 3  # of the picture's side


def augmix(image: Image.Image) -> Tensor:
    """Mix a square RGB picture with its distorted copies, drawing from torch's default generator. -> float32, 0 to 255,
    [H, W, 3]

    result = m * picture + (1 - m) * sum_i w_i * chain_i(picture), m ~ Beta(1, 1), w ~ Dirichlet(1, 1, 1); a chain
    applies one to three operations. The weights add up to 1, so mixing before or after the normalisation by mean and
    std gives the same tensor; it is done before, once per picture.
    """
    chain_weights = torch.empty(NUM_CHAINS).exponential_()  # normalised exponentials are Dirichlet(1, 1, 1)
    chain_weights /= chain_weights.sum()
    kept = _uniform(0, 1)  # Beta(1, 1)
    mixed = kept * np.asarray(image, dtype=np.float32)
    for weight in chain_weights.tolist():
        mixed += np.float32((1 - kept) * weight) * np.asarray(_chain(image), dtype=np.float32)
    return torch.from_numpy(mixed)


def _chain(image: Image.Image) -> Image.Image:
    for _ in range(int(torch.randint(1, MAX_CHAIN_DEPTH + 1, ()))):
        operation = OPERATIONS[int(torch.randint(len(OPERATIONS), ()))]
        image = operation(image)
    return image


def _uniform(low: float, high: float) -> float:
    return float(torch.empty(()).uniform_(low, high))


def _strength(maximum: float) -> float:
    return _uniform(MIN_LEVEL, SEVERITY) * maximum / FULL_STRENGTH


def _signed(value: float) -> float:
    """The value or its negative, each half of the time; an int stays an int."""
    return -value if int(torch.randint(2, ())) else value


def _shear(image: Image.Image, x: float, y: float) -> Image.Image:
    matrix = (1, x, 0, y, 1, 0)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR)


def _posterize(image: Image.Image) -> Image.Image:
    return ImageOps.posterize(image, 4 - int(_strength(MAX_BITS_DROPPED)))  # 4 bits are kept at severity 1


def _rotate(image: Image.Image) -> Image.Image:
    return image.rotate(_signed(int(_strength(MAX_DEGREES))), resample=Image.Resampling.BILINEAR)


def _solarize(image: Image.Image) -> Image.Image:
    return ImageOps.solarize(image, 256 - int(_strength(MAX_SOLARIZE)))


def _shear_x(image: Image.Image) -> Image.Image:
    return _shear(image, _signed(_strength(MAX_SHEAR)), 0)


def _shear_y(image: Image.Image) -> Image.Image:
    return _shear(image, 0, _signed(_strength(MAX_SHEAR)))


def _translate_x(image: Image.Image) -> Image.Image:
    return _shift(image, int(_signed(int(_strength(image.width * MAX_TRANSLATE)))), 0)


def _translate_y(image: Image.Image) -> Image.Image:
    return _shift(image, 0, int(_signed(int(_strength(image.height * MAX_TRANSLATE)))))


def _shift(image: Image.Image, x: int, y: int) -> Image.Image:
    """By whole pixels: a crop that reaches over the edge, filled with black, is what the bilinear transform returns."""
    return image.crop((x, y, image.width + x, image.height + y))


OPERATIONS: tuple[Callable[[Image.Image], Image.Image], ...] = (
    ImageOps.autocontrast, ImageOps.equalize, _posterize, _rotate, _solarize, _shear_x, _shear_y, _translate_x,
    _translate_y,
)  # fmt: skip
