"""CLIP as it is; or the mean of several models' logits. Source: Radford et al. 2021 (arXiv 2103.00020)."""

import torch

from classification.method import Answer, Method
from classification.seen import Views


class ZeroShot(Method):
    """The policy's own answer for the plain image."""

    reads = frozenset({"zero_shot_models"})
    adapts = False

    def answer(self, views: Views) -> Answer:
        """Logits of view 0 by all models, averaged."""
        others = [Views(views.pixels, member).logits[0] for member in self.context.members]
        logits = torch.stack([views.logits[0], *others]).mean(dim=0)  # [C]
        return Answer(logits, before=logits)
