"""CLIP features of images and of their captions on disk: our own folders, and the released pickles.

A folder holds features.json, which says of what the features are and how they were made, and shards of rows:
images-00000.safetensors, texts-00000.safetensors and so on, each whole or not there. Features are not normalised.

Source: official caption/extractor_pickle.py writes the pickles.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from clipscore.data.checks import folder_fault
from clipscore.models.pickles import load_pickle

Kind = Literal["images", "texts"]

INDEX = "features.json"
PICKLES = (".pkl", ".pickle")
PICKLE_KEYS = ("clip_text_embedding", "clip_image_embedding", "captions", "image_ids", "text_index", "image_index")


@dataclass(frozen=True)
class FeatureIndex:
    """What features.json says."""

    dataset: str
    split: str
    policy: str  # the CLIP, as the user called it
    weights: str  # sha256 of its weight file
    precision: str  # in which the features were computed
    preprocessing: str  # from image file to model input
    shard_rows: int  # of every shard but the last
    image_ids: list[int | str]  # of all images, in order
    captions: list[str]  # of all images, in order
    image_index: list[int]  # for each caption the row of its image

    def count(self, kind: Kind) -> int:
        """Number of rows of a kind."""
        return len(self.image_ids) if kind == "images" else len(self.captions)

    def starts(self, kind: Kind) -> range:
        """First row of each shard."""
        return range(0, self.count(kind), self.shard_rows)

    @property
    def digest(self) -> str:
        """sha256 of all of this; every shard carries it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class CaptionFeatures:
    """Features of images and captions, not normalised."""

    images: Tensor | None  # [I, D], or [I, C, D] of all tokens; None where only captions were encoded
    texts: Tensor  # [N, D]
    captions: list[str]  # N
    image_index: Tensor  # int64 [N], for each caption the row of its image
    image_ids: list[int | str]  # I
    weights: str | None  # sha256 of the CLIP's weight file; None where the file does not say
    digest: str  # of features and captions, for the identity of what is trained on them

    @property
    def width(self) -> int:
        """D."""
        return self.texts.shape[1]


def shard_path(folder: Path, kind: Kind, start: int, index: FeatureIndex) -> Path:
    """File of the shard that begins at a row."""
    return folder / f"{kind}-{start // index.shard_rows:05d}.safetensors"


