"""C-TPT: TPT that also spreads the class features, so that the prompt's answers are better calibrated.

Source: Yoon et al. 2024 (arXiv 2403.14119); official github.com/hee-suk-yoon/C-TPT, tpt_classification.py.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import Field
from torch import Tensor

from classification.adapt import averaged_entropy
from classification.method import TunedMethod
from classification.policy import FeaturePolicy
from clipscore.config.fields import StrictModel
from clipscore.objectives import Objective, Step


class Ctpt(TunedMethod):
    """Test-time prompt tuning by the entropy minus a weight times the dispersion of the class features."""

    class Options(StrictModel):
        """The term's weight, and when it is used."""

        dispersion_weight: float = Field(50.0, ge=0, description="lambda of the mean distance from the mean feature")
        two_step: bool = Field(False, description="steps on the entropy alone and on the dispersion alone, in turn")

    reads = TunedMethod.reads - {"entropy_weight", "bn_prior"}

    @staticmethod
    def rules(config: Any) -> Iterator[str]:
        """Class features that move."""
        if config.tune in {"encoder", "norm"}:
            yield f"method={config.method} needs tune=prompt or prototypes, got {config.tune}"

    def build_objective(self) -> Objective:
        """See there."""
        weight, two_step = self.options.dispersion_weight, self.options.two_step
        return RegularisedObjective(self.policy, lambda features: -weight * dispersion(features), two_step)


class RegularisedObjective(Objective):
    """Entropy of the averaged prediction, and a `term` on the class features [C, D]; `two_step`: in turn."""

    def __init__(self, policy: Any, term: Callable[[Tensor], Tensor], two_step: bool = False) -> None:
        assert isinstance(policy, FeaturePolicy)
        self.policy, self.term, self.two_step = policy, term, two_step

    def observe(self, anchor: Sequence[Tensor]) -> Iterator[int]:
        """Numbers of the steps to come."""
        return itertools.count()

    def step(self, logits: Tensor, observed: Iterator[int]) -> Step:
        """[S, C] -> Step"""
        assert self.policy.used_class_features is not None
        entropy, term = averaged_entropy(logits), self.term(self.policy.used_class_features)
        number = next(observed)
        loss = entropy + term if not self.two_step else (entropy, term)[number % 2]
        return Step(logits.detach(), loss)


def dispersion(class_features: Tensor) -> Tensor:
    """Mean distance of the class features from their mean. [C, D] -> scalar"""
    return (class_features - class_features.mean(dim=0)).norm(dim=1).mean()
