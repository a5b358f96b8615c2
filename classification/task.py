"""A classification run: from its config to one record per image."""

import functools
import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from classification import metrics
from classification.adapt import source_logits
from classification.build import build_method, check_candidates
from classification.config import ClassificationConfig, ViewsConfig
from classification.data.find import LabelledImage, LabelledImages, find_dataset
from classification.method import Answer, Method, TunedMethod, classify
from classification.policy import PromptPolicy
from classification.prompt_learner import PromptStart, load_prompt_start
from classification.seen import Views
from classification.texts import TEMPLATES, class_texts, find_file
from classification.together import Together
from classification.view_bank import ViewBank
from classification.views import draw_views
from clipscore import task
from clipscore.clip_model import Form
from clipscore.config.methods import Stage, guard
from clipscore.data import samples
from clipscore.data.images import normalize
from clipscore.data.open_image import UnreadableImage, open_image
from clipscore.data.reading import read_in_background
from clipscore.data.records import rounded, with_extra
from clipscore.data.samples import sample_seed
from clipscore.models.devices import to_host
from clipscore.models.files import file_digest
from clipscore.models.group import check_models
from clipscore.objectives import RlcfStep

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample(samples.Sample):
    """One test image as its views, [N, 3, H, W] or uint8 [N, H, W, 3], with its label."""

    label: int = -1
    seconds_views: float = 0.0  # spent in drawing them, in the background

    def on(self, device: torch.device) -> Tensor:
        """The views, normalised there if they are not yet: readers send a quarter of the bytes. [N, 3, H, W]"""
        views = super().on(device)
        return views if views.is_floating_point() else normalize(views)


