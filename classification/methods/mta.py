"""MTA: the mode of the views' features, found by mean shift together with how much each view counts.

Source: Zanella and Ben Ayed 2024 (arXiv 2405.02266); official github.com/MaxZanella/MTA, mta.py.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from classification.method import Answer, Method
from classification.seen import Views
from clipscore.config.fields import StrictModel

NEIGHBOURS = 0.3  # of the other views; they give a view its bandwidth
ROUNDS = 5
MAX_REPEATS, CONVERGED = 5, 1e-6  # within a round


class Mta(Method):
    """Classifies the mode in the place of view 0."""

    class Options(StrictModel):
        """Weights of its objective's terms."""

        lambda_y: float = Field(0.2, gt=0, description="of the entropy of the inlierness")
        lambda_q: float = Field(4.0, ge=0, description="of the agreement of views with like predictions")

    @staticmethod
    def rules(config: Any) -> Iterator[str]:
        """Enough views for a neighbour."""
        if num_neighbours(config.views.num_views) < 1:
            yield f"method={config.method} needs 5 views or more, got views.num_views={config.views.num_views}"

    def answer(self, views: Views) -> Answer:
        """Logits of the mode."""
        *_, last = mean_shift(views.features, views.logits, self.options.lambda_y, self.options.lambda_q)
        return Answer(views.logit_scale * views.class_features @ last.mode, extra={"inlierness": last.inlierness})


@dataclass
class Round:
    """Where a round of the mean shift ended: how much each view counts [N], the mode [D], and its repeats."""

    inlierness: Tensor
    mode: Tensor
    num_inlierness: int
    num_mode: int


def mean_shift(features: Tensor, logits: Tensor, lambda_y: float = 0.2, lambda_q: float = 4.0) -> Iterator[Round]:
    """Update inlierness and mode, which starts at the first view, in turn. Unit-length features [N, D], logits [N, C]

    `lambda_y` is the weight of the entropy of the inlierness, how evenly it spreads over the views; `lambda_q` that of
    the agreement of views whose predictions are alike.
    """
    probabilities = logits.softmax(dim=1)
    affinity = probabilities @ probabilities.T  # [N, N]
    spread = 2 * bandwidths(features).square()  # [N]
    mode, inlierness = features[0], torch.full_like(features[:, 0], 1 / len(features))

    def kernel(mode: Tensor) -> Tensor:
        return (-(features - mode).square().sum(dim=1) / spread).exp()  # [N]

    def counted(inlierness: Tensor) -> Tensor:
        return ((density + lambda_q * affinity @ inlierness) / lambda_y).softmax(dim=0)

    def shifted(mode: Tensor) -> Tensor:
        weights = kernel(mode) * inlierness
        return F.normalize(weights @ features / weights.sum(), dim=0)

    for _ in range(ROUNDS):
        density = kernel(mode)
        inlierness, num_inlierness = _repeat(counted, inlierness)
        mode, num_mode = _repeat(shifted, mode)
        yield Round(inlierness, mode, num_inlierness, num_mode)


def num_neighbours(num_views: int) -> int:
    """How many of the other views give a view its bandwidth."""
    return int(NEIGHBOURS * (num_views - 1))


def bandwidths(features: Tensor) -> Tensor:
    """h: h^2 is half the mean squared distance to the nearest other views, not 0 where they are the same. -> [N]"""
    distances = torch.cdist(features, features).square().sort(dim=1).values  # the first is the view's own
    nearest = distances[:, 1 : 1 + num_neighbours(len(features))]
    return (nearest.mean(dim=1) / 2).clamp(min=torch.finfo(features.dtype).eps).sqrt()


def _repeat(update: Callable[[Tensor], Tensor], value: Tensor) -> tuple[Tensor, int]:
    """Until it hardly moves, or has been done so often."""
    for number in range(1, MAX_REPEATS + 1):
        before, value = value, update(value)
        if (value - before).norm() < CONVERGED:
            return value, number
    return value, MAX_REPEATS
