"""TPT: the surest prompt. Source: Shu et al. 2022 (arXiv 2209.07511); official TPT/tpt_cls.py, TPT/tune_cls_tpt.py."""

from typing import Any

from torch import Tensor

from classification.adapt import averaged_entropy
from classification.method import TunedMethod
from clipscore.objectives import Objective, Step


class TptObjective(Objective):
    """Entropy of the averaged prediction; needs no other model."""

    def step(self, logits: Tensor, observed: Any) -> Step:
        """[S, C] -> Step"""
        return Step(logits.detach(), averaged_entropy(logits))


class Tpt(TunedMethod):
    """Test-time prompt tuning."""

    batches = True

    def build_objective(self) -> TptObjective:
        """See there."""
        return TptObjective()
