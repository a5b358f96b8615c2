"""One captioning step by the official schedule of work: the oracle of the fast form.

The beam search computes the whole sequence of all K beams again for every token; for the loss, the mapper runs on K
copies of one feature, the K captions go through the language model with their prefixes, and its weights get gradients
that nobody reads. Source: official caption/capdec_tta.py, caption/image_llm/models/generate_opt.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captioning.adapt import caption_nll
from captioning.captioner import Captioner
from captioning.config import CaptioningConfig
from captioning.generate import beam_search
from clipscore.episodic import EpisodicState
from clipscore.policy_gradient import reinforce_loss
from clipscore.reward import subtract_baseline
from clipscore.task import StageTimes


@dataclass
class Answer:
    """Per step the K captions that were proposed and the loss; and the mapper, which has the last step's gradients."""

    captions: list[list[str]]
    losses: list[float]
    mapper: nn.Module


class PlainStep:
    """Updates by the official schedule of work.

    Args:
        captioner: one of its own; the language model's weights get gradients.
        state: restores the mapper.
        config: of the run.
        rewards: of the K captions. [K]
        times: clocks of the stages.
    """

    def __init__(
        self, captioner: Captioner, state: EpisodicState, config: CaptioningConfig, rewards: Tensor, times: StageTimes
    ) -> None:
        self.captioner, self.state, self.config, self.rewards = captioner, state, config, rewards
        self.times = times
        self.bos, self.stop = captioner.bos, captioner.stop
        captioner.lm.requires_grad_(True)

    def run(self, features: Tensor, steps: int) -> Answer:
        """Adapt to one image. [1, D]"""
        with self.state.episode():
            done = [self._step(features) for _ in range(steps)]
        return Answer([captions for captions, _ in done], [loss for _, loss in done], self.captioner.mapper)

    def start(self, prefix: Tensor) -> PlainContinuation:
        """Begin to write all K beams. [1, P, W]"""
        return PlainContinuation(self.captioner, prefix.repeat(self.config.num_candidates, 1, 1))

    def _step(self, features: Tensor) -> tuple[list[str], float]:
        captioner, k = self.captioner, self.config.num_candidates
        copies = features.repeat(k, 1)  # [1, D] -> [K, D]
        with self.times.stage("text"), torch.no_grad():
            proposals = beam_search(self, captioner.prefix(features), k, self.config.decoding)[0]
        captions = captioner.decode([proposal.tokens for proposal in proposals])
        tokens, mask = captioner.tokenize(captions)  # [K, T]
        with self.times.stage("policy"):
            losses = self._token_losses(captioner.prefix(copies), tokens, mask)
        loss = reinforce_loss(caption_nll(losses, mask, True)[None], subtract_baseline(self.rewards[None]))
        with self.times.stage("update"):
            captioner.lm.zero_grad(set_to_none=True)
            self.state.step(loss)
        return captions, float(loss.detach())

    def _token_losses(self, prefix: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """[K, P, W], [K, T], [K, T] -> [K, T]"""
        whole = torch.cat([prefix, self.captioner.embed(tokens)], dim=1)  # [K, P + T, W]
        seen = torch.cat([mask.new_ones(prefix.shape[:2]), mask], dim=1)
        logits = _logits(self.captioner, whole, seen)[:, prefix.shape[1] - 1 : -1]  # [K, P + T, V] -> [K, T, V]
        return F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view(tokens.shape)


class PlainContinuation:
    """Texts in the making without kept keys and values: every token computes all positions of all beams."""

    def __init__(self, captioner: Captioner, prefix: Tensor) -> None:
        self.captioner, self.prefix = captioner, prefix
        self.tokens = torch.full((len(prefix), 1), captioner.bos, device=prefix.device)  # [K, 1]
        self.logits = self._next()[:1]  # the beams are still one text

    def advance(self, rows: Tensor, tokens: Tensor) -> None:
        """Go on with these texts, each with one more token. int64 [K], [K]"""
        self.tokens = torch.cat([self.tokens[rows], tokens[:, None]], dim=1)
        self.logits = self._next()

    def _next(self) -> Tensor:
        whole = torch.cat([self.prefix, self.captioner.embed(self.tokens)], dim=1)  # [K, P + T, W]
        return _logits(self.captioner, whole, self.tokens.new_ones(whole.shape[:2]))[:, -1]  # [K, V]


def _logits(captioner: Captioner, embeddings: Tensor, mask: Tensor) -> Tensor:
    """[K, L, W], [K, L] -> [K, L, V]"""
    dtype = captioner.autocast_dtype
    with torch.autocast(embeddings.device.type, dtype=dtype, enabled=dtype is not None):
        return captioner.lm(inputs_embeds=embeddings, attention_mask=mask, use_cache=False).logits.float()
