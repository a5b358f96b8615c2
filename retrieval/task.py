"""A retrieval run: from its config to one record per query."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from clipscore.clip_model import ClipModel, end_of_text
from clipscore.data.caption_sets import CaptionedImages, captions_fingerprint, find_captions
from clipscore.data.images import Pictures
from clipscore.models.devices import autocast_dtype, choose_device
from clipscore.models.files import check_clip
from clipscore.models.load import load_clip
from clipscore.objectives import RlcfStep, Step
from clipscore.task import StageTimes
from retrieval import metrics
from retrieval.adapt import adapt
from retrieval.build import build_objective, build_policy, build_state, check_candidates, check_tower
from retrieval.captions import clean_captions
from retrieval.config import RetrievalConfig
from retrieval.gallery import FeatureCache, image_features, text_features

log = logging.getLogger(__name__)

NUM_LISTED = 10  # gallery items of a ranking that a record holds


@dataclass(frozen=True)
class Sample:
    """One query: an image [3, H, W] or token ids [L] if the method encodes it; or why it could not be read."""

    id: str
    query: Tensor | None
    error: str | None = None


@dataclass(frozen=True)
class Pairs:
    """Images, their cleaned captions in one list, and which belongs to which."""

    data: CaptionedImages
    texts: list[str]
    owners: list[int]  # image of each caption

    @cached_property
    def captions_of(self) -> list[list[int]]:
        """Captions of each image."""
        found: list[list[int]] = [[] for _ in self.data.images]
        for caption, image in enumerate(self.owners):
            found[image].append(caption)
        return found

    @cached_property
    def caption_ids(self) -> list[str]:
        """The image's id and the caption's number, for each caption."""
        images = self.data.images
        return [f"{images[i].id}#{n}" for i, captions in enumerate(self.captions_of) for n in range(len(captions))]


@dataclass(frozen=True)
class Features:
    """One model's unit-length features of both sides."""

    queries: Tensor  # [Q, D]
    gallery: Tensor  # [G, D]

    def scores(self, number: int) -> Tensor:
        """Cosine of one query with each gallery item. -> [G]"""
        return self.gallery @ self.queries[number]