class ClassificationTask(task.Task):
    """Everything the launcher needs to know about a classification run; errors before the first image is read."""

    method: Method
    SAMPLE = "sample"
    progress_metric = "accuracy"

    def __init__(self, config: ClassificationConfig) -> None:
        self.config = config
        self.data, start = _inputs(config)
        self.ids = [image.id for image in self.data.images]
        self.published = self.data.published
        self._images = {image.id: image for image in self.data.images}
        super().__init__(config)
        self.views = config.views if "views" in config.METHOD.reads else ViewsConfig(num_views=1)
        self.method = build_method(config, self.models, self.data.class_names, start)
        self._group: dict[str, Views] = {}  # images whose selection is shared, still to come
        if config.images_at_once > 1:
            assert isinstance(self.method, TunedMethod)
            self.at_once, self.together = config.images_at_once, Together(self.method, config.images_at_once)
        self._watch()
        self.bank = self._open_bank() if config.view_cache else None
        self.fingerprint["data"] = data_fingerprint(self.data)
        if start:
            tensors = [start[0], *(tensor for _, tensor in sorted(start[1].items()))]
            digest = hashlib.sha256(b"".join(tensor.float().numpy().tobytes() for tensor in tensors))
            self.fingerprint["prompt_start"] = digest.hexdigest()
        for key, source in {"texts": config.texts, "reward_texts": config.reward_texts}.items():
            if isinstance(source, str) and source not in {"prompt", *TEMPLATES}:
                self.fingerprint[key] = file_digest(find_file(source, [Path(config.pretrained_root)]))
        self.about = self.describe_data(self.data, class_names=list(self.data.class_names))
        log.info(
            "%s: %d images in %s, %d classes (%s, ...); %s on %s, %s",
            self.data.name, len(self.ids), self.data.root, len(self.data.class_names), first_classes(self.data),
            config.method, self.device, self.fingerprint["precision"].removeprefix("torch."),
        )  # fmt: skip

    def _watch(self) -> None:
        context = self.method.context
        stages: list[Stage] = [(context.policy, "prepare", "policy"), (context.policy, "logits", "policy")]
        stages += [(context.policy, "class_features", "text")] if isinstance(context.policy, PromptPolicy) else []
        stages += [(context.reward, "encode_images", "reward")] if context.reward else []
        if self.at_once > 1:
            stages += self.together.stages()
        self.watch(*stages)

    def _open_bank(self) -> ViewBank:
        config, num_views = self.config, self.views.num_views
        views = {"dataset": self.data.name, "seed": config.seed, "num_views": num_views, **self.views.drawing}
        views["form"] = self.clip.form  # of the policy, from whose views the reward models' are resized
        folder = Path(config.output_root) / "views"
        models = [self.clip, *self.models.rewards]
        return ViewBank(folder, models, views, num_views, len(self.ids[: config.limit]))

    @classmethod
    def check(cls, config: ClassificationConfig) -> None:
        """Refuse what is missing without loading a model: device, weight files, images, class names, prompt file."""
        check_models(config)
        _inputs(config)

    def samples(self, ids: Sequence[str]) -> Iterator[Sample]:
        """These samples, in this order, read and augmented in the background."""
        images = [self._images[key] for key in ids]
        kept = self.bank.complete() if self.bank else set()
        known = {image.id for image in images if _bank_key(image) in kept} if kept else set()
        unseen = [image for image in images if image.id not in known]
        drawn, num_workers = self._drawn(unseen), self.config.num_workers
        fresh = iter(read_in_background(drawn, len(unseen), num_workers, device=self.device.type))
        for image in images:
            yield Sample(image.id, None, label=image.label) if image.id in known else next(fresh)

    def _drawn(self, images: list[LabelledImage]) -> "_Views":
        return _Views(images, self.clip.form, self.views, self.config)

    def _pixels(self, sample: Sample) -> Tensor:
        return (self._drawn([self._images[sample.id]])[0] if sample.tensor is None else sample).on(self.device)

    def episode(self, sample: Sample) -> dict[str, Any]:
        """The record of one image without times."""
        answer = classify(self.method, self._seen(sample))
        with guard(self.config.method):
            row = _row(sample, answer)
        return with_extra(row, self.config.method, answer.extra)

    def _views(self, sample: Sample) -> Views:
        bank = None
        if self.bank and not sample.truncated:  # others are looked at by each run
            bank = functools.partial(self.bank.projected, _bank_key(self._images[sample.id]))
        return self.method.context.views(functools.partial(self._pixels, sample), bank)

    def _seen(self, sample: Sample) -> Views:
        """The image; the first of a group whose selection is shared looks at all of them."""
        if sample.id not in self._group:
            return self._views(sample)
        if self._group[sample.id].known is None:
            try:
                self.together.look(list(self._group.values()))
            except torch.cuda.OutOfMemoryError as error:
                self._go_on_alone(error)
                return self._views(sample)
        return self._group[sample.id]

    def _go_on_alone(self, error: Exception) -> None:
        log.warning("images_at_once=%d is too many here; from now on one at a time: %s", self.at_once, error)
        self.at_once, self._group = 1, {}

    def adapt_together(self, samples: Sequence[Sample]) -> dict[str, dict[str, Any]]:
        """The records of several images, adapted at once, by their ids; none where one has to be adapted alone."""
        started = time.perf_counter()
        self.times.start()
        seen = [self._views(sample) for sample in samples]
        if self.together.prompts is None:
            self._group = {sample.id: views for sample, views in zip(samples, seen, strict=True)}
            return {}
        try:
            with guard(self.config.method):
                episodes, moved = self.together.adapt(seen)
        except (FloatingPointError, torch.cuda.OutOfMemoryError) as error:
            self.together.state.updates.forget()
            if isinstance(error, torch.cuda.OutOfMemoryError):
                self._go_on_alone(error)
            return {}
        share, rows = 1 / len(samples), {}
        stages = {stage: seconds * share for stage, seconds in self.times.take().items()}
        for sample, episode, distance in zip(samples, episodes, moved, strict=True):
            row = _row(sample, TunedMethod.answer_of(episode)) | {"moved": rounded(distance)}
            if self.models.scale_loss:
                row["repeated_steps"] = 0
            rows[sample.id] = self.timed(row, {"views": sample.seconds_views, **stages}, started, share)
        return rows

    def unadapted(self, sample: Sample) -> dict[str, Any]:
        """The record of one image that the policy as it was before any adaptation answers, without times."""
        context, state = self.method.context, self.method.state
        views = Views(self._pixels(sample)[:1], context.policy)
        logits = to_host(views.logits[0] if state is None else source_logits(context.policy, state, views))
        return _row(sample, Answer(logits, before=logits))

    def stages(self, sample: Sample) -> dict[str, float]:
        """Seconds in each stage, the drawing of the views included."""
        return {"views": sample.seconds_views, **self.times.take()}

    def summarize(self, rows: Sequence[dict[str, Any]]) -> dict[str, float | int]:
        """See `classification.metrics.summarize`."""
        return metrics.summarize(rows)


