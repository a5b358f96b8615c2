"""TDA: caches of confident features from the stream correct CLIP's logits.

Source: Karmanov et al. 2024 (arXiv 2403.18293); official github.com/kdiAAA/TDA, tda_runner.py, utils.py.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from classification.cache import Cache
from classification.config import some_view_kept
from classification.method import Answer, Context, Method
from classification.seen import Views
from clipscore.config.fields import StrictModel


class Positive(StrictModel):
    """Features speak for the class that they were taken for."""

    capacity: int = Field(3, ge=1, description="items of a class")
    alpha: float = Field(2.0, description="weight")
    beta: float = Field(5.0, description="sharpness in the cosine")


class Negative(StrictModel):
    """Features of middling entropy speak against the classes that they leave possible."""

    capacity: int = Field(2, ge=1, description="items of a class")
    alpha: float = Field(0.117, description="weight")
    beta: float = Field(1.0, description="sharpness in the cosine")
    entropy: list[float] = Field([0.2, 0.5], min_length=2, max_length=2, description="an item's lies between, relative")
    mask: list[float] = Field([0.03, 1.0], min_length=2, max_length=2, description="a probability that counts as 1")


@dataclass
class Seen:
    """An image: its views, the means of what they give, and the entropy of the mean prediction."""

    selected: Tensor  # [S]
    feature: Tensor  # [D], not of unit length
    logits: Tensor  # [C]
    probabilities: Tensor  # [C]
    entropy: Tensor  # nats
    relative_entropy: float
    label: int


class Tda(Method):
    """Each image enters the caches first, and is answered with them."""

    class Options(StrictModel):
        """The two caches; null: without it."""

        positive: Positive | None = Positive()
        negative: Negative | None = Negative()
        nats_over_bits: bool = Field(True, description="relative entropy as released, nats over log2(C); false: ln(C)")

    sequential = True

    @staticmethod
    def rules(config: Any) -> Iterator[str]:
        """The one view, or a confident one."""
        return some_view_kept(config) if config.views.num_views > 1 else iter(())

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        positive, negative = self.options.positive, self.options.negative
        features = context.policy.class_features().detach()  # [C, D]
        self.positive = positive and Cache(features, positive.capacity)
        self.negative = negative and Cache(features, negative.capacity, width=len(features))

    def answer(self, views: Views) -> Answer:
        """CLIP's logits, plus what the positive cache says, minus what the negative one says."""
        options, seen = self.options, self.look(views)
        logits = seen.logits
        if self.positive:
            self.positive.add(seen.label, seen.entropy, seen.feature)
            near = self.history(views).affinities(seen.feature, options.positive.beta)  # [C, capacity]
            logits = logits + options.positive.alpha * near.sum(dim=1)
        if self.negative:
            (low, high), (lowest, highest) = options.negative.entropy, options.negative.mask
            if low < seen.relative_entropy < high:
                self.negative.add(seen.label, seen.entropy, seen.feature, seen.probabilities)
            near = self.negative.affinities(seen.feature, options.negative.beta)
            mask = (self.negative.extra > lowest) & (self.negative.extra < highest)  # [C, capacity, C]
            logits = logits - options.negative.alpha * torch.einsum("ck,ckj->j", near, mask.to(near))
        return Answer(logits, selected=seen.selected, entropy=views.entropies[seen.selected])

    def look(self, views: Views) -> Seen:
        """An image as the mean of some of its views."""
        selected = self.answering(views)
        feature, logits = views.features[selected].mean(dim=0), views.logits[selected]
        probabilities, mean = logits.softmax(dim=1).mean(dim=0), logits.mean(dim=0)  # [C], [C]
        entropy = torch.special.entr(probabilities).sum()
        relative = entropy / (math.log2 if self.options.nats_over_bits else math.log)(len(mean))
        return Seen(selected, feature, mean, probabilities, entropy, float(relative), int(mean.argmax()))

    def answering(self, views: Views) -> Tensor:
        """Those views: the one, or the confident ones. -> [S]"""
        return views.confident(1.0 if len(views.entropies) == 1 else self.options.views.select_fraction)

    def history(self, views: Views) -> Cache:
        """The positive cache that an image is answered with."""
        return self.positive

    def state_dict(self) -> dict[str, Any]:
        """The caches."""
        return {name: cache.tensors for name in ("positive", "negative") if (cache := getattr(self, name))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        for name, tensors in state.items():
            getattr(self, name).load(tensors)
