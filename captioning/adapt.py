"""RLCF for image captioning: adapt to one test image, write its caption, start again.

Source: paper Sec. 3; official caption/capdec_tta.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from captioning.captioner import Captioner
from captioning.config import CaptioningConfig
from captioning.generate import Hypothesis, beam_search, nucleus_sampling
from clipscore.episodic import EpisodicState
from clipscore.objectives import check_finite
from clipscore.policy_gradient import reinforce_loss
from clipscore.reward import ClipReward, subtract_baseline


@dataclass(frozen=True)
class Picture:
    """A test image."""

    pixels: Tensor | list[Tensor]  # as the policy's CLIP sees it [1, 3, H, W], or as each reward model does
    features: Tensor  # by the policy's CLIP [1, D]
    generator: torch.Generator  # of all that is drawn for it; on the CPU


@dataclass
class Proposals:
    """K captions, and what they earned. [K]"""

    captions: list[str]
    rewards: Tensor


@dataclass
class Step(Proposals):
    """One update by reward, from a prefix [1, P, W].

    The tokens are those of the captions read again, not always those that were written: the first word has lost its
    leading space, the stop token is gone, the start token is there. [K, T]
    """

    prefix: Tensor
    proposals: list[Hypothesis]
    advantages: Tensor  # [K]
    tokens: Tensor
    mask: Tensor
    token_losses: Tensor  # [K, T]
    loss: Tensor


@dataclass
class Answer:
    """What a method says of one image; captions in lower case."""

    caption: str
    before: str | None = None  # by the captioner as it starts, where `caption_before` asks for it
    hypotheses: list[Hypothesis] = field(default_factory=list)  # of the beam search for `caption`, best first
    steps: Sequence[Proposals] = ()  # updates, or one round of proposals
    extra: dict[str, Any] = field(default_factory=dict)  # goes into the record: tensors, numbers, texts, lists of them


class RlcfObjective:
    """CLIP reward as feedback: raise the captions that score above the average of the K.

    A caption may be the same as another, or empty: it is scored as the empty text, and its loss is that of the start
    token alone. Of the config `num_candidates`, `sampling`, `decoding`, `pad_in_loss` and the baseline are read.
    """

    def __init__(self, reward: ClipReward, config: CaptioningConfig) -> None:
        self.reward, self.config = reward, config

    def observe(self, image: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """The reward models' features of the image, or of that of each. [1, 3, H, W] -> M x [1, D]"""
        return self.reward.encode_images(image)

    def step(
        self, captioner: Captioner, features: Tensor, observed: Sequence[Tensor], generator: torch.Generator
    ) -> Step:
        """Propose, score, compare: the policy-gradient loss of one update. [1, D], M x [1, D] -> Step"""
        prefix = captioner.prefix(features)  # [1, P, W]; one run of the mapper for all K captions
        proposals = self.propose(captioner, prefix.detach(), generator)
        captions = captioner.decode([proposal.tokens for proposal in proposals])
        texts = [text[None] for text in self.reward.encode_texts(captions)]  # M x [1, K, D]
        rewards = self.reward.score(observed, texts)  # [1, K]
        options = self.config.reward_options
        advantages = subtract_baseline(rewards, options.baseline, options.baseline_over, options.standardize)
        tokens, mask = captioner.tokenize(captions)  # [K, T]
        token_losses = captioner.token_losses(prefix, tokens, mask)  # [K, T]
        nll = caption_nll(token_losses, mask, self.config.pad_in_loss)  # [K]
        loss = reinforce_loss(nll[None], advantages)
        return Step(
            captions, rewards[0], prefix.detach(), proposals, advantages[0], tokens, mask, token_losses.detach(), loss
        )

    def propose(self, captioner: Captioner, prefix: Tensor, generator: torch.Generator) -> list[Hypothesis]:
        """K captions by the policy as it is. [1, P, W] -> K"""
        k, options = self.config.num_candidates, self.config.decoding
        if self.config.sampling == "nucleus":
            return nucleus_sampling(captioner, prefix, k, options, generator)[0]
        return beam_search(captioner, prefix, k, options)[0]


def adapt(
    captioner: Captioner,
    state: EpisodicState,
    objective: RlcfObjective,
    picture: Picture,
    num_steps: int,
    with_before: bool = False,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Answer:
    """Adapt the mapper to one image and write its caption. FloatingPointError: a number on the way is not finite.

    Args:
        captioner: the policy; its mapper is tuned.
        state: restores the mapper, and feeds the momentum buffer afterwards.
        with_before: also write the caption before any adaptation, which costs one more beam search.
        on_step: called after each update, when gradients and new weights are in place.
    """
    before = None
    if with_before:
        state.restore_source()
        before = describe(captioner, picture.features, objective.config)[0]
    observed = objective.observe(picture.pixels)
    with state.episode():
        steps: list[Step] = []
        for _ in range(num_steps):
            step = objective.step(captioner, picture.features, observed, picture.generator)
            step.loss = state.step(step.loss)
            steps.append(step)
            on_step(step)
            check_finite([step.loss for step in steps])
        caption, hypotheses = describe(captioner, picture.features, objective.config)
        steps = state.read(steps)
    return Answer(caption, before, hypotheses, steps)


@torch.no_grad()
def describe(captioner: Captioner, features: Tensor, config: CaptioningConfig) -> tuple[str, list[Hypothesis]]:
    """The caption of an image by the captioner as it is, in lower case, possibly empty; and all hypotheses. [1, D]"""
    hypotheses = beam_search(captioner, captioner.prefix(features), config.final_beams, config.decoding)[0]
    return captioner.decode([hypotheses[0].tokens])[0].lower(), hypotheses


def caption_nll(token_losses: Tensor, mask: Tensor, pad_in_loss: bool) -> Tensor:
    """Mean negative log-probability of a token of each caption, nats. [K, T], mask of real tokens [K, T] -> [K]

    With `pad_in_loss` the mean runs over the padded width, padding included, as in the official code (which ignores
    token 0 while OPT pads with 1); else over the real tokens.
    """
    if pad_in_loss:
        return token_losses.mean(dim=1)
    return (token_losses * mask).sum(dim=1) / mask.sum(dim=1)