class RetrievalTask:
    """Everything the launcher needs to know about a retrieval run.

    Raises:
        ValueError, FileNotFoundError: whatever is missing or does not fit, before the first query.
    """

    progress_metric = "r1"

    def __init__(self, config: RetrievalConfig) -> None:
        self.config = config
        self.device = choose_device(config.device)
        self.precision = autocast_dtype(config.precision, self.device)
        self.pairs = _inputs(config)
        data = self.pairs.data
        self.by_image = config.direction == "image_to_text"
        self.positives = self.pairs.captions_of if self.by_image else [[owner] for owner in self.pairs.owners]
        self.ids = [image.id for image in data.images] if self.by_image else self.pairs.caption_ids
        whole = data.published
        self.published = whole and (whole.num_images if self.by_image else whole.num_captions)
        self._numbers = {key: number for number, key in enumerate(self.ids)}

        self.clip = self._load(config.policy)
        if config.method != "zero_shot":
            check_tower(self.clip, config.direction)
        rewards = [self._load(m.name) for m in config.reward.models] if config.reward else []
        members = [self._load(name) for name in config.zero_shot_models]
        self._token_ids = self.clip.tokenize(self.pairs.texts)
        self._warn_of_long_captions()
        self.source, *others = self._features([self.clip, *rewards, *members])
        self.rewards, self.members = others[: len(rewards)], others[len(rewards) :]
        for model in [*rewards, *members]:
            model.cpu()  # done: from here on their features are asked, and of a teacher its logit scale
        if config.method != "zero_shot":
            self.policy = build_policy(config, self.clip)
            self.objective = build_objective(config, rewards, [features.gallery for features in self.rewards])
            self.state = build_state(config, self.policy, scale_loss=self.precision is torch.float16)
            self.times = self._watch()

        self.sequential = config.momentum is not None
        self.fingerprint = {"data": captions_fingerprint(data), "images": files_fingerprint(data)}
        self.fingerprint["precision"] = str(self.precision or torch.float32)
        for role, models in {"policy": [self.clip], "reward": rewards, "zero_shot": members}.items():
            self.fingerprint |= {f"{role}:{model.name}": model.sha256 for model in models}
        gallery = self.pairs.texts if self.by_image else [image.id for image in data.images]
        self.about = {
            "root": str(data.root),
            "layout": data.layout,
            "faults": [str(fault) for fault in data.faults],
            "direction": config.direction,
            "gallery": gallery,
        }
        log.info(
            "%s: %d images and %d captions in %s; %s, %s on %s, %s",
            data.name, len(data.images), len(self.pairs.texts), data.root,
            config.direction, config.method, self.device, self.fingerprint["precision"].removeprefix("torch."),
        )  # fmt: skip
        ranks = metrics.feature_ranks(self.source.queries, self.source.gallery, self.positives).tolist()
        found = ", ".join(f"{value:.2f}" for value in metrics.recalls(ranks).values())
        log.info("%s by itself, on all %d queries: recall at 1, 5 and 10 is %s", self.clip.name, len(ranks), found)

    @classmethod
    def check(cls, config: RetrievalConfig) -> None:
        """Find what is missing without loading a model: device, weight files, annotation file, images, captions.

        Raises:
            ValueError, FileNotFoundError: see `check_clip`, `find_captions`, `clean_captions`, `check_candidates`.
        """
        autocast_dtype(config.precision, choose_device(config.device))
        rewards = [model.name for model in config.reward.models] if config.reward else []
        for name in [config.policy, *rewards, *config.zero_shot_models]:
            check_clip(name, config.pretrained_root)
        _inputs(config)

    def samples(self, ids: Sequence[str]) -> Iterator[Sample]:
        """These queries, in this order; images are read in the background."""
        numbers = [self._numbers[key] for key in ids]
        if self.config.method == "zero_shot":
            yield from (Sample(key, None) for key in ids)
        elif self.by_image:
            paths = [self.pairs.data.images[number].path for number in numbers]
            num_workers = min(self.config.num_workers, len(ids), os.cpu_count() or 1)
            loader = DataLoader(Pictures(paths, self.clip.image_size), batch_size=None, num_workers=num_workers)
            for key, picture in zip(ids, loader, strict=True):
                unreadable = isinstance(picture, str)
                yield Sample(key, None, picture) if unreadable else Sample(key, picture)
        else:
            yield from (Sample(key, self._token_ids[number]) for key, number in zip(ids, numbers, strict=True))

    def adapt(self, sample: Sample) -> dict[str, Any]:
        """Adapt to one query; its record.

        Raises:
            FloatingPointError: a loss is not finite; the query is named.
        """
        started = time.perf_counter()
        number = self._numbers[sample.id]
        before, steps, measured = self.source.scores(number), [], {}
        if self.config.method == "zero_shot":
            after = torch.stack([before, *(member.scores(number) for member in self.members)]).mean(dim=0)
        else:
            self.times.start()
            after, steps = self._adapt(sample, number)
            stages = {stage: round(seconds, 5) for stage, seconds in self.times.take().items()}
            measured = {"moved": _round(float(self.state.moved)), "seconds_stages": stages}
            if steps and not self.sequential:  # the same as `before`, but not up to the rounding of a batch
                before = steps[0].logits[0]
        row = record(before, after, self.positives[number], steps) | measured
        text = {} if self.by_image else {"text": self.pairs.texts[number]}
        return {"id": sample.id, **text, **row, "seconds": round(time.perf_counter() - started, 4)}

    def _adapt(self, sample: Sample, number: int) -> tuple[Tensor, list[Step]]:
        anchor = [features.queries[number : number + 1] for features in self.rewards]
        query = sample.query.to(self.device, non_blocking=True).unsqueeze(0)
        try:
            return adapt(self.policy, self.state, self.objective, query, anchor, self.source.gallery, self.config.steps)
        except FloatingPointError as error:
            raise FloatingPointError(f"query {sample.id}: {error}") from error

    def progress(self, rows: Sequence[dict[str, Any]]) -> float:
        """Recall at 1 so far, in %."""
        return self.summarize(rows)[self.progress_metric]

    def summarize(self, rows: Sequence[dict[str, Any]]) -> dict[str, float | int]:
        """See `retrieval.metrics.summarize`."""
        return metrics.summarize(rows)

    def state_dict(self) -> dict[str, Any]:
        """What the next query depends on: the momentum buffer, or nothing."""
        return self.state.state_dict() if self.sequential else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.state.load_state_dict(state)

    def _watch(self) -> StageTimes:
        watched = [
            (self.policy, "prepare", "policy"),
            (self.policy, "encode", "policy"),
            (self.objective, "observe", "reward"),
            (self.objective, "step", "reward"),
            (self.state, "step", "update"),
            (self.state, "restore", "reset"),
        ]
        return StageTimes(self.device, watched)

    def _load(self, name: str) -> ClipModel:
        clip = load_clip(name, self.config.pretrained_root, self.device, self.precision)
        return clip.compile_visual() if self.config.compile else clip

    def _features(self, models: Sequence[ClipModel]) -> list[Features]:
        """Both sides by each model, from the cache or made now."""
        config, images = self.config, self.pairs.data.images
        cache = FeatureCache(Path(config.output_root) / "gallery" if config.cache else None)
        pictures = image_features(models, images, self.clip.image_size, cache, config.num_workers)
        found = []
        for model, of_images in zip(models, pictures, strict=True):
            of_texts = text_features(model, self.pairs.texts, cache)
            queries, gallery = (of_images, of_texts) if self.by_image else (of_texts, of_images)
            found.append(Features(queries, gallery))
        return found

    def _warn_of_long_captions(self) -> None:
        length = self._token_ids.shape[1]
        num_long = int((end_of_text(self._token_ids) == length - 1).sum())
        if num_long:
            log.warning("%d captions fill all %d tokens; what is beyond is cut off", num_long, length)


