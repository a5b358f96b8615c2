"""RLCF for image-text retrieval: adapt one tower to one query, rank the gallery, start again.

Source: paper Sec. 3.3; official retrieval/clip_ret_policy.py, clip_ret_kd.py.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from clipscore.episodic import EpisodicState
from clipscore.objectives import Objective, Step, check_finite
from retrieval.policy import Policy, logits


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
    """Adapt the policy to one query and score the gallery. FloatingPointError: a loss, or the answer, is not finite.

    Args:
        policy: the tower that is tuned.
        state: restores the policy, and feeds the momentum buffer afterwards.
        query: image [1, 3, H, W] or token ids [1, L].
        anchor: the reward models' features of the query. M x [1, D]
        gallery: the policy's features of the gallery, made by its other tower before. [G, D]
        on_step: called after each update, when gradients and new weights are in place.

    Returns:
        Logits of the gallery after adaptation [G], and the updates; on the CPU.
    """
    with state.episode():
        policy.set_adapting(True)
        inputs = policy.prepare(query)
        observed = objective.observe(anchor)
        steps: list[Step] = []
        for _ in range(num_steps):
            step = objective.step(logits(policy, inputs, gallery), observed)
            step.loss = state.step(step.loss)
            steps.append(step)
            on_step(step)
            state.forget_gradients()
        policy.set_adapting(False)
        with torch.no_grad():
            answer = logits(policy, inputs, gallery)[0]  # [1, G] -> [G]
        answer, steps = state.read((answer, steps))
        check_finite([step.loss for step in steps], answer)
    return answer, steps
