"""A retrieval run: from its config to one record per query."""

import hashlib
import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clipscore import task
from clipscore.clip_model import end_of_text
from clipscore.config.methods import guard
from clipscore.data.caption_sets import CaptionedImages, captions_fingerprint, find_captions
from clipscore.data.images import Pictures
from clipscore.data.reading import read_in_background
from clipscore.data.records import rounded, with_extra
from clipscore.data.samples import Sample
from clipscore.models.devices import to_host
from clipscore.models.group import check_models
from clipscore.objectives import RlcfStep, check_finite
from retrieval import metrics
from retrieval.build import build_method, check_candidates, check_tower
from retrieval.captions import clean_captions
from retrieval.config import RetrievalConfig
from retrieval.gallery import FeatureCache, image_features, text_features
from retrieval.method import Answer, Method, Query, rank

log = logging.getLogger(__name__)

NUM_LISTED = 10  # gallery items of a ranking that a record holds


@dataclass(frozen=True)
class Pairs:
    """Images, their cleaned captions in one list, and which belongs to which."""

    data: CaptionedImages
    texts: list[str]
    owners: list[int]  # image of each caption
    captions_of: list[list[int]]  # captions of each image


class RetrievalTask(task.Task):
    """Everything the launcher needs to know about a retrieval run; errors before the first query."""

    method: Method
    SAMPLE, STAGE_DIGITS = "query", 5
    progress_metric = "r1"

    def __init__(self, config: RetrievalConfig) -> None:
        self.config = config
        self.pairs = _inputs(config)
        self._name_queries()
        super().__init__(config)
        check_tower(config, self.clip)
        self._token_ids = self.clip.tokenizer(self.pairs.texts)  # on the CPU
        length = self._token_ids.shape[1]
        num_long = int((end_of_text(self._token_ids) == length - 1).sum())
        if num_long:
            log.warning("%d captions fill all %d tokens; what is beyond is cut off", num_long, length)
        self._encode()
        self.method = build_method(config, self.models, self.galleries)
        self.watch()
        data = self.pairs.data
        sizes = "\n".join(f"{image.id}\t{image.path.stat().st_size}" for image in data.images)  # the same of a copy
        images = hashlib.sha256(sizes.encode()).hexdigest()
        self.fingerprint |= {"data": captions_fingerprint(data), "images": images}
        gallery = self.pairs.texts if self.by_image else [image.id for image in data.images]
        self.about = self.describe_data(data, direction=config.direction, gallery=gallery)
        self._log()

    def _name_queries(self) -> None:
        pairs, whole = self.pairs, self.pairs.data.published
        self.by_image = self.config.direction == "image_to_text"
        self.positives = pairs.captions_of if self.by_image else [[owner] for owner in pairs.owners]
        self.ids = [image.id for image in pairs.data.images]
        if not self.by_image:  # the image's id and the caption's number
            counts = zip(self.ids, map(len, pairs.captions_of), strict=True)
            self.ids = [f"{key}#{number}" for key, count in counts for number in range(count)]
        self.published = whole and (whole.num_images if self.by_image else whole.num_captions)
        self._numbers = {key: number for number, key in enumerate(self.ids)}
        self.unreadable: dict[int, str] = {}  # queries, and why

    def _encode(self) -> None:
        """Unit-length features of both sides by the policy, the rewards and the members: [Q, D] and [G, D] of each."""
        config, (policy, rewards, members, *_) = self.config, self.models
        cache = FeatureCache(Path(config.output_root) / "gallery" if config.cache else None)
        models = [policy, *rewards, *members]
        unreadable = self.unreadable if self.by_image else None  # a gallery has to be whole
        images, form, strict = self.pairs.data.images, policy.form, config.strict_images
        pictures = image_features(models, images, form, cache, config.num_workers, unreadable, strict=strict)
        texts = [text_features(model, self.pairs.texts, cache) for model in models]
        self.queries, self.galleries = (pictures, texts) if self.by_image else (texts, pictures)
        for model in [*rewards, *members]:
            model.cpu()  # done: from here on their features are asked, and of a teacher its logit scale

    def _log(self) -> None:
        data, config = self.pairs.data, self.config
        log.info(
            "%s: %d images and %d captions in %s; %s, %s on %s, %s",
            data.name, len(data.images), len(self.pairs.texts), data.root,
            config.direction, config.method, self.device, self.fingerprint["precision"].removeprefix("torch."),
        )  # fmt: skip
        rows = [number for number in range(len(self.ids)) if number not in self.unreadable]
        positives = [self.positives[number] for number in rows]
        ranks = metrics.feature_ranks(self.queries[0][rows], self.galleries[0], positives).tolist()
        found = ", ".join(f"{value:.2f}" for value in metrics.recalls(ranks).values())
        log.info("%s by itself, on all %d queries: recall at 1, 5 and 10 is %s", self.clip.name, len(ranks), found)

    @classmethod
    def check(cls, config: RetrievalConfig) -> None:
        """Refuse what is missing without loading a model: device, weight files, annotation file, images, captions."""
        check_models(config)
        _inputs(config)

    def samples(self, ids: Sequence[str]) -> Iterator[Sample]:
        """These queries, in this order: images [3, H, W], read in the background, or token ids [L]."""
        numbers = [self._numbers[key] for key in ids]
        if not self.config.tunes:
            yield from (Sample(key, None, self.unreadable.get(self._numbers[key])) for key in ids)
        elif self.by_image:
            paths = [self.pairs.data.images[number].path for number in numbers]
            pictures = Pictures(paths, self.clip.form, strict=self.config.strict_images)
            found = read_in_background(pictures, len(ids), self.config.num_workers, device=self.device.type)
            yield from (Sample(key, *read) for key, read in zip(ids, found, strict=True))
        else:
            yield from (Sample(key, self._token_ids[number]) for key, number in zip(ids, numbers, strict=True))

    def episode(self, sample: Sample) -> dict[str, Any]:
        return self._record(sample, rank(self.method, self._query(sample)))

    def unadapted(self, sample: Sample) -> dict[str, Any]:
        """The record of one query that the policy as it was before any adaptation ranks, without times."""
        scores = to_host(self._query(sample).scores)
        check_finite([], scores)
        return self._record(sample, Answer(scores, before=scores))

    def _query(self, sample: Sample) -> Query:
        number, num_rewards = self._numbers[sample.id], len(self.models.rewards)
        inputs = None if sample.tensor is None else sample.on(torch.device("cpu")).unsqueeze(0)
        scores = [gallery @ queries[number] for gallery, queries in zip(self.galleries, self.queries, strict=True)]
        anchor = [queries[number : number + 1] for queries in self.queries[1 : 1 + num_rewards]]
        return Query(inputs, scores[0], anchor, scores[1 + num_rewards :])

    def _record(self, sample: Sample, answer: Answer) -> dict[str, Any]:
        number = self._numbers[sample.id]
        text = {} if self.by_image else {"text": self.pairs.texts[number]}
        with guard(self.config.method):
            row = {"id": sample.id, **text, **record(answer, self.positives[number])}
        return with_extra(row, self.config.method, answer.extra)

    def summarize(self, rows: Sequence[dict[str, Any]]) -> dict[str, float | int]:
        return metrics.summarize(rows)


