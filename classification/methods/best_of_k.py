"""Best of K: ask the reward model about RLCF's candidates, and answer what it likes best. No gradient.

The control that RLCF needs: the same views, candidates and rewards as its first step, without the update.
"""

from classification.config import some_view_kept
from classification.method import Answer, Method
from classification.seen import Views

GAIN = 100  # of a reward, which lies in [0, 2.5], to be a logit
TIE = 1e-9  # between the logits of classes with the same reward


class BestOfK(Method):
    """The candidate with the highest mean reward over the confident views; the others rank as the policy has them."""

    reads = Method.reads | {"reward", "num_candidates"}
    rules = staticmethod(some_view_kept)

    def answer(self, views: Views) -> Answer:
        """Logits: 100 r of the candidates; below them the mean probability of each other class."""
        context, config = self.context, self.context.config
        assert context.reward is not None
        selected = views.confident(config.views.select_fraction)  # [S]
        logits = views.logits[selected]
        probability = logits.double().softmax(dim=1).mean(dim=0)  # [S, C] -> [C]
        candidates = logits.topk(config.num_candidates, dim=1).indices.unique()  # U of the C
        anchor = views.reward_features(selected)
        texts = [f[candidates].expand(len(selected), -1, -1) for f in context.reward_class_features]  # M x [S, U, D]
        rewards = context.reward.score(anchor, texts).mean(dim=0)  # [S, U] -> [U]
        rank = probability.argsort(descending=True, stable=True).argsort().double()  # [C]; the likelier one of a tie
        found = GAIN * rewards.double() - TIE * rank[candidates] / len(rank)
        answer = (found.min() - 2 + probability).scatter(0, candidates, found)
        extra = {"candidates": [candidates[None]], "rewards": [rewards[None]]}
        return Answer(answer, selected=selected, entropy=views.entropies[selected], extra=extra)
