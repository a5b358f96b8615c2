"""Distillation: the policy imitates the reward model. Source: Hinton et al. 2015; official TPT/tune_cls_kd.py."""

import functools

from classification.method import TunedMethod
from clipscore.config.adapting import single_teacher
from clipscore.objectives import DistillationObjective, Loss, kd_loss


class Kd(TunedMethod):
    """The plain form; the others have another loss."""

    reads = TunedMethod.reads | {"reward", "temperature"}
    rules = staticmethod(single_teacher)
    batches = True

    def build_objective(self) -> DistillationObjective:
        """See `clipscore.objectives`."""
        context = self.context
        assert context.reward is not None
        return DistillationObjective(context.reward, context.reward_class_features, self.loss())

    def loss(self) -> Loss:
        """Of student and teacher logits, [S, C] each."""
        return functools.partial(kd_loss, temperature=self.context.config.temperature)
