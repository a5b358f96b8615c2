"""A captioning run: from its config to one record per image."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from captioning import metrics
from captioning.adapt import Episode, adapt, describe
from captioning.build import (
    build_objective,
    build_state,
    check_language_model,
    find_checkpoint,
    image_features,
    language_model_digest,
    load_captioner,
)
from captioning.config import CaptioningConfig
from clipscore.clip_model import ClipModel
from clipscore.data.caption_sets import CaptionedImage, CaptionedImages, captions_fingerprint, find_captions
from clipscore.data.images import UnreadableImage, centre_view, normalize, open_image, to_pixels
from clipscore.metrics.captions import CLIP_METRICS, check_captions, check_metrics, default_metrics
from clipscore.models.devices import autocast_dtype, choose_device
from clipscore.models.files import check_clip
from clipscore.models.load import file_sha256, load_clip
from clipscore.task import StageTimes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """One test image at the policy's size [3, H, W]; or the sentence why it could not be read."""

    id: str
    image: Tensor | None
    error: str | None = None


class CaptioningTask:
    """Everything the launcher needs to know about a captioning run.

    Raises:
        ValueError, FileNotFoundError, RuntimeError: whatever is missing or does not fit, before the first image.
    """

    def __init__(self, config: CaptioningConfig) -> None:
        self.config = config
        self.device = choose_device(config.device)
        self.precision = autocast_dtype(config.precision, self.device)
        self.data, self.metrics, checkpoint = _inputs(config)
        self.metric_clip = self._load_metric_clip()
        self.clip = self._load(config.policy)
        rewards = [self._load(m.name) for m in config.reward.models] if config.reward else []
        self.captioner = load_captioner(config, self.clip, checkpoint, self.precision)
        if config.method != "zero_shot":
            self.objective = build_objective(config, rewards)
            self.state = build_state(config, self.captioner, scale_loss=self.precision is torch.float16)
            self.times = self._watch()

        self.ids = [image.id for image in self.data.images]
        self.published = self.data.published and self.data.published.num_images
        self._images = {image.id: image for image in self.data.images}
        self.progress_metric = "reward_gain" if config.steps > 1 else "non_empty"
        self.sequential = config.momentum is not None
        self.fingerprint = {"data": captions_fingerprint(self.data), "precision": str(self.precision or torch.float32)}
        for role, models in {"policy": [self.clip], "reward": rewards}.items():
            self.fingerprint |= {f"{role}:{model.name}": model.sha256 for model in models}
        self.fingerprint |= {
            "checkpoint": file_sha256(checkpoint),
            "llm": language_model_digest(self.captioner.lm, self.captioner.tokenizer),
        }
        self.about = {
            "root": str(self.data.root),
            "layout": self.data.layout,
            "faults": [str(fault) for fault in self.data.faults],
            "checkpoint": str(checkpoint),
        }
        log.info(
            "%s: %d images in %s; %s of %s on %s, %s; metrics: %s",
            self.data.name, len(self.ids), self.data.root, config.method, checkpoint,
            self.device, self.fingerprint["precision"].removeprefix("torch."), ", ".join(self.metrics),
        )  # fmt: skip

    @classmethod
    def check(cls, config: CaptioningConfig) -> None:
        """Find what is missing without loading a model: device, weight files, data, checkpoint, language model, Java.

        Raises:
            ValueError, FileNotFoundError, RuntimeError: see `find_captions`, `check_metrics`, `check_captions`,
                `find_checkpoint`, `check_language_model`, `check_clip`.
        """
        autocast_dtype(config.precision, choose_device(config.device))
        rewards = [model.name for model in config.reward.models] if config.reward else []
        _, names, _ = _inputs(config)
        for name in [config.policy, *rewards]:
            check_clip(name, config.pretrained_root)
        if set(names) & set(CLIP_METRICS):
            with _metric_model_named(names):
                check_clip(config.metric_model, config.pretrained_root)

    def samples(self, ids: Sequence[str]) -> Iterator[Sample]:
        """These images, in this order, read in the background."""
        pictures = _Pictures([self._images[key] for key in ids], self.clip.image_size)
        num_workers = min(self.config.num_workers, len(ids), os.cpu_count() or 1)
        yield from DataLoader(pictures, batch_size=None, num_workers=num_workers)

    def adapt(self, sample: Sample) -> dict[str, Any]:
        """Adapt to one image and write its caption; its record.

        Raises:
            FloatingPointError: a loss is not finite, or the language model's scores are not; the image is named.
        """
        started = time.perf_counter()
        image = sample.image.to(self.device, non_blocking=True).unsqueeze(0)
        measured = {}
        try:
            if self.config.method != "zero_shot":
                self.times.start()
            row = record(self._images[sample.id], self._episode(sample.id, image), self.config.caption_before)
        except FloatingPointError as error:
            raise FloatingPointError(f"image {sample.id}: {error}") from error
        if self.config.method != "zero_shot":
            stages = {stage: round(seconds, 4) for stage, seconds in self.times.take().items()}
            measured = {"moved": _round(float(self.state.moved)), "seconds_stages": stages}
        return {**row, **measured, "seconds": round(time.perf_counter() - started, 4)}

    def progress(self, rows: Sequence[dict[str, Any]]) -> float:
        """The reward gained so far; without steps to compare, the share of captions that hold anything."""
        return metrics.reward_gain(rows) if self.progress_metric == "reward_gain" else metrics.non_empty(rows)

    def summarize(self, rows: Sequence[dict[str, Any]]) -> dict[str, float]:
        """See `captioning.metrics.summarize`.

        Raises:
            RuntimeError: a metric cannot be computed.
        """
        images = {row["id"]: self._images[row["id"]].path for row in rows}
        clip = self.metric_clip.to(self.device) if self.metric_clip else None
        try:
            return metrics.summarize(rows, images, self.config.metrics, clip, self.config.on_error)
        except Exception as error:  # whatever it is: hours of captions lie on the disk, and that must be said
            raise RuntimeError(
                f"the metrics failed ({type(error).__name__}: {error}), but all captions are in the run folder; the "
                "same command computes only the metrics again, and metrics=[...] chooses others"
            ) from error

    def state_dict(self) -> dict[str, Any]:
        """What the next image depends on: the momentum buffer, or nothing."""
        return self.state.state_dict() if self.sequential else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.state.load_state_dict(state)

    def _episode(self, key: str, image: Tensor) -> Episode:
        config = self.config
        features = image_features(self.clip, image, config.normalize_prefix)  # [1, D]
        if config.method == "zero_shot":
            return Episode(None, *describe(self.captioner, features, config), [])
        seed = sampling_seed(config.seed, self.data.name, key)
        return adapt(
            self.captioner, self.state, self.objective, features, image, config.steps,
            torch.Generator().manual_seed(seed), config.caption_before,
        )  # fmt: skip

    def _watch(self) -> StageTimes:
        watched = [
            (self.objective, "propose", "text"),
            (self.captioner, "prefix", "policy"),
            (self.captioner, "token_losses", "policy"),
            (self.objective, "observe", "reward"),
            (self.objective, "step", "reward"),
            (self.state, "step", "update"),
            (self.state, "restore", "reset"),
        ]
        return StageTimes(self.device, watched)

    def _load(self, name: str) -> ClipModel:
        clip = load_clip(name, self.config.pretrained_root, self.device, self.precision)
        return clip.compile_visual() if self.config.compile else clip

    def _load_metric_clip(self) -> ClipModel | None:
        """CLIPScore's model, so that it is known to be there when the captions are; kept on the CPU until then."""
        if not set(self.metrics) & set(CLIP_METRICS):
            return None
        with _metric_model_named(self.metrics):
            return load_clip(self.config.metric_model, self.config.pretrained_root)


