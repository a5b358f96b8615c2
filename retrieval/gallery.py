"""Features of all images and captions of a data set, made once per model and kept on disk in blocks.

Source: official retrieval/custom_models.py, which encodes the gallery in front of every run.
"""

import contextlib
import hashlib
import json
import logging
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import PIL
import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clipscore.clip_model import ClipModel, Form
from clipscore.data.caption_sets import CaptionedImage
from clipscore.data.images import Pictures, encode_pictures, progress
from clipscore.data.open_image import UnreadableImage
from clipscore.models.backends import open_clip
from clipscore.reward import resize_images
from clipscore.text_encoder import encode_texts

IMAGE_BATCH = 32
IMAGE_BLOCK, TEXT_BLOCK = 1024, 4096  # items of a cache file: what a kill can cost
# Of the code between files and features: clipscore's images, open_image, clip_model, lean_blocks, shared_prefix,
# text_encoder, load and resize_images. Raise it when one of them makes other numbers; all is then computed again.
FEATURE_VERSION = "1"

log = logging.getLogger(__name__)


class FeatureCache:
    """Feature files in a folder, or none at all without one; each is named by a hash of all that its numbers depend on.

    A file also holds what it was made from, which is compared when it is read. It is whole or not there.
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
        path = self._path(origin)  # several runs may write the same features
        draft = path.with_name(f"{path.name}.{platform.node()}.{os.getpid()}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file({"features": features.cpu().contiguous()}, draft, metadata=origin)
            with open(draft, "rb") as file:
                os.fsync(file.fileno())
            os.replace(draft, path)
        except (OSError, SafetensorError) as error:
            log.warning("%s cannot be written (%s); the run goes on without", path, error)
        finally:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)

    def _path(self, origin: dict[str, str]) -> Path:
        assert self.folder is not None
        key = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()
        name = Path(origin["model"]).stem.replace("/", "-")
        return self.folder / f"{name}_{origin['kind']}_{key[:32]}.safetensors"


def image_features(
    models: Sequence[ClipModel],
    images: Sequence[CaptionedImage],
    form: Form,
    cache: FeatureCache,
    num_workers: int,
    unreadable: dict[int, str] | None = None,
    **options: bool,
) -> list[Tensor]:
    """Unit-length features of I images by M models, block by block: what a kill leaves is used again. -> M x [I, D]

    `form` is the policy's; another model gets its pictures resized from there, as a reward does, or sees the files in
    its own way where it squashes them, for example. `num_workers` processes read them, with `options` of `open_image`.
    Images that cannot be read go into `unreadable`, their number and why, and have the features 0.

    UnreadableImage: images cannot be read, and there is no `unreadable`; the first are named, after all were tried.
    ValueError: a model's features are not finite.
    """

    def encode(model: ClipModel, images: Tensor) -> Tensor:
        return model.encode_images(resize_images(images, model.image_size))

    parts: list[list[Tensor]] = [[] for _ in models]
    faults: dict[int, str] = {}
    num_truncated = 0
    with progress(f"{', '.join(model.name for model in models)}: images", len(images)) as advance:
        for block in _blocks(images, IMAGE_BLOCK):
            num_before = num_truncated
            stats = [(image.id, image.path.stat()) for image in block]
            files = "\n".join(f"{key}\t{stat.st_size} bytes at {stat.st_mtime_ns}" for key, stat in stats)
            forms = [form if model.form.is_seen_as(form) else model.form for model in models]
            set_options = {option: "yes" for option, is_set in options.items() if is_set} | {"pillow": PIL.__version__}
            origins = [_origin(model, "images", files) | set_options for model in models]
            for origin, of in zip(origins, forms, strict=True):
                origin["preprocessing"] = f"{of.how}; other sizes bicubic from there; {of.size} px"
            found = [cache.load(origin, len(block)) for origin in origins]
            missing = [number for number, features in enumerate(found) if features is None]
            for of in dict.fromkeys(forms[number] for number in missing):
                pictures = Pictures([image.path for image in block], of, **options)
                chosen = [number for number in missing if forms[number] == of]
                chosen_models = [models[number] for number in chosen]
                fresh, of_block, truncated = encode_pictures(chosen_models, pictures, encode, IMAGE_BATCH, num_workers)
                faults |= {len(parts[0]) * IMAGE_BLOCK + place: fault for place, fault in of_block.items()}
                num_truncated = max(num_truncated, num_before + truncated)
                for number, features in zip(chosen, fresh, strict=True):
                    found[number] = _finite(features, models[number], "images")
                    if not of_block and not truncated:  # what is wrong with them is said by each run
                        cache.save(origins[number], features)
            for ready, model, of_model in zip(found, models, parts, strict=True):
                assert ready is not None
                of_model.append(ready.to(model.device, model.dtype))
            advance(len(block))
    if num_truncated:
        log.warning("%d of %d images are cut off, and are read as far as they go", num_truncated, len(images))
    if faults and unreadable is None:
        first, *others = faults.values()
        more = f"; and {len(others)} more: {'; '.join(others[:3])}" if others else ""
        raise UnreadableImage(f"{first}{more}; without them it is another benchmark, so no run was started")
    if unreadable is not None:
        unreadable |= faults
    return [torch.cat(of_model) for of_model in parts]


def text_features(model: ClipModel, texts: Sequence[str], cache: FeatureCache) -> Tensor:
    """Unit-length features of all captions, as they are. T strings -> [T, D]; ValueError: they are not finite."""
    parts = []
    with progress(f"{model.name}: captions", len(texts)) as advance:
        for block in _blocks(texts, TEXT_BLOCK):
            origin = _origin(model, "captions", json.dumps(list(block)))
            features = cache.load(origin, len(block))
            if features is None:
                features = _finite(encode_texts(model, block), model, "captions")
                cache.save(origin, features)
            parts.append(features.to(model.device, model.dtype))
            advance(len(block))
    return torch.cat(parts)


def _finite(features: Tensor, model: ClipModel, kind: str) -> Tensor:
    """The features; a comparison with NaN is false, so that such a score would pass for the first rank."""
    if bad := int((~torch.isfinite(features).all(dim=1)).sum()):
        found = f"{model.name}: the features of {bad} of {len(features)} {kind} are not finite"
        raise ValueError(f"{found}; use precision=fp32, or other weights")
    return features


def _blocks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _origin(model: ClipModel, kind: str, items: str) -> dict[str, str]:
    """All that features depend on."""
    on_gpu = model.device.type == "cuda"
    return {
        "model": model.name,
        "weights": model.sha256,
        "kind": kind,
        "items": hashlib.sha256(items.encode()).hexdigest(),
        "precision": str(model.autocast_dtype or model.dtype),
        "compiled": str(model.is_compiled),
        "device": torch.cuda.get_device_name(model.device) if on_gpu else "cpu",
        "libraries": ", ".join(f"{m.__name__} {m.__version__}" for m in (torch, torchvision, open_clip)),
        "version": FEATURE_VERSION,
    }
