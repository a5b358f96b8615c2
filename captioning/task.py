"""A captioning run: from its config to one record per image."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from captioning import build, metrics
from captioning.adapt import Step, describe
from captioning.config import CaptioningConfig
from captioning.method import Answer, Method, Picture
from clipscore.clip_model import ClipModel
from clipscore.config.methods import guard
from clipscore.data.caption_sets import CaptionedImage, CaptionedImages, captions_fingerprint, find_captions
from clipscore.data.images import Pictures
from clipscore.data.reading import read_in_background
from clipscore.data.records import rounded, with_extra
from clipscore.data.samples import Sample, sample_seed
from clipscore.metrics.captions import CLIP_METRICS, check_captions, check_metrics, default_metrics
from clipscore.models.files import check_clip, file_digest
from clipscore.models.group import check_models
from clipscore.models.load import load_clip
from clipscore.task import Task

log = logging.getLogger(__name__)


class CaptioningTask(Task):
    """Everything the launcher needs to know about a captioning run; errors before the first image."""

    method: Method
    SAMPLE = "image"

    def __init__(self, config: CaptioningConfig) -> None:
        self.config = config
        self.data, self.metrics, checkpoint = _inputs(config)
        self.ids = [image.id for image in self.data.images]
        self.published = self.data.published and self.data.published.num_images
        self._images = {image.id: image for image in self.data.images}
        self.progress_metric = "reward_gain" if config.steps > 1 else "non_empty"
        self.metric_clip: ClipModel | None = None  # on the CPU until captions are there, but known to load
        if set(self.metrics) & set(CLIP_METRICS):
            with _metric_model_named(self.metrics):
                self.metric_clip = load_clip(config.metric_model, config.pretrained_root)
        super().__init__(config)
        self.captioner = build.load_captioner(config, self.clip, checkpoint, self.models.precision)
        self.method = build.build_method(config, self.captioner, self.models.rewards, self.models.scale_loss)
        self.watch()
        self.fingerprint |= {
            "data": captions_fingerprint(self.data),
            "checkpoint": file_digest(checkpoint),
            "llm": build.language_model_digest(self.captioner.lm, self.captioner.tokenizer),
        }
        self.captioner.cast_frozen()  # after the digest, which is of the weights as they were
        self.clip.cast_frozen()
        self.about = self.describe_data(self.data, checkpoint=str(checkpoint))
        log.info(
            "%s: %d images in %s; %s of %s on %s, %s; metrics: %s",
            self.data.name, len(self.ids), self.data.root, config.method, checkpoint,
            self.device, self.fingerprint["precision"].removeprefix("torch."), ", ".join(self.metrics),
        )  # fmt: skip

    @classmethod
    def check(cls, config: CaptioningConfig) -> None:
        """Refuse what is missing without loading a model: device, weights, data, checkpoint, language model, Java."""
        _, names, _ = _inputs(config)
        check_models(config)
        if set(names) & set(CLIP_METRICS):
            with _metric_model_named(names):
                check_clip(config.metric_model, config.pretrained_root)

    def samples(self, ids: Sequence[str]) -> Iterator[Sample]:
        """These images [3, H, W] at the policy's size, in this order, read in the background."""
        paths = [self._images[key].path for key in ids]
        pictures = Pictures(paths, self.clip.form, strict=self.config.strict_images)
        found = read_in_background(pictures, len(ids), self.config.num_workers, device=self.device.type)
        yield from (Sample(key, *read) for key, read in zip(ids, found, strict=True))

    def episode(self, sample: Sample) -> dict[str, Any]:
        config, image = self.config, sample.on(self.device).unsqueeze(0)
        features = build.image_features(self.clip, image, config.normalize_prefix, config.clip_length)
        generator = torch.Generator().manual_seed(sample_seed(config.seed, self.data.name, sample.id))
        with guard(config.method):
            pixels = build.reward_views(image, self.clip, self.models.rewards, self._images[sample.id].path)
            answer = self.method.answer(Picture(pixels, features, generator))
        if not isinstance(answer, Answer) or not isinstance(answer.caption, str):
            raise ValueError(f"method={config.method} answered {answer!r:.100}, expected an Answer with a caption")
        with guard(config.method):
            row = record(self._images[sample.id], answer, config.caption_before)
        return with_extra(row, config.method, answer.extra)

    def unadapted(self, sample: Sample) -> dict[str, Any]:
        """The record of one image that the captioner as it was before any adaptation describes, without times."""
        config = self.config
        image = sample.on(self.device).unsqueeze(0)
        features = build.image_features(self.clip, image, config.normalize_prefix, config.clip_length)
        if self.method.state is not None:
            self.method.state.restore_source()
        caption, hypotheses = describe(self.captioner, features, config)
        return record(self._images[sample.id], Answer(caption, caption, hypotheses), config.caption_before)

    def progress(self, rows: Sequence[dict[str, Any]]) -> float:
        """The reward gained so far; without steps to compare, the share of captions that hold anything."""
        return metrics.reward_gain(rows) if self.progress_metric == "reward_gain" else metrics.non_empty(rows)

    def summarize(self, rows: Sequence[dict[str, Any]]) -> dict[str, float]:
        """See `captioning.metrics.summarize`; RuntimeError when a metric cannot be computed."""
        images = {row["id"]: self._images[row["id"]].path for row in rows}
        clip = self.metric_clip.to(self.device) if self.metric_clip else None
        try:
            return metrics.summarize(rows, images, self.config.metrics, clip, self.config.on_error)
        except Exception as error:  # whatever it is: hours of captions lie on the disk, and that must be said
            raise RuntimeError(
                f"the metrics failed ({type(error).__name__}: {error}), but all captions are in the run folder; the "
                "same command computes only the metrics again, and metrics=[...] chooses others"
            ) from error


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
    checkpoint = build.find_checkpoint(config.checkpoint, [root, Path(config.output_root)])
    build.check_language_model(config.llm, root)
    data = find_captions(config.dataset, Path(config.data_root), config.dataset_files, partial=config.partial)
    references = {image.id: image.captions for image in data.images}
    check_captions(dict.fromkeys(references, ""), references, names)
    return data, names, checkpoint


def record(image: CaptionedImage, answer: Answer, with_before: bool) -> dict[str, Any]:
    """The JSON-able part of an answer, with the references that metrics are computed from."""
    row: dict[str, Any] = {"id": image.id, "image_id": image.image_id}
    if with_before:
        row["caption_before"] = answer.before
    return {
        **row,
        "caption": answer.caption,
        "references": list(image.captions),
        "captions": [step.captions for step in answer.steps],
        "rewards": rounded([step.rewards for step in answer.steps]),
        "loss": rounded([step.loss for step in answer.steps if isinstance(step, Step)]),
    }
