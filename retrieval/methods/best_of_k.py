"""Best of K: the reward model orders the gallery items that the policy ranks first. No gradient.

The control that RLCF needs: the same candidates and rewards as its first step, without the update.
"""

import torch

from retrieval.method import Answer, Method, Query
from retrieval.metrics import top_items

TIE = 1e-9  # between the scores of items that the policy likes equally


class BestOfK(Method):
    """The first K in the order of the reward, equal ones as the policy has them; the others as they were."""

    reads = Method.reads | {"reward", "num_candidates"}

    def answer(self, query: Query) -> Answer:
        """The K highest scores change owners."""
        context, k = self.context, self.context.config.k
        assert context.reward is not None
        items = torch.tensor(top_items(query.scores[None], k)[0], device=query.scores.device)  # [K]
        texts = [gallery[items][None] for gallery in context.reward_galleries]  # M x [1, K, D]
        rewards = context.reward.score(query.reward_features, texts)[0]  # [K]
        by_reward = items[rewards.argsort(descending=True, stable=True)]
        steps = TIE * torch.arange(k, 0, -1, device=items.device)
        scores = query.scores.double()
        scores = scores.scatter(0, by_reward, scores[items] + steps)
        return Answer(scores, extra={"candidates": [items], "rewards": [rewards]})