def begin_folder(folder: Path, index: FeatureIndex) -> None:
    """Write features.json, or find the same there; ValueError: it is of other settings, or shards lack it."""
    file = folder / INDEX
    if fault := folder_fault(folder):
        raise OSError(f"{fault}; give another --out")
    if file.is_file():
        there = read_index(folder)
        keys = [key for key, value in asdict(index).items() if value != asdict(there)[key]]
        if keys:
            raise ValueError(f"{folder} holds features with another {', '.join(keys)}; give another --out")
        return
    if folder.is_dir() and any(folder.glob("*.safetensors")):
        raise ValueError(f"{folder} holds files but no {INDEX}; give another --out")
    folder.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{INDEX}.part")
    draft.write_text(json.dumps(asdict(index), ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(draft, file)


def write_shard(
    folder: Path, kind: Kind, start: int, index: FeatureIndex, features: Tensor, left_out: Sequence[int] = ()
) -> None:
    """Write one shard [rows, D], whole or not at all; `left_out` are images that have no features, by their rows."""
    metadata = {"index": index.digest} | ({"left_out": json.dumps(list(left_out))} if left_out else {})
    path = shard_path(folder, kind, start, index)
    draft = path.with_suffix(".part")
    draft.write_bytes(save({"features": features.cpu().contiguous()}, metadata=metadata))
    os.replace(draft, path)


def missing_shards(folder: Path, kind: Kind, index: FeatureIndex) -> list[int]:
    """First rows of the shards that are not there."""
    return [start for start in index.starts(kind) if not shard_path(folder, kind, start, index).is_file()]


def rows_left_out(folder: Path, index: FeatureIndex) -> list[int]:
    """Images that have no features because they could not be read."""
    rows = []
    for start in index.starts("images"):
        with safe_open(shard_path(folder, "images", start, index), framework="pt") as file:
            rows += json.loads((file.metadata() or {}).get("left_out", "[]"))
    return rows


def read_index(folder: Path) -> FeatureIndex:
    """What features.json says; ValueError when it is damaged, or of another form."""
    try:
        return FeatureIndex(**json.loads((folder / INDEX).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder / INDEX} is damaged ({error}); extract the features again") from error


def load_features(place: str | Path, roots: Sequence[str | Path] = ()) -> CaptionFeatures:
    """Read a folder of ours, or an officially released pickle, as it is given or under one of the roots.

    Nothing pickled is executed. FileNotFoundError, or ValueError for no features, features of some rows only, or parts
    that do not go together.
    """
    tried = [Path(root, Path(place).expanduser()) for root in ("", *roots)]
    path = next(filter(Path.exists, tried), None)
    how = "make them with scripts/captioning/extract_coco.sh, or give the released pickle, a .pkl file"
    if path is None:
        shown = " or ".join(str(path.absolute()) for path in dict.fromkeys(tried))
        raise FileNotFoundError(f"no features at {shown}; {how}")
    if path.is_file() and path.suffix in PICKLES:
        return _check(_from_pickle(path), path)
    if (path / INDEX).is_file():
        return _check(_from_folder(path), path)
    raise ValueError(f"{path} holds no features: expected a folder with {INDEX}, or a .pkl file; {how}")


def _from_folder(folder: Path) -> CaptionFeatures:
    index = read_index(folder)
    texts = torch.cat(list(_shards(folder, "texts", index)))
    captions, image_index, ids, digest = index.captions, torch.tensor(index.image_index), index.image_ids, index.digest
    if not ids:
        return CaptionFeatures(None, texts, captions, torch.arange(len(captions)), ids, index.weights, digest)
    images = torch.cat(list(_shards(folder, "images", index)))
    if left_out := rows_left_out(folder, index):
        kept = torch.ones(len(images), dtype=torch.bool)
        kept[left_out] = False
        written = kept[image_index]  # [N]
        captions, ids = list(itertools.compress(captions, written)), list(itertools.compress(ids, kept))
        images, texts, image_index = images[kept], texts[written], (kept.cumsum(0) - 1)[image_index[written]]
        digest = hashlib.sha256(f"{digest} without {left_out}".encode()).hexdigest()
    return CaptionFeatures(images, texts, captions, image_index, ids, index.weights, digest)


def _shards(folder: Path, kind: Kind, index: FeatureIndex) -> Iterator[Tensor]:
    missing = missing_shards(folder, kind, index)
    if missing or not index.captions:
        counts = f"{folder} lacks {len(missing)} of {len(index.starts(kind))} shards of {kind}"
        raise ValueError(f"{counts}; give the command that made it once more, it goes on from there")
    for start in index.starts(kind):
        path = shard_path(folder, kind, start, index)
        try:
            with safe_open(path, framework="pt") as file:
                features, digest = file.get_tensor("features"), (file.metadata() or {}).get("index")
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}); delete it and extract again") from error
        rows = min(index.shard_rows, index.count(kind) - start)
        if digest != index.digest or features.ndim not in (2, 3) or len(features) != rows:
            raise ValueError(f"{path} does not belong to the {INDEX} beside it; delete it and extract again")
        yield features


def _from_pickle(path: Path) -> CaptionFeatures:
    stored = load_pickle(path)
    missing = [key for key in PICKLE_KEYS if key not in stored] if isinstance(stored, dict) else list(PICKLE_KEYS)
    if missing:
        raise ValueError(f"{path} is no pickle of caption features: it has no {', '.join(missing)}")
    texts, images = stored["clip_text_embedding"], stored["clip_image_embedding"]
    if not isinstance(texts, Tensor) or not (images is None or isinstance(images, Tensor)):
        raise ValueError(f"{path}: clip_text_embedding and clip_image_embedding must be tensors or arrays")
    rows = torch.as_tensor(stored["text_index"])  # of each caption
    if len(rows) and (rows.min() < 0 or rows.max() >= len(texts)):
        raise ValueError(f"{path}: text_index points to rows {int(rows.min())} to {int(rows.max())} of {len(texts)}")
    texts = texts if torch.equal(rows, torch.arange(len(texts))) else texts[rows]
    captions, ids = list(stored["captions"]), stored["image_ids"]
    ids = ids.tolist() if isinstance(ids, Tensor) else list(ids)
    digest = hashlib.sha256(json.dumps(captions).encode())
    for features in (texts, images):
        digest.update(b"" if features is None else features.float().numpy().tobytes())
    images = None if images is None else images.float()
    image_index = torch.as_tensor(stored["image_index"])
    return CaptionFeatures(images, texts.float(), captions, image_index, ids, None, digest.hexdigest())


def _check(features: CaptionFeatures, path: Path) -> CaptionFeatures:
    """Refuse parts that do not belong together."""
    images, texts, rows = features.images, features.texts, features.image_index
    shapes = f"images {None if images is None else list(images.shape)}, texts {list(texts.shape)}"
    number = len(features.captions)
    if texts.ndim != 2 or len(texts) != number or len(rows) != number:
        raise ValueError(f"{path}: {number} captions do not go with {len(rows)} entries of image_index and {shapes}")
    if not number or not any(caption.strip() for caption in features.captions):
        raise ValueError(f"{path} has no captions; extract the features of a data set with captions")
    if images is not None and (images.ndim not in (2, 3) or images.shape[-1] != texts.shape[1]):
        raise ValueError(f"{path}: features of one CLIP are of one width, got {shapes}")
    if images is not None and (int(rows.min()) < 0 or int(rows.max()) >= len(images)):
        raise ValueError(f"{path}: image_index points to rows {int(rows.min())} to {int(rows.max())} of {len(images)}")
    return features
