"""Small pictures inside the page: samples, gallery items, and the views that a sample was adapted on, drawn again."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from clipscore.data.open_image import UnreadableImage, open_image
from clipscore.data.samples import sample_seed

SIDE, VIEW_SIDE, ITEM_SIDE = 200, 72, 112  # longest sides in pixels; shown a little smaller, for dense screens
DRAWN_SIDE = 224  # at which views are drawn before they are made small
QUALITY = 80


class Pictures:
    """Data URIs, each once; a picture is named by its place in `uris`."""

    def __init__(self) -> None:
        self.uris: list[str] = []
        self._places: dict[Any, int | None] = {}

    def file(self, path: Path, side: int) -> int | None:
        """A picture file, made small; None when it cannot be read."""
        key = (str(path), side)
        if key not in self._places:
            try:
                self._places[key] = self._add(open_image(path), side)
            except UnreadableImage:
                self._places[key] = None
        return self._places[key]

    def views(self, config: dict[str, Any], root: Path, sample_id: str, numbers: Sequence[int]) -> list[int | None]:
        """Views of a sample by their numbers (0: the centre view), as its run drew them; all None without its picture.

        The sample's id starts from the folder `root`.
        """
        recipe = (str(root), sample_id, str(config["views"]), config["seed"])
        missing = [number for number in numbers if (recipe, number) not in self._places]
        try:
            drawn = draw_views(config, open_image(root / sample_id), sample_id, missing) if missing else []
        except UnreadableImage:
            return [None] * len(numbers)
        self._places |= {(recipe, n): self._add(p, VIEW_SIDE) for n, p in zip(missing, drawn, strict=True)}
        return [self._places[recipe, number] for number in numbers]

    def _add(self, picture: Image.Image, side: int) -> int:
        """A picture as a small JPEG inside an address."""
        picture = picture.copy()
        picture.thumbnail((side, side))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=QUALITY, optimize=True)
        self.uris.append("data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode())
        return len(self.uris) - 1


def draw_views(
    config: dict[str, Any], picture: Image.Image, sample_id: str, numbers: Sequence[int]
) -> list[Image.Image]:
    """The views of a picture that a run saw, by number: the same seed draws the same ones."""
    from classification.views import make_views  # and with it torch, which other pages do without
    from clipscore.clip_model import CLIP_MEAN, CLIP_STD

    options, seed = config["views"], sample_seed(config["seed"], config["dataset"], sample_id)
    scale = tuple(options["crop_scale"]) if options["crop_scale"] else None
    how = options["recipe"], scale, options.get("backend", "pil")
    views = make_views(picture, max(numbers) + 1, DRAWN_SIDE, seed, *how)[list(numbers)]  # [n, 3, H, W], normalised
    mean, std = (views.new_tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    pixels = (views * std + mean).mul(255).round().clamp(0, 255).byte()
    return [Image.fromarray(view.permute(1, 2, 0).numpy()) for view in pixels]
