"""Pseudo-labels: the policy imitates its own first choice. Source: Lee 2013, Pseudo-Label."""

from clipscore.objectives import PseudoLabelObjective
from retrieval.method import TunedMethod


class PseudoLabel(TunedMethod):
    """Cross-entropy with the gallery item that is ranked first; needs no other model."""

    def build_objective(self) -> PseudoLabelObjective:
        return PseudoLabelObjective()
