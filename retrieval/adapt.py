"""RLCF for image-text retrieval: adapt one tower to one query, rank the gallery, start again.

Source: paper Sec. 3.3; official retrieval/clip_ret_policy.py, clip_ret_kd.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from clipscore.config.fields import RewardConfig
from clipscore.episodic import EpisodicState
from clipscore.policy_gradient import advantages_sum_to_zero, candidate_loss
from clipscore.reward import ClipReward, subtract_baseline
from retrieval.policy import Policy, logits


@dataclass
class Step:
    """One update: the logits it started from [1, G], its loss, and, for RLCF, candidates and rewards [1, K]."""

    logits: Tensor
    loss: Tensor
    candidates: Tensor | None = None
    rewards: Tensor | None = None
    advantages: Tensor | None = None


class Objective(Protocol):
    """What is minimised: `observe` sees the query once, `step` the logits at each update."""

    def observe(self, anchor: Sequence[Tensor]) -> Any: ...

    def step(self, logits: Tensor, observed: Any) -> Step: ...


class RlcfObjective:
    """CLIP reward as feedback: raise the gallery items that score above the average of the K.

    Args:
        reward: the frozen CLIPs.
        gallery: their features of the gallery. M x [G, D]
        num_candidates: K, the items that the policy ranks first.
        options: baseline options.
    """

    def __init__(
        self, reward: ClipReward, gallery: Sequence[Tensor], num_candidates: int, options: RewardConfig
    ) -> None:
        self.reward, self.gallery = reward, list(gallery)
        self.num_candidates, self.options = num_candidates, options

    def observe(self, anchor: Sequence[Tensor]) -> Sequence[Tensor]:
        """The reward models' features of the query, as they are. M x [1, D]"""
        return anchor

    def step(self, logits: Tensor, observed: Sequence[Tensor]) -> Step:
        """Propose, score, compare: the policy-gradient loss of one update. [1, G] -> Step"""
        options, k = self.options, self.num_candidates
        candidates = logits.topk(k, dim=1).indices  # [1, G] -> [1, K]
        rewards = self.reward.score(observed, [features[candidates] for features in self.gallery])  # [1, K]
        advantages = subtract_baseline(rewards, options.baseline, options.baseline_over, options.standardize)
        zero_sum = advantages_sum_to_zero(options.baseline, options.baseline_over, k)
        loss = candidate_loss(logits, candidates, advantages, zero_sum)
        return Step(logits.detach(), loss, candidates, rewards, advantages)


class DistillationObjective:
    """Imitate the reward model's distribution over the gallery: the cross-entropy form, temperature 1.

    Args:
        reward: one frozen CLIP, the teacher.
        gallery: its features of the gallery. 1 x [G, D]
    """

    def __init__(self, reward: ClipReward, gallery: Sequence[Tensor]) -> None:
        self.reward, self.gallery = reward, list(gallery)

    def observe(self, anchor: Sequence[Tensor]) -> Tensor:
        """Teacher logits, made once per query. 1 x [1, D] -> [1, G]"""
        return self.reward.teacher_logits(anchor, self.gallery)

    def step(self, logits: Tensor, observed: Tensor) -> Step:
        """[1, G] -> Step"""
        return Step(logits.detach(), F.cross_entropy(logits, observed.softmax(dim=1)))


class PseudoLabelObjective:
    """Cross-entropy with the item that the policy ranks first. Source: Lee 2013, Pseudo-Label."""

    def observe(self, anchor: Sequence[Tensor]) -> None:
        """Needs no other model."""

    def step(self, logits: Tensor, observed: None) -> Step:
        """[1, G] -> Step"""
        return Step(logits.detach(), F.cross_entropy(logits, logits.argmax(dim=1)))


def adapt(
    policy: Policy,
    state: EpisodicState,
    objective: Objective,
    query: Tensor,
    anchor: Sequence[Tensor],
    gallery: Tensor,
    num_steps: int,
    on_step: Callable[[Step], None] = lambda step: None,
) -> tuple[Tensor, list[Step]]:
    """Adapt the policy to one query and score the gallery.

    Args:
        policy: the tower that is tuned.
        state: restores the policy, and feeds the momentum buffer afterwards.
        objective: the loss of one update.
        query: image [1, 3, H, W] or token ids [1, L].
        anchor: the reward models' features of the query. M x [1, D]
        gallery: the policy's features of the gallery, made by its other tower before. [G, D]
        num_steps: updates.
        on_step: called after each update, when gradients and new weights are in place.

    Returns:
        Logits of the gallery after adaptation [G], and the updates.

    Raises:
        FloatingPointError: a loss, or the answer, is not finite.
    """
    with state.episode():
        policy.set_adapting(True)
        inputs = policy.prepare(query)
        observed = objective.observe(anchor)
        steps: list[Step] = []
        for _ in range(num_steps):
            step = objective.step(logits(policy, inputs, gallery), observed)
            state.step(step.loss)
            steps.append(step)
            on_step(step)
            state.forget_gradients()
        policy.set_adapting(False)
        with torch.no_grad():
            answer = logits(policy, inputs, gallery)[0]  # [1, G] -> [G]
        losses = [float(step.loss.detach()) for step in steps]
        if not (all(map(math.isfinite, losses)) and torch.isfinite(answer).all()):
            raise FloatingPointError(
                f"not finite: losses {losses}, answer {answer.tolist()[:5]}...; lower lr or use fp32"
            )
    return answer, steps
