"""RLCF: CLIP reward as feedback. Source: Zhao et al. 2024 (arXiv 2305.18010), Sec. 3.2."""

from classification.method import TunedMethod
from clipscore.objectives import RlcfObjective


class Rlcf(TunedMethod):
    """Raise the classes of the confident views that the reward scores above the average of the K."""

    reads = TunedMethod.reads | {"reward", "num_candidates"}
    batches = True

    def build_objective(self) -> RlcfObjective:
        """See `clipscore.objectives`."""
        config, reward = self.context.config, self.context.reward
        assert reward is not None
        features = self.context.reward_class_features
        return RlcfObjective(reward, features, config.num_candidates, config.reward_options)