def _inputs(config: RetrievalConfig) -> Pairs:
    data = find_captions(config.dataset, Path(config.data_root), config.dataset_files, partial=config.partial)
    names = [image.id for image in data.images]
    cleaned = clean_captions([image.captions for image in data.images], names)
    owners, numbers = [number for number, texts in enumerate(cleaned) for _ in texts], itertools.count()
    captions_of = [[next(numbers) for _ in texts] for texts in cleaned]
    pairs = Pairs(data, list(itertools.chain(*cleaned)), owners, captions_of)
    check_candidates(config, len(pairs.texts) if config.direction == "image_to_text" else len(data.images))
    return pairs


def record(answer: Answer, positives: Sequence[int]) -> dict[str, Any]:
    """The JSON-able part of an answer: ranks from 1, gallery indices, best first; `positives` are the right ones."""
    assert answer.before is not None
    scores = torch.stack([answer.before, answer.scores])  # [2, G]
    rank_before, rank = metrics.best_ranks(scores, [positives, positives]).tolist()
    top_before, top = metrics.top_items(scores, NUM_LISTED)
    steps = answer.steps or []
    row = {"rank_before": rank_before, "rank": rank, "top10_before": top_before, "top10": top}
    row["loss"] = rounded([step.loss for step in steps])
    if steps:
        logits = torch.cat([step.logits for step in steps])  # S x [1, G] -> [S, G]
        row["step_rank"] = metrics.best_ranks(logits, [positives] * len(steps)).tolist()
    scored = [step for step in steps if isinstance(step, RlcfStep)]
    if scored:
        row["candidates"] = [step.candidates[0].tolist() for step in scored]
        row["rewards"] = rounded([step.rewards[0] for step in scored])
    return row
