"""The captioner as it is: ClipCap or CapDec. Source: Mokady et al. 2021 (arXiv 2111.09734), Nukrai et al. 2022."""

from captioning.adapt import describe
from captioning.method import Answer, Method, Picture


class ZeroShot(Method):
    """The caption of a beam search."""

    adapts = False

    def answer(self, picture: Picture) -> Answer:
        """The likeliest of `final_beams` captions."""
        caption, hypotheses = describe(self.context.captioner, picture.features, self.context.config)
        return Answer(caption, hypotheses=hypotheses)
