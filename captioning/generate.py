"""Write captions: beam search, greedy, and nucleus sampling, with kept keys and values.

The beam search chooses what transformers 4.25 and 4.26 choose, on which the released numbers rest; newer versions score
and stop differently. Source: official caption/image_llm/models/generate_opt.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from captioning.config import DecodingConfig
from clipscore.models.devices import to_host

LOOK_INTERVAL = {"cuda": 4}  # tokens between two looks at whether a beam search has ended: the host waits for each
FIRST_LOOK = {"cuda": 12}  # a caption is seldom shorter


@dataclass(frozen=True)
class Hypothesis:
    """Tokens of a caption, without the start and the stop token; the score that ranked it, in beam search only."""

    tokens: list[int]
    score: float | None = None


class Continuation(Protocol):
    """Texts in the making; see `captioning.captioner.Continuation`."""

    logits: Tensor  # [R, V]

    def advance(self, rows: Tensor, tokens: Tensor) -> None:
        """Go on with these texts, each with one more token. int64 [R], [R]"""


class Writer(Protocol):
    """What writes: `captioning.captioner.Captioner`."""

    bos: int
    stop: int

    def start(self, prefix: Tensor) -> Continuation: ...


@torch.no_grad()
def beam_search(writer: Writer, prefix: Tensor, num_beams: int, options: DecodingConfig) -> list[list[Hypothesis]]:
    """The most likely captions of each image; greedy, without scores, when there is one beam.

    Of the options `max_new_tokens`, the penalties and `min_length` are read. [B, P, W] -> K captions per image, best
    first. ValueError: fewer than 2K tokens in the vocabulary; FloatingPointError: a score is not finite.
    """
    if num_beams == 1:
        return _write(writer, prefix, options, lambda logits: logits.argmax(dim=1))
    text = writer.start(prefix)
    vocabulary = text.logits.shape[1]
    if vocabulary < 2 * num_beams:
        raise ValueError(f"{num_beams} beams need a vocabulary of {2 * num_beams}, got {vocabulary} tokens")
    searches = [_Search(num_beams, writer, options.length_penalty) for _ in prefix]
    active, found = searches, []  # found: the best continuations of each token, not yet looked at
    written = torch.full((len(prefix), 1), writer.bos, device=prefix.device)  # of each row, the start token first
    rows, sums = written[:, 0], text.logits.new_zeros(len(prefix), 1)  # log-probability of each beam. [images, beams]
    interval, first = (looks.get(prefix.device.type, 1) for looks in (LOOK_INTERVAL, FIRST_LOOK))
    for number in range(options.max_new_tokens):
        if number:
            text.advance(rows, written[:, -1])
        scores = penalize(text.logits.log_softmax(dim=1), written, writer, options)  # [R, V]
        scores = (scores + sums.view(-1, 1)).view(len(active), -1)  # [R, V] -> [images, beams * V]
        totals, choices = scores.topk(2 * num_beams, dim=1)
        found.append((totals, choices))  # [images, 2 K], twice
        # The host takes the same K from `found`, whenever it looks: the best that do not stop.
        stops = (choices % vocabulary == writer.stop).view(torch.uint8)
        open_ones = stops.argsort(dim=1, stable=True)[:, :num_beams]
        first_rows = torch.arange(0, len(written), sums.shape[1], device=prefix.device) if len(active) > 1 else None
        sums, choices = totals.gather(1, open_ones), choices.gather(1, open_ones)  # [images, K]
        rows, tokens = choices // vocabulary, choices % vocabulary
        rows = rows if first_rows is None else rows + first_rows[:, None]
        num = number + 1
        if (num >= first and num % interval == 0) or num == options.max_new_tokens:
            for all_totals, all_choices in to_host(found):
                for search, totals, best in zip(active, all_totals.tolist(), all_choices.tolist(), strict=True):
                    search.extend(totals, best, vocabulary)
            stays = [place for place, search in enumerate(active) if not search.done]
            if not stays:
                break
            if len(stays) < len(active):
                rows, tokens, sums = rows[stays], tokens[stays], sums[stays]
            active, found = [active[place] for place in stays], []
        rows, tokens = rows.flatten(), tokens.view(-1, 1)
        if options.repetition_penalty == 1:  # then of all that was written only the last and the number matter
            written = tokens.expand(-1, num + 1)
        else:
            written = torch.cat([written[rows], tokens], dim=1)
    return [search.result() for search in searches]


class _Search:
    """Beam search for one image: K open beams, and the K best finished captions."""

    def __init__(self, num_beams: int, writer: Writer, length_penalty: float) -> None:
        self.num_beams, self.writer, self.length_penalty = num_beams, writer, length_penalty
        self.beams: list[list[int]] = [[writer.bos]]  # one open beam, the start token, then K
        self.sums = [0.0]  # log-probability of each
        self.finished: list[tuple[float, list[int]]] = []  # score and tokens
        self.done = False

    def extend(self, totals: Sequence[float], choices: Sequence[int], vocabulary: int) -> None:
        """Take the 2K best continuations, best first, unless it is done."""
        if self.done:
            return
        _check_finite(totals[0])
        old, self.beams, self.sums = self.beams, [], []
        for rank, (total, choice) in enumerate(zip(totals, choices, strict=True)):
            parent, token = divmod(choice, vocabulary)
            if token != self.writer.stop:
                self.beams.append([*old[parent], token])
                self.sums.append(total)
            elif rank < self.num_beams:  # a stop token further down is passed over
                self._finish(old[parent], total)
            if len(self.beams) == self.num_beams:
                break
        attainable = totals[0] / len(old[0]) ** self.length_penalty
        self.done = len(self.finished) == self.num_beams and min(self.finished, key=_score)[0] >= attainable

    def result(self) -> list[Hypothesis]:
        """The K best captions, best first; of equal scores the later one. Open beams count as finished at the end."""
        if not self.done:
            for beam, total in zip(self.beams, self.sums, strict=True):
                self._finish(beam, total)
        ranked = sorted(reversed(self.finished), key=_score, reverse=True)
        return [Hypothesis(tokens, score) for score, tokens in ranked]

    def _finish(self, beam: list[int], total: float) -> None:
        # The length counts the start token but not the stop token.
        score = total / len(beam) ** self.length_penalty
        if len(self.finished) == self.num_beams:
            worst = min(self.finished, key=_score)
            if score <= worst[0]:
                return
            self.finished.remove(worst)
        self.finished.append((score, beam[1:]))


def _score(finished: tuple[float, list[int]]) -> float:
    return finished[0]


@torch.no_grad()
def nucleus_sampling(
    writer: Writer, prefix: Tensor, num_captions: int, options: DecodingConfig, generator: torch.Generator
) -> list[list[Hypothesis]]:
    """Captions drawn token by token from the likeliest tokens. [B, P, W] -> K per image, in the order drawn

    Of the options `max_new_tokens`, `repetition_penalty`, `min_length`, `top_k` and `top_p` are read. The generator is
    on the CPU, so that all devices draw the same numbers. FloatingPointError: a score is not finite.
    """

    def draw(logits: Tensor) -> Tensor:
        numbers = torch.rand(len(logits), generator=generator, dtype=torch.float64)
        return draw_from_nucleus(logits, numbers, options.top_p, options.top_k)

    return _write(writer, prefix, options, draw, num_captions)


def draw_from_nucleus(logits: Tensor, numbers: Tensor, top_p: float, top_k: int | None = None) -> Tensor:
    """One token per row, from the fewest likeliest tokens that together have a share of at least `top_p`, in (0, 1].

    `numbers` are uniform in [0, 1), on the CPU; `top_k` first drops all but so many of the likeliest tokens. The shares
    are summed up on the CPU: CUDA has no deterministic way to. [R, V], [R] -> int64 token ids [R]
    """
    best = logits.topk(min(top_k or logits.shape[1], logits.shape[1]), dim=1)  # [R, V] -> [R, N], sorted
    p = best.values.cpu().softmax(dim=1)
    reached = p.cumsum(dim=1)
    size = (reached - p < top_p).sum(dim=1, keepdim=True).clamp(min=1)  # [R, 1]; of NaN, which the caller refuses, 0
    share = reached.gather(1, size - 1)
    place = (reached <= numbers.to(p)[:, None] * share).sum(dim=1, keepdim=True).minimum(size - 1)
    return best.indices.gather(1, place.to(logits.device)).squeeze(1)


def penalize(
    scores: Tensor, written: Tensor | Sequence[Sequence[int]], writer: Writer, options: DecodingConfig
) -> Tensor:
    """Scores of the next token with the repetition penalty and the least length; logits or log-probabilities. -> [R, V]

    A token that was written has its score divided by the penalty if positive, multiplied if negative. `written` are the
    tokens of each row so far, the start token first. [R, V]
    """
    if options.repetition_penalty != 1:
        seen = torch.as_tensor(written, device=scores.device)
        old = scores.gather(1, seen)
        new = torch.where(old < 0, old * options.repetition_penalty, old / options.repetition_penalty)
        scores = scores.scatter(1, seen, new)
    if len(written[0]) < options.min_length:
        scores = scores.index_fill(1, torch.full((1,), writer.stop, device=scores.device), -math.inf)
    return scores


def _write(
    writer: Writer, prefix: Tensor, options: DecodingConfig, choose: Callable[[Tensor], Tensor], copies: int = 1
) -> list[list[Hypothesis]]:
    """Captions one token at a time; a caption that has stopped takes no part in the rest. [B, P, W] -> B x copies"""
    text = writer.start(prefix)
    logits = text.logits.repeat_interleave(copies, dim=0)  # [B, V] -> [R, V]
    captions = [[writer.bos] for _ in range(len(prefix) * copies)]
    going = captions  # those that have not stopped
    rows = [caption // copies for caption in range(len(captions))]  # the row of the text that each goes on from
    for number in range(options.max_new_tokens):
        if number:
            last = torch.tensor([rows, [caption[-1] for caption in going]])
            text.advance(*last.to(prefix.device, non_blocking=True))
            logits, rows = text.logits, list(range(len(going)))
        scores = penalize(logits, going, writer, options)
        chosen = torch.stack([scores.amax(dim=1).double(), choose(scores).double()]).cpu()  # in one copy
        _check_finite(*chosen[0].tolist())
        tokens = chosen[1].long().tolist()
        stays = [place for place, token in enumerate(tokens) if token != writer.stop]
        for place in stays:
            going[place].append(tokens[place])
        going, rows = [going[place] for place in stays], [rows[place] for place in stays]
        if not going:
            break
    groups = [captions[first : first + copies] for first in range(0, len(captions), copies)]
    return [[Hypothesis(caption[1:]) for caption in group] for group in groups]


def _check_finite(*best: float) -> None:
    for score in best:
        if not math.isfinite(score):
            raise FloatingPointError(f"not finite: the language model's best score is {score}; lower lr or use fp32")
