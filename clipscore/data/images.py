"""Image files as a model sees them, resized, cropped, normalised; and through encoders, batch by batch."""

import functools
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize
from tqdm import tqdm

from clipscore.clip_model import CLIP_MEAN, CLIP_STD, ClipModel, Form
from clipscore.data.open_image import UnreadableImage, open_image
from clipscore.data.reading import read_in_background
from clipscore.models.backends import open_clip

LOG_INTERVAL_S = 30.0  # between two lines about the progress, where there is no terminal
_MAX_ASPECT = 64  # a longer strip is cut to this before it is resized, or the resized strip fills memory

log = logging.getLogger(__name__)

Encoder = Callable[[ClipModel, Tensor], Tensor]  # a model and images at the pictures' size [B, 3, H, W] -> [B, ...]


def centre_view(image: Image.Image, size: int | Form) -> Image.Image:
    """CLIP's preprocessing: bicubic resize of the short side to `size` pixels, then a centre crop; or a model's own."""
    if isinstance(size, Form):
        if size != (form := Form(size.size)):
            how = {"resize_mode": size.resize_mode, "interpolation": size.interpolation}
            steps = open_clip.image_transform(size.size, False, **how)
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


@torch.no_grad()
def encode_pictures(
    models: Sequence[ClipModel],
    pictures: Pictures,
    encode: Encoder,
    batch_size: int,
    num_workers: int,
    stop: str | None = None,
    advance: Callable[[int], None] = lambda number: None,
) -> tuple[list[Tensor], dict[int, str], int]:
    """Features of all pictures by M models, on their devices; other processes read the files. -> M x [I, ...]

    Also why pictures cannot be read, whose features are 0, by their number; and how many are truncated. `advance` is
    told how many are done. UnreadableImage: one cannot be read, and `stop`, which follows its sentence, is given.
    """
    collate = functools.partial(stack, size=pictures.size if isinstance(pictures.size, int) else pictures.size.size)
    parts: list[list[Tensor]] = [[] for _ in models]
    faults: dict[int, str] = {}
    num_truncated = 0
    device = models[0].device.type
    batches = read_in_background(pictures, len(pictures), num_workers, collate, device, batch_size=batch_size)
    for number, (batch, of_batch, truncated) in enumerate(batches):
        faults |= {number * batch_size + place: fault for place, fault in of_batch.items()}
        num_truncated += truncated
        if faults and stop is not None:
            raise UnreadableImage(next(iter(faults.values())) + stop)
        for model, encoded in zip(models, parts, strict=True):
            encoded.append(encode(model, batch.to(model.device, model.dtype, non_blocking=True)))
            encoded[-1][list(of_batch)] = 0
        advance(len(batch))
    return [torch.cat(encoded) for encoded in parts], faults, num_truncated


@contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, elsewhere now and then a line in the log; yields what counts so many more."""
    hidden, shown = not sys.stderr.isatty(), time.monotonic()
    with tqdm(desc=title, total=total, initial=done, dynamic_ncols=True, disable=hidden) as bar:

        def advance(number: int) -> None:
            nonlocal done, shown
            done += number
            bar.update(number)
            if hidden and time.monotonic() - shown > LOG_INTERVAL_S:
                shown = time.monotonic()
                log.info("%s: %d of %d", title, done, total)

        yield advance
