"""An image file as a model sees it: opened as RGB whatever is in it, resized, cropped, normalised."""

import contextlib
import functools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from open_clip import image_transform
from PIL import Image, ImageFile, ImageOps
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from clipscore.clip_model import CLIP_MEAN, CLIP_STD, Form
from clipscore.data.checks import START_BYTES, describe_stand_in

_FULL_SCALES = {  # brightest value of single-channel images with more than 8 bits, by PIL mode
    "I;16": [65535.0], "I;16L": [65535.0], "I;16B": [65535.0], "I;16N": [65535.0],
    "I": [65535.0],  # 16-bit PNG files, before Pillow 11
    "F": [1.0, 255.0, 65535.0],
}  # fmt: skip
_MAX_ASPECT = 64  # a longer strip is cut to this before it is resized, or the resized strip fills memory


class UnreadableImage(ValueError):
    """An image file that cannot be decoded. The message names the file and the reason."""


def open_image(path: Path, as_rgb: bool = True, strict: bool = False, upright: bool = False) -> Image.Image:
    """Open an image file as RGB, as torchvision's default loader does: transparency is dropped, EXIF is not applied.

    Images of 16 or 32 bits per pixel are scaled to 8 bits, not clipped at 255; others keep their mode unless `as_rgb`.
    One that is cut off is read as far as it goes, as in the official code, and has `truncated` in its `info`; `strict`
    refuses it. `upright` turns it as its EXIF says. UnreadableImage for a file that is not there, empty, damaged, or no
    image.
    """
    path = Path(path)
    if not path.is_file():
        raise UnreadableImage(f"{path}: {'not a file' if path.exists() else 'no such file'}; restore the image")
    if path.stat().st_size == 0:
        raise UnreadableImage(f"{path}: the file is empty (0 bytes); download the image again")
    try:
        try:
            return _decode(path, as_rgb, upright)
        except OSError:
            if strict:
                raise
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            image = _decode(path, as_rgb, upright)
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = False
        image.info["truncated"] = True
        return image
    except Exception as error:  # the decoders raise many types on damaged files
        with path.open("rb") as stream:
            stand_in = describe_stand_in(stream.read(START_BYTES))
        reason = f"it {stand_in}" if stand_in else f"{type(error).__name__}: {error}"
        raise UnreadableImage(f"{path}: cannot be read as an image ({reason}); replace the file") from error


def _decode(path: Path, as_rgb: bool, upright: bool) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # large images and palette transparency are expected
        with Image.open(path) as file:
            image: Image.Image = file
            if upright:
                with contextlib.suppress(ValueError, TypeError, SyntaxError):  # EXIF that makes no sense
                    image = ImageOps.exif_transpose(file)
            if image.mode in _FULL_SCALES:
                return _deep_to_rgb(image)
            return image.convert("RGB") if as_rgb else image.copy()


def _deep_to_rgb(image: Image.Image) -> Image.Image:
    """Scale to 8 bits by the smallest usual full scale that holds the brightest pixel, else by that pixel."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0).clip(min=0.0)
    brightest = float(values.max())
    full_scale = next((scale for scale in _FULL_SCALES[image.mode] if brightest <= scale), brightest)
    return Image.fromarray((values * (255.0 / full_scale)).round().astype(np.uint8)).convert("RGB")


def centre_view(image: Image.Image, size: int | Form) -> Image.Image:
    """CLIP's preprocessing: bicubic resize of the short side to `size` pixels, then a centre crop; or a model's own."""
    if isinstance(size, Form):
        if size != (form := Form(size.size)):
            steps = image_transform(size.size, False, resize_mode=size.resize_mode, interpolation=size.interpolation)
            return Compose(steps.transforms[:-2])(image)  # without ToTensor and Normalize
        size = form.size
    longest = _MAX_ASPECT * min(image.size)
    if max(image.size) > longest:
        image = CenterCrop((min(image.height, longest), min(image.width, longest)))(image)
    return CenterCrop(size)(Resize(size, interpolation=InterpolationMode.BICUBIC)(image))


def to_pixels(image: Image.Image) -> Tensor:
    """The picture as it is: uint8, [H, W, 3]."""
    return torch.from_numpy(np.array(image))


def normalize(pixels: Tensor) -> Tensor:
    """The arithmetic of ToTensor and Normalize, in their order: 0 to 255, [..., H, W, 3] -> [..., 3, H, W]."""
    white, mean, std = _scales(pixels.device)
    return pixels.movedim(-1, -3).contiguous().div(white).sub_(mean).div_(std)


@functools.cache
def _scales(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """White, CLIP's mean and its deviation. By a plain 255, CUDA would multiply with the inverse: other last digits."""
    white, mean, std = (torch.tensor(v, device=device).view(-1, 1, 1) for v in ([255.0], CLIP_MEAN, CLIP_STD))
    return white, mean, std


def model_input(image: Image.Image, size: int | Form) -> Tensor:
    """A picture as a CLIP of this input size sees it; made RGB when it has that size. -> [3, size, size]"""
    return normalize(to_pixels(centre_view(image, size).convert("RGB")))


class Read(NamedTuple):
    """What came of an image file: pixels as a model sees them [3, size, size], or the sentence why there are none."""

    pixels: Tensor | None
    error: str | None = None
    truncated: bool = False  # only a part of the picture was there


class Pictures(Dataset[Read]):
    """Images at a model's size; options as in `open_image`.

    Without `as_rgb` they are resized first and become RGB then, as the official CLIPScore does.
    """

    def __init__(self, paths: Sequence[Path], size: int | Form, **options: bool) -> None:
        self.paths, self.size, self.options = list(paths), size, options

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Read:
        try:
            image = open_image(self.paths[index], **self.options)
        except UnreadableImage as error:  # as a value: raised in a reader process it would come with its traceback
            return Read(None, str(error))
        return Read(model_input(image, self.size), None, "truncated" in image.info)


def stack(found: Sequence[Read], size: int) -> tuple[Tensor, dict[int, str], int]:
    """Images [B, 3, size, size], blank where there is none; why there is none, by place; how many are truncated."""
    blank = torch.zeros(3, size, size)
    images = torch.stack([blank if read.pixels is None else read.pixels for read in found])
    faults = {place: read.error for place, read in enumerate(found) if read.error is not None}
    return images, faults, sum(read.truncated for read in found)
