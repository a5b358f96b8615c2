"""Best of K: the caption that the reward model likes best, of a beam search's K. No gradient.

The control that RLCF needs: the same captions and rewards as its first step, without the update.
"""

import torch

from captioning.adapt import Proposals
from captioning.generate import beam_search
from captioning.method import Answer, Method, Picture


class BestOfK(Method):
    """The highest reward; of equal captions the likelier one."""

    reads = Method.reads | {"reward", "num_candidates"}

    @torch.no_grad()
    def answer(self, picture: Picture) -> Answer:
        """One round of proposals and their rewards."""
        context, config = self.context, self.context.config
        assert context.reward is not None
        prefix = context.captioner.prefix(picture.features)  # [1, P, W]
        hypotheses = beam_search(context.captioner, prefix, config.num_candidates, config.decoding)[0]
        captions = context.captioner.decode([hypothesis.tokens for hypothesis in hypotheses])
        texts = [features[None] for features in context.reward.encode_texts(captions)]  # M x [1, K, D]
        rewards = context.reward.score(context.reward.encode_images(picture.pixels), texts)[0]  # [K]
        best = captions[int(rewards.argsort(descending=True, stable=True)[0])]
        return Answer(best.lower(), hypotheses=hypotheses, steps=[Proposals(captions, rewards)])
