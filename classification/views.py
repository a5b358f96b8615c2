"""The N views of one test image: the centre view first, then random ones."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from classification.augmix import augmix
from clipscore.clip_model import Form
from clipscore.data.images import centre_view, normalize, to_pixels

Recipe = Literal["crop", "augmix", "byol"]
Backend = Literal["pil", "tensor"]

CROP_SCALES: dict[Recipe, tuple[float, float]] = {"crop": (0.08, 1.0), "augmix": (0.08, 1.0), "byol": (0.2, 1.0)}


def make_views(
    image: Image.Image,
    num_views: int,
    size: int | Form,
    seed: int,
    recipe: Recipe = "crop",
    crop_scale: tuple[float, float] | None = None,
    backend: Backend = "pil",
    normalized: bool = True,
) -> Tensor:
    """Draw the views of one RGB image.

    View 0 is the centre view (bicubic resize of the short side, centre crop). The others are random resized crops of
    the image itself (bilinear) with random flips; "augmix" mixes each with distorted copies, "byol" changes colours and
    blurs. The first views do not depend on num_views. No global random state is read or changed, but torch's default
    CPU generator is borrowed while drawing: do not call this from two threads of a process.

    Args:
        num_views: N >= 1; 1 gives the centre view alone.
        size: side of a view, pixels; with a model's own way to the centre view if it has one.
        seed: see `clipscore.data.samples.sample_seed`; the only source of randomness.
        crop_scale: smallest and largest part of the image's area in a crop; None takes the recipe's own.
        backend: what makes the random views: "pil", the form of record, or torchvision's operations on "tensor": the
            same crops of the same numbers, resized with antialiasing too, which differ by rounding.
        normalized: False leaves `normalize` to the caller, but for "augmix".

    Returns:
        CLIP-normalised views, float32 [N, 3, size, size]; if not `normalized`, uint8 [N, size, size, 3].

    ValueError: an argument out of range, or an image that is not RGB. Source: paper Sec. 4.1; official
    TPT/data/datautils.py; hard_aug there is "byol".
    """
    side = size.size if isinstance(size, Form) else size
    crop_scale = _checked(image, num_views, side, recipe, crop_scale, backend)
    draw = _random_view(recipe, side, crop_scale)
    source = image if backend == "pil" else to_pixels(image).permute(2, 0, 1)  # [3, H, W]
    with _seeded(seed):
        views = [to_pixels(centre_view(image, size)), *(draw(source) for _ in range(1, num_views))]
    if recipe == "augmix":  # makes no whole numbers
        return torch.stack([normalize(view) for view in views])
    return normalize(torch.stack(views)) if normalized else torch.stack(views)


draw_views = functools.partial(make_views, normalized=False)


def _checked(
    image: Image.Image,
    num_views: int,
    size: int,
    recipe: Recipe,
    crop_scale: tuple[float, float] | None,
    backend: Backend,
) -> tuple[float, float]:
    if num_views < 1:
        raise ValueError(f"num_views must be at least 1 (the centre view), got {num_views}")
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    if recipe not in get_args(Recipe):
        raise ValueError(f"unknown recipe {recipe!r}; valid: {', '.join(get_args(Recipe))}")
    if backend not in get_args(Backend):
        raise ValueError(f"unknown backend {backend!r}; valid: {', '.join(get_args(Backend))}")
    if image.mode != "RGB":
        raise ValueError(f"image must be RGB, got mode {image.mode}; open it with clipscore.data.images.open_image")
    low, high = CROP_SCALES[recipe] if crop_scale is None else crop_scale
    if not 0 < low <= high <= 1:
        raise ValueError(f"crop_scale must be two numbers with 0 < low <= high <= 1, got {crop_scale}")
    return low, high


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator inside the block and put its state back after.

    torch.manual_seed is avoided: it seeds the accelerators' generators too, which fork_rng would have to save.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _random_view(
    recipe: Recipe, size: int, crop_scale: tuple[float, float]
) -> Callable[[Image.Image | Tensor], Tensor]:
    crop, flip = v2.RandomResizedCrop(size, scale=crop_scale), v2.RandomHorizontalFlip()
    if recipe == "crop":
        return v2.Compose([crop, flip, _to_pixels])
    if recipe == "augmix":
        return v2.Compose([crop, flip, _to_image, augmix])
    jitter = v2.RandomApply([v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)], p=0.5)
    blur = v2.RandomApply([v2.GaussianBlur(3, sigma=(0.1, 2.0))], p=0.1)
    return v2.Compose([crop, jitter, v2.RandomGrayscale(p=0.2), blur, flip, _to_pixels])


def _to_pixels(picture: Image.Image | Tensor) -> Tensor:
    return picture.permute(1, 2, 0) if isinstance(picture, Tensor) else to_pixels(picture)  # -> [H, W, 3]


def _to_image(picture: Image.Image | Tensor) -> Image.Image:
    return v2.ToPILImage()(picture) if isinstance(picture, Tensor) else picture
