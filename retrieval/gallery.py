"""Features of all images and captions of a data set, made once per model and kept on disk.

Source: official retrieval/custom_models.py, which encodes the gallery in front of every run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import PIL
import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from clipscore.caption_files import CaptionedImage
from clipscore.clip_model import ClipModel
from clipscore.images import UnreadableImage, centre_view, normalize, open_image, to_pixels
from clipscore.reward import resize_images
from clipscore.text_encoder import encode_texts

IMAGE_BATCH = 64
TEXT_BATCH = 1024
PREPROCESSING = "short side bicubic, centre crop, CLIP mean and deviation; other sizes bicubic from there"

log = logging.getLogger(__name__)


class FeatureCache:
    """Feature files, each named by a hash of all that its numbers depend on.

    A file also holds what it was made from, which is compared when it is read. It is written under another name and
    renamed, so it is whole or not there.

    Args:
        folder: where the files are; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def load(self, origin: dict[str, str], num_rows: int) -> Tensor | None:
        """The features of this origin, [num_rows, D]; None when they are not there."""
        if self.folder is None or not (path := self._path(origin)).is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                features, recorded = file.get_tensor("features"), file.metadata()
        except (SafetensorError, OSError) as error:
            log.warning("%s is damaged (%s); its features are computed again", path, error)
            return None
        if recorded != origin or features.ndim != 2 or len(features) != num_rows:
            log.warning("%s was made from other weights, data or settings; its features are computed again", path)
            return None
        return features

    def save(self, origin: dict[str, str], features: Tensor) -> None:
        """Keep features [N, D]. A full disk costs the cache, not the run."""
        if self.folder is None:
            return
        path = self._path(origin)
        draft = path.with_name(f"{path.name}.{os.getpid()}.part")  # several runs may write the same features
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file({"features": features.cpu().contiguous()}, draft, metadata=origin)
            os.replace(draft, path)
        except (OSError, SafetensorError) as error:
            draft.unlink(missing_ok=True)
            log.warning("%s cannot be written (%s); the run goes on without", path, error)

    def _path(self, origin: dict[str, str]) -> Path:
        assert self.folder is not None
        key = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()
        name = Path(origin["model"]).stem.replace("/", "-")
        return self.folder / f"{name}_{origin['kind']}_{key[:32]}.safetensors"


def image_features(
    models: Sequence[ClipModel], images: Sequence[CaptionedImage], size: int, cache: FeatureCache, num_workers: int
) -> list[Tensor]:
    """Unit-length features of all images by each model.

    Args:
        models: M CLIPs. One whose input size is not `size` gets the pictures resized from there, as a reward does.
        images: the images.
        size: side of the pictures, pixels: the policy's input size.
        cache: where features are looked for and kept.
        num_workers: processes that read images.

    Returns:
        M x [I, D], on the models' device.

    Raises:
        UnreadableImage: an image cannot be read.
    """
    files = "\n".join(f"{image.id}\t{_stamp(image.path)}" for image in images)
    origins = [
        _origin(model, "images", files) | {"preprocessing": f"{PREPROCESSING}; {size} px", "pillow": PIL.__version__}
        for model in models
    ]
    features = [cache.load(origin, len(images)) for origin in origins]
    missing = [index for index, found in enumerate(features) if found is None]
    if missing:
        fresh = _encode_images([models[index] for index in missing], images, size, num_workers)
        for index, encoded in zip(missing, fresh, strict=True):
            features[index] = encoded
            cache.save(origins[index], encoded)
    return [found.to(model.device, model.dtype) for found, model in zip(features, models, strict=True)]


def text_features(model: ClipModel, texts: Sequence[str], cache: FeatureCache) -> Tensor:
    """Unit-length features of all captions, as they are. T strings -> [T, D]"""
    origin = _origin(model, "captions", json.dumps(list(texts)))
    features = cache.load(origin, len(texts))
    if features is None:
        with _progress(f"{model.name}: captions", len(texts)) as advance:
            parts = []
            for start in range(0, len(texts), TEXT_BATCH):
                batch = texts[start : start + TEXT_BATCH]
                parts.append(encode_texts(model, batch))
                advance(len(batch))
        features = torch.cat(parts)
        cache.save(origin, features)
    return features.to(model.device, model.dtype)


@torch.no_grad()
def _encode_images(
    models: Sequence[ClipModel], images: Sequence[CaptionedImage], size: int, num_workers: int
) -> list[Tensor]:
    device = models[0].device
    pictures = Pictures([image.path for image in images], size)
    loader = DataLoader(pictures, IMAGE_BATCH, num_workers=min(num_workers, len(images)), collate_fn=_stack)
    parts: list[list[Tensor]] = [[] for _ in models]
    title = f"{', '.join(model.name for model in models)}: images"
    with _progress(title, len(images)) as advance:
        for batch in loader:
            if isinstance(batch, str):
                raise UnreadableImage(batch)
            batch = batch.to(device, models[0].dtype, non_blocking=True)
            for model, encoded in zip(models, parts, strict=True):
                encoded.append(model.encode_images(resize_images(batch, model.image_size)))
            advance(len(batch))
    return [torch.cat(encoded) for encoded in parts]


class Pictures(Dataset["Tensor | str"]):
    """Images at the policy's size [3, size, size]; a sentence in place of one that cannot be read."""

    def __init__(self, paths: Sequence[Path], size: int) -> None:
        self.paths, self.size = list(paths), size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor | str:
        try:
            return normalize(to_pixels(centre_view(open_image(self.paths[index]), self.size)))
        except UnreadableImage as error:  # as a value: raised in a reader process it would come with its traceback
            return str(error)


def _stack(pictures: list[Tensor | str]) -> Tensor | str:
    unreadable = [picture for picture in pictures if isinstance(picture, str)]
    return unreadable[0] if unreadable else torch.stack(pictures)


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[int], object]]:
    log.info("%s: encoding %d", title, total)
    with tqdm(desc=title, total=total, dynamic_ncols=True, disable=not sys.stderr.isatty()) as bar:
        yield bar.update


def _origin(model: ClipModel, kind: str, items: str) -> dict[str, str]:
    """All that features depend on."""
    on_gpu = model.device.type == "cuda"
    return {
        "model": model.name,
        "weights": model.sha256,
        "kind": kind,
        "items": hashlib.sha256(items.encode()).hexdigest(),
        "precision": str(model.autocast_dtype or model.dtype),
        "device": torch.cuda.get_device_name(model.device) if on_gpu else "cpu",
        "libraries": f"torch {torch.__version__}, torchvision {torchvision.__version__}",
    }


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} bytes at {status.st_mtime_ns}"