def _inputs(config: ClassificationConfig) -> tuple[LabelledImages, PromptStart | None]:
    data = find_dataset(config.dataset, Path(config.data_root), config.dataset_files, config.partial)
    check_candidates(config, len(data.class_names))
    roots = [Path(config.pretrained_root)]
    for source in (config.texts, config.reward_texts):
        class_texts(source, config.prompt_words, data.class_names, roots)
    return data, load_prompt_start(config.prompt_start, roots) if config.prompt_start else None


def _bank_key(image: LabelledImage) -> str:
    """Of an image in the bank of view features: another one when the file changes."""
    return f"{image.id} {image.path.stat().st_size if image.path.is_file() else None}"


class _Views(Dataset[Sample]):
    """Reads images and draws their views; each sample's views depend on the seed and the sample only."""

    def __init__(
        self, images: list[LabelledImage], size: Form, views: ViewsConfig, config: ClassificationConfig
    ) -> None:
        self.images, self.size, self.views = images, size, views
        self.dataset, self.seed, self.strict = config.dataset, config.seed, config.strict_images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        started = time.perf_counter()
        image, options = self.images[index], self.views
        try:
            picture = open_image(image.path, strict=self.strict)
        except UnreadableImage as error:
            return Sample(image.id, None, str(error), label=image.label)
        seed = sample_seed(self.seed, self.dataset, image.id)
        views = draw_views(picture, options.num_views, self.size, seed, **options.drawing)
        truncated, seconds = "truncated" in picture.info, time.perf_counter() - started
        return Sample(image.id, views, None, truncated, image.label, seconds)


def _row(sample: Sample, answer: Answer) -> dict[str, Any]:
    return {"id": sample.id, "label": sample.label, **record(answer, sample.label)}


def record(answer: Answer, label: int) -> dict[str, Any]:
    """The JSON-able part of an answer."""
    assert answer.before is not None
    row = answers(answer.before, answer.logits, label)
    if answer.selected is not None:
        row["selected"] = answer.selected.tolist()
    if answer.entropy is not None:
        row["entropy"] = rounded(answer.entropy)
    if answer.steps is not None:
        row["step_top1"] = [int(step.logits.softmax(1).mean(0).argmax()) for step in answer.steps]
        row["loss"] = rounded([step.loss for step in answer.steps])
    scored = [step for step in answer.steps or () if isinstance(step, RlcfStep)]
    if scored:
        row["candidates"] = [step.candidates.tolist() for step in scored]
        row["rewards"] = rounded([step.rewards for step in scored])
    return row


def answers(before: Tensor, after: Tensor, label: int) -> dict[str, Any]:
    """The first classes before and after adaptation, how sure the model is of them, and its Brier scores. 2 x [C]"""
    row: dict[str, Any] = {"top5_before": top_classes(before), "top5": top_classes(after)}
    for suffix, logits in {"_before": before, "": after}.items():
        probabilities = logits.double().softmax(0)
        row[f"confidence{suffix}"] = rounded(probabilities.max())
        row[f"brier{suffix}"] = rounded(probabilities.square().sum() - 2 * probabilities[label] + 1)
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
