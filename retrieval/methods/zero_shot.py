"""CLIP as it is: the gallery in the order of its cosines. With `zero_shot_models` their mean over several models."""

import torch

from retrieval.method import Answer, Method, Query


class ZeroShot(Method):
    """The policy's own ranking."""

    reads = frozenset({"zero_shot_models"})
    adapts = False

    def answer(self, query: Query) -> Answer:
        """Cosines, averaged over the models."""
        return Answer(torch.stack([query.scores, *query.member_scores]).mean(dim=0))
