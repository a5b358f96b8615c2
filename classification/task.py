"""A classification run: from its config to one record per image."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from classification import metrics
from classification.adapt import Episode, adapt, entropies, source_logits
from classification.build import build_objective, build_policy, build_state, check_candidates, free_texts
from classification.config import ClassificationConfig, ViewsConfig
from classification.data.find import LabelledImage, LabelledImages, find_dataset
from classification.policy import EnsemblePolicy, PromptPolicy
from classification.prompt_learner import load_prompt_start
from classification.views import make_views, view_seed
from clipscore.clip_model import ClipModel
from clipscore.data.images import UnreadableImage, open_image
from clipscore.models.devices import autocast_dtype, choose_device
from clipscore.models.files import check_clip
from clipscore.models.load import load_clip
from clipscore.objectives import RlcfStep
from clipscore.task import StageTimes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """One test image: its label and its views [N, 3, H, W]; or the sentence why it could not be read."""

    id: str
    label: int
    views: Tensor | None
    error: str | None = None
    seconds_views: float = 0.0  # spent in drawing them, in the background


class ClassificationTask:
    """Everything the launcher needs to know about a classification run.

    Raises:
        ValueError, FileNotFoundError: whatever is missing or does not fit, before the first image is read.
    """

    progress_metric = "accuracy"

    def __init__(self, config: ClassificationConfig) -> None:
        self.config = config
        self.device = choose_device(config.device)
        self.precision = autocast_dtype(config.precision, self.device)
        self.data, start = self._inputs(config)
        self.clip = self._load(config.policy)
        rewards = [self._load(m.name) for m in config.reward.models] if config.reward else []
        members = [self._load(name) for name in config.zero_shot_models]
        names = self.data.class_names
        policies = [build_policy(config, clip, names, start) for clip in (self.clip, *members)]
        self.policy = EnsemblePolicy(policies) if members else policies[0]
        self.objective = build_objective(config, rewards, names) if config.method != "zero_shot" else None
        free_texts(policies, rewards)
        self.state = build_state(config, self.policy, scale_loss=self.precision is torch.float16)
        self.times = self._watch()

        self.ids = [image.id for image in self.data.images]
        self.published = self.data.published
        self._images = {image.id: image for image in self.data.images}
        self.sequential = config.momentum is not None
        self.fingerprint = {"data": data_fingerprint(self.data), "precision": str(self.precision or torch.float32)}
        for role, model in [
            ("policy", self.clip),
            *(("reward", m) for m in rewards),
            *(("zero_shot", m) for m in members),
        ]:
            self.fingerprint[f"{role}:{model.name}"] = model.sha256
        if start is not None:
            tensors = [start[0], *(start[1][key] for key in sorted(start[1]))]
            digest = hashlib.sha256(b"".join(tensor.float().numpy().tobytes() for tensor in tensors))
            self.fingerprint["prompt_start"] = digest.hexdigest()
        self.about = {
            "root": str(self.data.root),
            "layout": self.data.layout,
            "faults": [str(fault) for fault in self.data.faults],
            "class_names": list(names),
        }
        log.info(
            "%s: %d images in %s, %d classes (%s, ...); %s on %s, %s",
            self.data.name, len(self.ids), self.data.root, len(names), first_classes(self.data),
            config.method, self.device, self.fingerprint["precision"].removeprefix("torch."),
        )  # fmt: skip

    @classmethod
    def check(cls, config: ClassificationConfig) -> None:
        """Find what is missing without loading a model: device, weight files, images, class names, prompt file.

        Raises:
            ValueError, FileNotFoundError: see `check_clip`, `find_dataset`, `load_prompt_start`.
        """
        autocast_dtype(config.precision, choose_device(config.device))
        rewards = [model.name for model in config.reward.models] if config.reward else []
        for name in [config.policy, *rewards, *config.zero_shot_models]:
            check_clip(name, config.pretrained_root)
        cls._inputs(config)

    @staticmethod
    def _inputs(config: ClassificationConfig) -> tuple[LabelledImages, tuple[Tensor, dict[str, Tensor]] | None]:
        data = find_dataset(config.dataset, Path(config.data_root), config.dataset_files, config.partial)
        check_candidates(config, len(data.class_names))
        roots = [Path(config.pretrained_root)]
        return data, load_prompt_start(config.prompt_start, roots) if config.prompt_start else None

    def samples(self, ids: Sequence[str]) -> Iterator[Sample]:
        """These samples, in this order, read and augmented in the background."""
        views = ViewsConfig(num_views=1) if self.objective is None else self.config.views
        dataset = _Views([self._images[i] for i in ids], self.data.name, self.clip.image_size, views, self.config.seed)
        num_workers = min(self.config.num_workers, len(ids), os.cpu_count() or 1)
        yield from DataLoader(dataset, batch_size=None, num_workers=num_workers)

    def adapt(self, sample: Sample) -> dict[str, Any]:
        """Adapt to one image; its record.

        Raises:
            FloatingPointError: a loss is not finite; the sample is named.
        """
        started = time.perf_counter()
        self.times.start()
        views = sample.views.to(self.device, non_blocking=True)
        config = self.config
        if self.objective is None:
            logits = source_logits(self.policy, self.state, views)
            row = answers(logits, logits, sample.label)
        else:
            try:
                episode = adapt(
                    self.policy,
                    self.state,
                    self.objective,
                    views,
                    config.views.num_selected,
                    config.steps,
                    config.entropy_weight,
                )
            except FloatingPointError as error:
                raise FloatingPointError(f"sample {sample.id}: {error}") from error
            row = record(episode, sample.label) | {"moved": _rounded(self.state.moved)}
        stages = {"views": sample.seconds_views, **self.times.take()}
        row["seconds_stages"] = {stage: round(seconds, 4) for stage, seconds in stages.items()}
        return {"id": sample.id, "label": sample.label, **row, "seconds": round(time.perf_counter() - started, 4)}

    def progress(self, rows: Sequence[dict[str, Any]]) -> float:
        """Top-1 accuracy so far, in %."""
        return self.summarize(rows)[self.progress_metric]

    def summarize(self, rows: Sequence[dict[str, Any]]) -> dict[str, float | int]:
        """See `classification.metrics.summarize`."""
        return metrics.summarize(rows)

    def state_dict(self) -> dict[str, Any]:
        """What the next sample depends on: the momentum buffer, or nothing."""
        return self.state.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.state.load_state_dict(state)

    def _watch(self) -> StageTimes:
        watched = [
            (self.policy, "prepare", "policy"),
            (self.policy, "logits", "policy"),
            (self.objective, "encode_images", "reward"),
            (self.objective, "observe", "reward"),
            (self.objective, "step", "reward"),
            (self.state, "step", "update"),
            (self.state, "restore", "reset"),
        ]
        if isinstance(self.policy, PromptPolicy):
            watched.append((self.policy, "class_features", "text"))
        return StageTimes(self.device, watched)

    def _load(self, name: str) -> ClipModel:
        clip = load_clip(name, self.config.pretrained_root, self.device, self.precision)
        return clip.compile_visual() if self.config.compile else clip


class _Views(Dataset[Sample]):
    """Reads images and draws their views; each sample's views depend on the seed and the sample only."""

    def __init__(self, images: list[LabelledImage], dataset: str, size: int, views: ViewsConfig, seed: int) -> None:
        self.images, self.dataset, self.size, self.views, self.seed = images, dataset, size, views, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        started = time.perf_counter()
        image, options = self.images[index], self.views
        try:
            picture = open_image(image.path)
        except UnreadableImage as error:
            return Sample(image.id, image.label, None, str(error))
        seed = view_seed(self.seed, self.dataset, image.id)
        scale = tuple(options.crop_scale) if options.crop_scale else None
        views = make_views(picture, options.num_views, self.size, seed, options.recipe, scale, options.backend)
        return Sample(image.id, image.label, views, seconds_views=time.perf_counter() - started)


