"""O-TPT: TPT that also makes the class features orthogonal, so that the prompt's answers are better calibrated.

Source: Sharifdeen et al. 2025 (arXiv 2503.12096); official github.com/ashshaksharifdeen/O-TPT, otpt_classification.py.
"""

from pydantic import Field
from torch import Tensor

from classification.methods.ctpt import Ctpt, RegularisedObjective
from clipscore.config.fields import StrictModel
from clipscore.objectives import Objective


class Otpt(Ctpt):
    """Test-time prompt tuning by the entropy plus a weight times the overlap of the class features."""

    class Options(StrictModel):
        """The term's weight."""

        orthogonality_weight: float = Field(18.0, ge=0, description="lambda of how far features are from orthogonal")

    def build_objective(self) -> Objective:
        """See `RegularisedObjective`."""
        weight = self.options.orthogonality_weight
        return RegularisedObjective(self.policy, lambda features: weight * overlap(features))


def overlap(class_features: Tensor) -> Tensor:
    """0 where the class features are orthogonal: mean length of the rows of w w^T, minus 1. [C, D] -> scalar

    The release reflects each row of w w^T onto its axis, which keeps the row's length, and subtracts the identity: the
    same value and gradient, from a tensor of C^3 numbers.
    """
    return (class_features @ class_features.T).norm(dim=1).mean() - 1
