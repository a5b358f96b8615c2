"""Files that a command line names: a picture, or lines of text."""

from pathlib import Path

from PIL import Image

from clipscore.data.checks import read_text
from clipscore.data.open_image import open_image


def open_picture(path: str | Path, option: str) -> Image.Image:
    """The user's picture as RGB, upright; FileNotFoundError when there is none, and see `open_image`."""
    if not Path(path).is_file():
        kind = "this is a folder" if Path(path).is_dir() else "there is no such file"
        raise FileNotFoundError(f"{option} {path}: {kind}; give the path of a picture")
    return open_image(Path(path), upright=True)


def read_lines(path: str | Path, option: str) -> list[str]:
    """The lines of the user's text file; FileNotFoundError when there is none, ValueError as in `read_text`."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{option} {path}: there is no such file; give a text file")
    return read_text(Path(path)).splitlines()
