"""RLCF: CLIP reward as feedback. Source: Zhao et al. 2024 (arXiv 2305.18010), Sec. 3.3."""

from clipscore.objectives import RlcfObjective
from retrieval.method import TunedMethod


class Rlcf(TunedMethod):
    """Raise the gallery items that the reward scores above the average of the K which the policy ranks first."""

    reads = TunedMethod.reads | {"reward", "num_candidates"}

    def build_objective(self) -> RlcfObjective:
        context, config = self.context, self.context.config
        assert context.reward is not None
        return RlcfObjective(context.reward, context.reward_galleries, config.k, config.reward_options)
