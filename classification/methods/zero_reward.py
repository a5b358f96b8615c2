"""ZERO with the reward model's votes: the policy says which views count, another CLIP what they show.

Source: Farina et al. 2024 (arXiv 2405.18330); official github.com/FarinaMatteo/zero, ttas/zero_rlcf.py.
"""

from torch import Tensor

from classification.methods.zero import Zero
from classification.seen import Views
from clipscore.config.adapting import single_teacher


class ZeroReward(Zero):
    """As ZERO, but the selected views vote by the reward model's cosines."""

    reads = Zero.reads | {"reward"}
    rules = staticmethod(single_teacher)

    def ballots(self, views: Views, cosines: Tensor, selected: Tensor) -> Tensor:
        """[N, C], [S] -> [S, C]"""
        return views.reward_features(selected)[0] @ self.context.reward_class_features[0].T
