"""An image file, opened as RGB whatever is in it; and files that a command line names. Without torch, which is slow."""

import contextlib
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps

from clipscore.data.checks import START_BYTES, describe_stand_in

_FULL_SCALES = {  # brightest value of single-channel images with more than 8 bits, by PIL mode
    "I;16": [65535.0], "I;16L": [65535.0], "I;16B": [65535.0], "I;16N": [65535.0],
    "I": [65535.0],  # 16-bit PNG files, before Pillow 11
    "F": [1.0, 255.0, 65535.0],
}  # fmt: skip


class UnreadableImage(ValueError):
    """An image file that cannot be decoded. The message names the file and the reason."""


def open_image(path: Path, as_rgb: bool = True, strict: bool = False, upright: bool = False) -> Image.Image:
    """Open an image file as RGB, as torchvision's default loader does: transparency is dropped, EXIF is not applied.

    Images of 16 or 32 bits per pixel are scaled to 8 bits, not clipped at 255; others keep their mode unless `as_rgb`.
    One that is cut off is read as far as it goes, as in the official code, with `truncated` in its `info`, or refused
    if `strict`. `upright` turns it as its EXIF says. UnreadableImage: it is not there, empty, damaged, or no image.
    """
    path = Path(path)
    if not path.is_file():
        raise UnreadableImage(f"{path}: {'not a file' if path.exists() else 'no such file'}; restore the image")
    if path.stat().st_size == 0:
        raise UnreadableImage(f"{path}: the file is empty (0 bytes); download the image again")
    try:
        with contextlib.nullcontext() if strict else contextlib.suppress(OSError):
            return _decode(path, as_rgb, upright)
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


def open_picture(path: str | Path, option: str) -> Image.Image:
    """The user's picture as RGB, upright; FileNotFoundError when there is none, and see `open_image`."""
    if not Path(path).is_file():
        kind = "this is a folder" if Path(path).is_dir() else "there is no such file"
        raise FileNotFoundError(f"{option} {path}: {kind}; give the path of a picture")
    return open_image(Path(path), upright=True)


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