def record(episode: Episode, label: int) -> dict[str, Any]:
    """The JSON-able part of an episode."""
    row: dict[str, Any] = {
        **answers(episode.before, episode.after, label),
        "selected": episode.selected.tolist(),
        "entropy": [_round(value) for value in entropies(episode.view_logits[episode.selected]).tolist()],
        "step_top1": [int(step.logits.softmax(1).mean(0).argmax()) for step in episode.steps],
        "loss": [_rounded(step.loss) for step in episode.steps],
    }
    scored = [step for step in episode.steps if isinstance(step, RlcfStep)]
    if scored:
        row["candidates"] = [step.candidates.tolist() for step in scored]
        row["rewards"] = [[[_round(r) for r in view] for view in step.rewards.tolist()] for step in scored]
    return row


def answers(before: Tensor, after: Tensor, label: int) -> dict[str, Any]:
    """The first classes before and after adaptation, how sure the model is of them, and its Brier scores. 2 x [C]"""
    row: dict[str, Any] = {"top5_before": top_classes(before), "top5": top_classes(after)}
    for suffix, logits in {"_before": before, "": after}.items():
        probabilities = logits.double().softmax(0)
        row[f"confidence{suffix}"] = _rounded(probabilities.max())
        row[f"brier{suffix}"] = _rounded(probabilities.square().sum() - 2 * probabilities[label] + 1)
    return row


def top_classes(logits: Tensor) -> list[int]:
    """The five most likely classes, best first; fewer when there are fewer. [C]"""
    return logits.topk(min(5, len(logits))).indices.tolist()


def first_classes(data: LabelledImages, num: int = 3) -> str:
    """The first classes with a picture of each, so that a wrong order of class names is seen."""
    pictures = {image.label: image.id for image in reversed(data.images)}
    return ", ".join(f"{pictures[label]}: {data.class_names[label]}" for label in sorted(pictures)[:num])


def data_fingerprint(data: LabelledImages) -> str:
    """sha256 over class names, image ids and labels: changes when the data set does."""
    lines = [*data.class_names, *(f"{image.id}\t{image.label}" for image in data.images)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _rounded(value: Tensor) -> float:
    return _round(float(value.detach()))


def _round(value: float) -> float:
    return float(f"{value:.6g}")
