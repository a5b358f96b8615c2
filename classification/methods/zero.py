"""ZERO: the confident views vote.

Source: Farina et al. 2024 (arXiv 2405.18330); official github.com/FarinaMatteo/zero, ttas/zero.py, utils/tools.py.
"""

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from classification.method import Answer, Method
from classification.seen import Views
from clipscore.config.fields import StrictModel


@dataclass
class Count:
    """Votes of each class [C], and how a tie was decided."""

    votes: Tensor  # the class that a tie was decided for has 1 more
    tied: Tensor  # the classes with the most votes, if there are several [T]
    decided_for: int | None = None
    by_view: bool = False  # because another view's first choice is one of them


class Zero(Method):
    """The class with the most votes; the answer's softmax is the share of the votes."""

    class Options(StrictModel):
        """How votes are counted."""

        vote_temperature: float = Field(
            2.0**-10,
            gt=0,
            description="of a view's vote; official: the machine epsilon of its cosines' type, here that of float16",
        )
        tie_mask_as_released: bool = Field(
            True, description="where no other view decides a tie, the released code masks other classes than it means"
        )

    def answer(self, views: Views) -> Answer:
        """The logarithm of each class's share of the votes."""
        votes = self.count(views).votes
        selected, shares = views.confident(self.options.views.select_fraction), votes / votes.sum()
        logits = shares.clamp(min=torch.finfo(shares.dtype).tiny).log()
        return Answer(logits, selected=selected, entropy=views.entropies[selected])

    def count(self, views: Views) -> Count:
        """The votes of the confident views; the others, from the most confident on, decide a tie."""
        options = self.options
        cosines = views.features @ views.class_features.T  # [N, C]
        ballots = self.ballots(views, cosines, views.confident(options.views.select_fraction))  # [S, C]
        order = views.confident(1.0)
        return count_votes(cosines, ballots, order, options.vote_temperature, options.tie_mask_as_released)

    def ballots(self, views: Views, cosines: Tensor, selected: Tensor) -> Tensor:
        """Cosines by which the selected views vote. [N, C], [S] -> [S, C]"""
        return cosines[selected]


def count_votes(
    cosines: Tensor, ballots: Tensor, order: Tensor, temperature: float, mask_as_released: bool = True
) -> Count:
    """Sum the votes of the selected views, and decide a tie.

    Args:
        cosines: of all views by the policy. [N, C]
        ballots: cosines by which the selected views vote. [S, C]
        order: all views by rising entropy, so that the selected are the first. [N]
        temperature: the lower, the nearer is a vote to a whole one for one class.
        mask_as_released: if no view's first choice is a tied class, the first of the other views decides without the
            classes C - 1 - t for each tied t; False: among the tied classes.
    """
    votes = (ballots / temperature).softmax(dim=1).sum(dim=0)  # [S, C] -> [C]
    tied = (votes == votes.max()).nonzero().squeeze(1)
    if len(tied) == 1:
        return Count(votes, tied[:0])
    others = cosines[order[len(ballots) :]] if len(ballots) < len(order) else cosines[order]
    choices = others.argmax(dim=1)
    decisive = choices[torch.isin(choices, tied)]
    if len(decisive):
        decided_for = int(decisive[0])
    else:
        masked = torch.zeros_like(others[0], dtype=torch.bool).scatter(0, tied, True)
        masked = masked.flip(0) if mask_as_released else ~masked
        decided_for = int(others[0].masked_fill(masked, -torch.inf).argmax())
    votes[decided_for] += 1
    return Count(votes, tied, decided_for, by_view=len(decisive) > 0)
