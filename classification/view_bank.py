"""A bank of view features on disk: a data set runs again, with other steps or another method, without an image opened.

Kept are the features of an image's views by the policy, all N, and by the reward models, those that were asked for,
before they are scaled to unit length and in the type that they were computed in.
"""

import hashlib
import json
import logging
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import PIL
import torch
import torchvision
from torch import Tensor

from clipscore.clip_model import ClipModel
from clipscore.models.backends import open_clip

# Of the code between image files and features: views, augmix and clipscore's images, open_image, clip_model,
# lean_blocks and load. Raise it when one of them makes other numbers.
VIEW_VERSION = "1"
BUSY_S = 60.0  # another process may be writing

log = logging.getLogger(__name__)


class ViewBank:
    """Features of views by several models, an SQLite file for each; several processes may write at the same time.

    A file is named by a hash of all that its numbers depend on, so nothing in it is ever out of date.

    Args:
        models: policy, then reward models.
        views: what the views depend on besides the image: data set, recipe, seed and so on.
        num_views: N.
        num_images: of the run; OSError: no room for the policy's features of them.
    """

    def __init__(
        self, folder: Path, models: Sequence[ClipModel], views: Mapping[str, Any], num_views: int, num_images: int
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.num_views = num_views
        self._files = {model: _Features(folder, model, views) for model in models}
        self._check_room(folder, models[0], num_images)

    def complete(self) -> set[str]:
        """Keys of the images of which all views by the first model are there."""
        return next(iter(self._files.values())).images_with(self.num_views)

    def projected(
        self, key: str, model: ClipModel, rows: list[int] | None, compute: Callable[[list[int]], Tensor]
    ) -> Tensor:
        """Features of some views of an image, None: of all; `compute` gives those that are not there, which are kept
        then. [R, D]

        `key` is the image's, another one when the image changes; `model` is one of the bank's.
        """
        file, rows = self._files[model], list(range(self.num_views)) if rows is None else rows
        found = file.read(key)
        missing = [row for row in rows if row not in found]
        if missing:
            fresh = compute(missing)
            file.write(key, missing, fresh)
            if len(missing) == len(rows):
                return fresh
            found |= dict(zip(missing, fresh.cpu(), strict=True))
        return torch.stack([found[row] for row in rows]).to(model.device, non_blocking=True)

    def _check_room(self, folder: Path, policy: ClipModel, num_images: int) -> None:
        num_bytes = 2 if policy.autocast_dtype else 4
        lacking = max(num_images - len(self.complete()), 0)
        need = lacking * self.num_views * policy.feature_width * num_bytes
        free = shutil.disk_usage(folder).free
        sizes = f"{lacking} images x {self.num_views} views x {policy.feature_width} x {num_bytes} bytes"
        if need > free:
            raise OSError(
                f"view_cache needs {need / 1e9:.1f} GB in {folder} ({sizes}), of which {free / 1e9:.1f} GB are free; "
                "make room, give another output_root, or set view_cache=false"
            )
        log.info("view features in %s: %s are to come, %.2f GB", folder, sizes, need / 1e9)


class _Features:
    """One model's: a row for each view of each image."""

    def __init__(self, folder: Path, model: ClipModel, views: Mapping[str, Any]) -> None:
        versions = {module.__name__: module.__version__ for module in (torch, torchvision, PIL, open_clip)}
        origin = {
            **views, **versions, "model": model.sha256, "type": str(model.autocast_dtype), "version": VIEW_VERSION,
            "device": model.device.type, "compiled": model.is_compiled, "size": model.image_size,
        }  # fmt: skip
        self.origin = json.dumps(origin, sort_keys=True)
        name = f"{Path(model.name).stem}_{hashlib.sha256(self.origin.encode()).hexdigest()[:32]}.sqlite"
        self.path, self.half = folder / name, model.autocast_dtype or torch.float32
        self.width, self.dtype = model.feature_width, model.dtype
        try:
            with self._open() as database:
                database.execute("create table if not exists about (origin text primary key)")
                database.execute("insert or ignore into about values (?)", [self.origin])
                database.execute(
                    "create table if not exists features (image text, view int, data blob, primary key (image, view))"
                )
                known = database.execute("select origin from about").fetchall()
        except sqlite3.DatabaseError as error:
            raise OSError(f"{self.path} cannot be read ({error}); delete it, its features are made again") from error
        if known != [(self.origin,)]:
            raise ValueError(f"{self.path} holds features of other weights or views; delete it")

    def images_with(self, num_views: int) -> set[str]:
        """Images with so many views."""
        query = "select image from features group by image having count(*) = ?"
        with self._open() as database:
            return {image for (image,) in database.execute(query, [num_views])}

    def read(self, image: str) -> dict[int, Tensor]:
        """What is there of an image: number of the view -> [D], on the CPU."""
        with self._open() as database:
            rows = database.execute("select view, data from features where image = ?", [image]).fetchall()
        return {view: self._tensor(data) for view, data in rows}

    def write(self, image: str, views: Sequence[int], features: Tensor) -> None:
        """Keep [R, D] for R views. A full disk costs the bank, not the run."""
        features = features.detach().cpu()
        short = features.to(self.half)
        kept = short if torch.equal(short.to(features.dtype), features) else features.float()
        data = [(image, view, row.view(torch.uint8).numpy().tobytes()) for view, row in zip(views, kept, strict=True)]
        try:
            with self._open() as database:
                database.executemany("insert or ignore into features values (?, ?, ?)", data)
        except sqlite3.OperationalError as error:
            log.warning("%s cannot be written (%s); the run goes on without", self.path, error)

    def _tensor(self, data: bytes) -> Tensor:
        kind = self.half if len(data) == self.width * self.half.itemsize else torch.float32
        return torch.frombuffer(bytearray(data), dtype=kind).to(self.dtype)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A transaction; a killed process leaves a whole file. Only a crash of the machine may cost it."""
        with closing(sqlite3.connect(self.path, timeout=BUSY_S)) as database:
            database.execute("pragma synchronous = off")
            with database:
                yield database
