"""What an update minimises: the CLIP reward as feedback, and the plain alternatives that it is compared with."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipscore.config.fields import RewardConfig
from clipscore.policy_gradient import advantages_sum_to_zero, candidate_loss
from clipscore.reward import ClipReward, subtract_baseline

Loss = Callable[[Tensor, Tensor], Tensor]  # of student and teacher logits


@dataclass
class Step:
    """One update: the logits that it started from [S, C], and its loss."""

    logits: Tensor
    loss: Tensor


@dataclass
class RlcfStep(Step):
    """One update by reward: the candidates and what they earned. [S, K]"""

    candidates: Tensor
    rewards: Tensor
    advantages: Tensor


class Objective:
    """`observe` sees the sample once, by its features, and `step` makes the loss of each update from the logits."""

    used_per_row: int | None = None  # so many of the C that the loss of one row of logits can depend on; None: all

    def observe(self, anchor: Sequence[Tensor]) -> Any:
        """What the steps of one sample share. M x [S, D]"""
        return anchor

    def step(self, logits: Tensor, observed: Any) -> Step:
        """The loss of one update. [S, C]"""
        raise NotImplementedError


class RlcfObjective(Objective):
    """CLIP reward as feedback: raise the candidates that score above the average of the K.

    Args:
        reward: the frozen CLIPs.
        features: theirs of all that can be proposed: class prompts, or the gallery. M x [C, D]
        num_candidates: K, those that the policy ranks first.
        options: baseline options.
    """

    def __init__(
        self, reward: ClipReward, features: Sequence[Tensor], num_candidates: int, options: RewardConfig
    ) -> None:
        self.reward: ClipReward = reward
        self.features, self.num_candidates, self.options = list(features), num_candidates, options
        self.zero_sum = advantages_sum_to_zero(options.baseline, options.baseline_over, num_candidates)
        self.used_per_row = num_candidates if self.zero_sum else None

    def step(self, logits: Tensor, observed: Sequence[Tensor]) -> RlcfStep:
        """Propose, score, compare: the policy-gradient loss of one update. [S, C], M x [S, D]"""
        options, k = self.options, self.num_candidates
        candidates = logits.topk(k, dim=1).indices  # [S, C] -> [S, K]
        rewards = self.reward.score(observed, [features[candidates] for features in self.features])  # [S, K]
        advantages = subtract_baseline(rewards, options.baseline, options.baseline_over, options.standardize)
        loss = candidate_loss(logits, candidates, advantages, self.zero_sum)
        return RlcfStep(logits.detach(), loss, candidates, rewards, advantages)


class PseudoLabelObjective(Objective):
    """Cross-entropy with the policy's own first choice. Source: Lee 2013, Pseudo-Label."""

    def step(self, logits: Tensor, observed: Any) -> Step:
        """[S, C] -> Step"""
        return Step(logits.detach(), F.cross_entropy(logits, logits.argmax(dim=1)))


def kd_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Cross-entropy of the student under the teacher's softened prediction, mean over rows. [S, C], [S, C] -> scalar

    Times the squared temperature, which keeps the gradient's size. The teacher's entropy, which has no gradient, is
    left out. Source: Hinton et al. 2015 (arXiv 1503.02531).
    """
    targets = (teacher / temperature).softmax(dim=1)
    return -(targets * (student / temperature).log_softmax(dim=1)).sum(dim=1).mean() * temperature**2


class DistillationObjective(Objective):
    """Imitate the reward model's distribution over all candidates.

    Args:
        reward: one frozen CLIP, the teacher.
        features: its features of the candidates. 1 x [C, D]
        loss: of student and teacher logits.
    """

    def __init__(self, reward: ClipReward, features: Sequence[Tensor], loss: Loss = kd_loss) -> None:
        self.reward: ClipReward = reward
        self.features, self.loss = list(features), loss

    def observe(self, anchor: Sequence[Tensor]) -> Tensor:
        """Teacher logits. 1 x [S, D] -> [S, C]"""
        return self.reward.teacher_logits(anchor, self.features)

    def step(self, logits: Tensor, observed: Tensor) -> Step:
        """[S, C], [S, C] -> Step"""
        return Step(logits.detach(), self.loss(logits, observed))


def check_finite(losses: Sequence[Tensor], answer: Tensor | None = None) -> None:
    """Refuse an episode that ran into infinities.

    Raises:
        FloatingPointError: with the losses, and the answer's first numbers.
    """
    found = torch.stack(list(losses)).tolist() if losses else []
    if all(map(math.isfinite, found)) and (answer is None or bool(answer.isfinite().all())):
        return
    shown = "" if answer is None else f", answer {answer.tolist()[:5]}..."
    raise FloatingPointError(f"not finite: losses {found}{shown}; lower lr or use fp32")
