"""RLCF: CLIP reward as feedback. Source: Zhao et al. 2024 (arXiv 2305.18010), Sec. 3.4."""

from captioning.adapt import RlcfObjective
from captioning.method import TunedMethod


class Rlcf(TunedMethod):
    """Raise the captions that the reward scores above the average of the K."""

    reads = TunedMethod.reads | {"reward", "num_candidates", "sampling", "pad_in_loss"}

    def build_objective(self) -> RlcfObjective:
        assert self.context.reward is not None
        return RlcfObjective(self.context.reward, self.context.config)