def _inputs(config: RetrievalConfig) -> Pairs:
    data = find_captions(config.dataset, Path(config.data_root), config.dataset_files, partial=config.partial)
    names = [image.id for image in data.images]
    cleaned = clean_captions([image.captions for image in data.images], names)
    owners = [number for number, texts in enumerate(cleaned) for _ in texts]
    pairs = Pairs(data, [text for texts in cleaned for text in texts], owners)
    check_candidates(config, len(pairs.texts) if config.direction == "image_to_text" else len(data.images))
    return pairs


def files_fingerprint(data: CaptionedImages) -> str:
    """sha256 over ids and file sizes: a copy of the data has the same, another picture most likely not."""
    lines = [f"{image.id}\t{image.path.stat().st_size}" for image in data.images]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def record(before: Tensor, after: Tensor, positives: Sequence[int], steps: Sequence[Step]) -> dict[str, Any]:
    """The JSON-able part of an episode: ranks from 1, and gallery indices, best first.

    Args:
        before: scores of the gallery by the policy as it was before any adaptation, momentum's included. [G]
        after: scores after adaptation. [G]
        positives: gallery indices of the right answers.
        steps: the updates.
    """
    scores = torch.stack([before, after])  # [2, G]
    rank_before, rank = metrics.best_ranks(scores, [positives, positives]).tolist()
    top_before, top = metrics.top_items(scores, NUM_LISTED)
    row = {"rank_before": rank_before, "rank": rank, "top10_before": top_before, "top10": top}
    row["loss"] = [_round(float(step.loss.detach())) for step in steps]
    if steps:
        logits = torch.cat([step.logits for step in steps])  # S x [1, G] -> [S, G]
        row["step_rank"] = metrics.best_ranks(logits, [positives] * len(steps)).tolist()
    scored = [step for step in steps if isinstance(step, RlcfStep)]
    if scored:
        row["candidates"] = [step.candidates[0].tolist() for step in scored]
        row["rewards"] = [[_round(value) for value in step.rewards[0].tolist()] for step in scored]
    return row


def _round(value: float) -> float:
    return float(f"{value:.6g}")
