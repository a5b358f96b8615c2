"""RLCF for image classification: adapt to one test image, answer, start again.

Source: paper Sec. 3.2; official TPT/tpt_cls_rl.py (prompt), TPT/tune_cls_rl.py (image encoder).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from classification.policy import Policy
from classification.seen import Views, confident_views
from clipscore.episodic import EpisodicState
from clipscore.objectives import Objective, Step, check_finite


@dataclass
class Episode:
    """What one image went through. Logits of the centre view before and after [C]; of all views at the start [N, C]."""

    before: Tensor
    after: Tensor
    view_logits: Tensor
    selected: Tensor  # [S], views in order of rising entropy
    steps: list[Step]


def adapt(
    policy: Policy,
    state: EpisodicState,
    objective: Objective,
    views: Views,
    num_selected: int,
    num_steps: int,
    entropy_weight: float = 0.0,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Episode:
    """Adapt the policy to one image and classify it.

    Args:
        policy: what is tuned.
        state: restores the policy, and feeds the momentum buffer afterwards.
        objective: the loss of one update.
        views: the image.
        num_selected: S, how many views of lowest entropy are kept, chosen once.
        num_steps: updates.
        entropy_weight: weight of the entropy of the averaged prediction in the loss.
        on_step: called after each update, when gradients and new weights are in place.

    Raises:
        FloatingPointError: a loss, or the answer, is not finite.
    """
    starts_at_source = state.momentum is None and not policy.couples_views
    before = None if starts_at_source else source_logits(policy, state, views.centre)
    with state.episode():
        policy.set_mode("adapting")
        inputs = policy.prepare(views)
        view_logits = first_logits(policy, views, inputs)  # [N, C]
        selected = confident_views(view_logits.detach(), num_selected)  # [S]
        observed = objective.observe(views.reward_features(selected))
        steps: list[Step] = []
        for number in range(num_steps):
            if number == 0 and policy.couples_views:
                logits = view_logits[selected]  # [N, C] -> [S, C]
            else:
                logits = policy.logits(inputs[selected], at_start=number == 0)  # [S, C]
            step = objective.step(logits, observed)
            if entropy_weight:
                step.loss = step.loss + entropy_weight * averaged_entropy(logits)
            step.loss = state.step(step.loss)
            steps.append(step)
            on_step(step)
            state.forget_gradients()
            logits = view_logits = view_logits.detach()  # fp16 keeps their graphs
        policy.set_mode("adapted")
        after, view_logits = predict(policy, inputs[:1], at_start=not steps), view_logits.detach()
        before = view_logits[0] if before is None else before
        episode = state.read(Episode(before, after, view_logits, selected, steps))
        check_finite([step.loss for step in episode.steps], episode.after)
    return episode


def first_logits(policy: Policy, views: Views, inputs: Tensor) -> Tensor:
    """Logits of all prepared views at the start. [N, ...] -> [N, C]

    They are the first step's where BatchNorm couples the views: a view's gradient runs through the others there.
    """
    if views.known is not None:
        return views.known[0]
    with torch.set_grad_enabled(policy.couples_views):
        return policy.logits(inputs, at_start=True)


def source_logits(policy: Policy, state: EpisodicState, centre: Views) -> Tensor:
    """Logits of the centre view by the policy as it was before any adaptation. -> [C]"""
    state.restore_source()
    policy.set_mode("source")
    return predict(policy, policy.prepare(centre), at_start=True)


@torch.no_grad()
def predict(policy: Policy, centre: Tensor, at_start: bool = False) -> Tensor:
    """Logits of the prepared centre view by the policy as it is. [1, ...] -> [C]"""
    return policy.logits(centre, at_start)[0]


def averaged_entropy(logits: Tensor) -> Tensor:
    """Entropy of the prediction averaged over views, nats. [S, C] -> scalar. Source: TPT, official tpt_cls.py."""
    log_mean = logits.log_softmax(dim=1).logsumexp(dim=0) - math.log(len(logits))  # [S, C] -> [C]
    log_mean = log_mean.clamp(min=torch.finfo(log_mean.dtype).min)
    return -(log_mean * log_mean.exp()).sum()
