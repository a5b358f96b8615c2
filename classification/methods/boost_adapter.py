"""BoostAdapter: TDA whose positive cache also has the image's own confident views, for its own answer only.

Source: Zhang et al. 2024 (arXiv 2410.15430); official github.com/taolinzhang/BoostAdapter, runner.py, utils.py.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from classification.cache import Cache
from classification.method import Context
from classification.methods.tda import Tda
from classification.seen import Views


class BoostAdapter(Tda):
    """As TDA; the negative cache forgets its oldest items first."""

    class Options(Tda.Options):
        """The caches, and the views that are added to the positive one."""

        boost: bool = Field(True, description="false: the history alone")
        delta: int = Field(0, ge=0, description="places of a class, beside the cache's own, for the views")
        answer_views: Literal["confident", "first"] = Field(
            "confident", description="views that are answered for: the mean of the confident ones, or the plain image"
        )
        forget_oldest: bool = Field(True, description="negative cache as released; false: highest entropy, as in TDA")

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        if self.negative:
            self.negative.ranked = not self.options.forget_oldest

    def answering(self, views: Views) -> Tensor:
        """-> [S]"""
        if self.options.answer_views == "first":
            return torch.zeros_like(views.entropies[:1], dtype=torch.long)
        return super().answering(views)

    def history(self, views: Views) -> Cache:
        """The positive cache, with the confident views under the class that each shows."""
        history = super().history(views)
        if not self.options.boost:
            return history
        boosted = Cache(views.class_features, history.entropy.shape[1] + self.options.delta)
        boosted.load(history.tensors)
        for view in views.confident(self.options.views.select_fraction).tolist():
            boosted.add(int(views.logits[view].argmax()), views.entropies[view], views.features[view])
        return boosted
