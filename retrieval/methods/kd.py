"""Distillation: the policy imitates the reward model's scores. Source: Hinton et al. 2015; official clip_ret_kd.py."""

from clipscore.config.adapting import single_teacher
from clipscore.objectives import DistillationObjective
from retrieval.method import TunedMethod


class Kd(TunedMethod):
    """Cross-entropy with the teacher's distribution over the gallery."""

    reads = TunedMethod.reads | {"reward"}
    rules = staticmethod(single_teacher)

    def build_objective(self) -> DistillationObjective:
        assert self.context.reward is not None
        return DistillationObjective(self.context.reward, self.context.reward_galleries)
