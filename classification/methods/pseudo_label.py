"""Pseudo-labels: the policy imitates its own first choice. Source: Lee 2013, Pseudo-Label."""

from classification.method import TunedMethod
from clipscore.objectives import PseudoLabelObjective


class PseudoLabel(TunedMethod):
    """Cross-entropy with the most likely class of each confident view; needs no other model."""

    batches = True

    def build_objective(self) -> PseudoLabelObjective:
        """See `clipscore.objectives`."""
        return PseudoLabelObjective()