@contextmanager
def _metric_model_named(names: Sequence[str]) -> Iterator[None]:
    """Say that a weight file is that of CLIPScore's model, and how to go without."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        others = ", ".join(name for name in names if name not in CLIP_METRICS) or "bleu"
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"metric_model: {error}; without CLIPScore: metrics=[{others}]") from error


def _inputs(config: CaptioningConfig) -> tuple[CaptionedImages, list[str], Path]:
    """The data, the metrics of the run, and the file of its mapper."""
    names = check_metrics(default_metrics(has_references=True) if config.metrics is None else config.metrics)
    root = Path(config.pretrained_root)
    checkpoint = find_checkpoint(config.checkpoint, [root, Path(config.output_root)])
    check_language_model(config.llm, root)
    data = find_captions(config.dataset, Path(config.data_root), config.dataset_files, partial=config.partial)
    references = {image.id: image.captions for image in data.images}
    check_captions(dict.fromkeys(references, ""), references, names)
    return data, names, checkpoint


class _Pictures(Dataset[Sample]):
    """Reads images."""

    def __init__(self, images: Sequence[CaptionedImage], size: int) -> None:
        self.images, self.size = list(images), size

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image = self.images[index]
        try:
            return Sample(image.id, normalize(to_pixels(centre_view(open_image(image.path), self.size))))
        except UnreadableImage as error:
            return Sample(image.id, None, str(error))


def sampling_seed(run_seed: int, dataset: str, image_id: str) -> int:
    """Seed of one image's sampled captions, in [0, 2^63): no order and no restart changes what is drawn."""
    key = json.dumps([run_seed, dataset, image_id]).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1


def record(image: CaptionedImage, episode: Episode, with_before: bool) -> dict[str, Any]:
    """The JSON-able part of an episode, with the references that metrics are computed from."""
    row: dict[str, Any] = {"id": image.id, "image_id": image.image_id}
    if with_before:
        row["caption_before"] = episode.before
    return {
        **row,
        "caption": episode.after,
        "references": list(image.captions),
        "captions": [step.captions for step in episode.steps],
        "rewards": [[_round(value) for value in step.rewards.tolist()] for step in episode.steps],
        "loss": [_round(float(step.loss.detach())) for step in episode.steps],
    }


def _round(value: float) -> float:
    return float(f"{value:.6g}")
