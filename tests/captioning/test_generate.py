"""Beam search and sampling on a language model small enough to follow by hand."""

import itertools
import math

import pytest
import torch

from captioning import generate
from captioning.config import DecodingConfig
from captioning.generate import beam_search, draw_from_nucleus, nucleus_sampling

BOS, A, B, STOP = range(4)
NEXT = torch.tensor(  # probability of the next token (column) after a token (row)
    [[0.04, 0.60, 0.30, 0.06], [0.05, 0.10, 0.35, 0.50], [0.02, 0.05, 0.03, 0.90], [0.25, 0.25, 0.25, 0.25]],
    dtype=torch.float64,
)
PREFIX = torch.zeros(1, 1, 1, dtype=torch.float64)


class TableWriter:
    """A language model whose next token depends on the last one only."""

    bos, stop = BOS, STOP

    def __init__(self, table=NEXT):
        self.table, self.num_advances = table.log(), 0

    def start(self, prefix):
        self.logits = self.table[BOS].expand(len(prefix), -1)
        return self

    def advance(self, rows, tokens):
        assert len(rows) == len(tokens) and rows.max() < len(self.logits)
        self.num_advances += 1
        self.logits = self.table[tokens]


def decoding(**changes):
    return DecodingConfig(**{"max_new_tokens": 2, **changes})


def test_beam_search_by_hand():
    # Open after one token: a .6, b .3; the stop token, third of the candidates, is passed over. After two: a-stop .30
    # and b-stop .27 are finished, ab .21 and aa .06 are open and counted at the end, where the longer ab wins: the
    # start token counts in the length, the stop token does not.
    found = beam_search(TableWriter(), PREFIX, 2, decoding())[0]
    assert [h.tokens for h in found] == [[A, B], [A]]
    assert [h.score for h in found] == pytest.approx([math.log(0.21) / 3, math.log(0.30) / 2], abs=1e-12)
    found = beam_search(TableWriter(), PREFIX, 2, decoding(length_penalty=0.0))[0]
    assert [h.tokens for h in found] == [[A], [B]]
    assert [h.score for h in found] == pytest.approx([math.log(0.30), math.log(0.27)], abs=1e-12)


def test_beam_search_stops_early_and_drops_images_that_are_done():
    writer = TableWriter()
    alone = beam_search(writer, PREFIX, 2, decoding(max_new_tokens=50))
    assert writer.num_advances == 3  # ab and a are finished, and no open beam can reach them
    assert beam_search(TableWriter(), PREFIX.expand(3, -1, -1), 2, decoding(max_new_tokens=50)) == alone * 3


@pytest.mark.parametrize("seed", range(4))
def test_looking_seldom_changes_no_caption(monkeypatch, seed):
    table = torch.randint(1, 4, (12, 12), generator=torch.Generator().manual_seed(seed)).double()  # many ties
    writer, options = TableWriter(table / table.sum(dim=1, keepdim=True)), decoding(max_new_tokens=9, min_length=seed)
    always = beam_search(writer, PREFIX.expand(2, -1, -1), 3, options)
    monkeypatch.setitem(generate.LOOK_INTERVAL, "cpu", 2)
    monkeypatch.setitem(generate.FIRST_LOOK, "cpu", 4)
    assert beam_search(writer, PREFIX.expand(2, -1, -1), 3, options) == always


def test_an_empty_caption_is_a_caption():
    ends = TableWriter(torch.tensor([[0.1, 0.1, 0.1, 0.7]] * 4, dtype=torch.float64))
    assert all(beam_search(ends, PREFIX, num_beams, decoding())[0][0].tokens == [] for num_beams in (1, 2))


def test_the_nucleus_by_hand():
    logits = torch.tensor([0.15, 0.5, 0.05, 0.3], dtype=torch.float64).log().expand(4, -1)
    numbers = torch.tensor([0.0, 0.62, 0.63, 0.999999], dtype=torch.float64)
    # .5 and .3 make up .75 and more; within them token 1 has 5/8
    assert draw_from_nucleus(logits, numbers, 0.75).tolist() == [1, 1, 3, 3]
    assert draw_from_nucleus(logits, numbers, 0.4).tolist() == [1, 1, 1, 1]
    assert draw_from_nucleus(logits, numbers, 1.0).tolist() == [1, 3, 3, 2]
    assert draw_from_nucleus(logits, numbers, 1.0, top_k=1).tolist() == [1, 1, 1, 1]


def test_sampling_is_the_generators_and_stays_in_the_nucleus():
    options = decoding(max_new_tokens=8, top_p=0.84, top_k=None)
    nucleus = {BOS: {A, B}, A: {B, STOP}, B: {STOP}}

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return nucleus_sampling(TableWriter(), PREFIX.expand(2, -1, -1), 20, options, generator)

    captions = draw(0)
    assert captions == draw(0) != draw(1)
    assert [len(group) for group in captions] == [20, 20]
    written = [[BOS, *h.tokens, STOP] for group in captions for h in group]
    assert all(after in nucleus[before] for row in written for before, after in itertools.pairwise(row))
    assert {tuple(row[1:-1]) for row in written} == {(A,), (B,), (A, B)}


@pytest.mark.parametrize("num_beams", [1, 2])
def test_what_cannot_be_searched_is_refused(num_beams):
    broken = TableWriter(NEXT.index_fill(1, torch.tensor([A]), math.nan))
    with pytest.raises(FloatingPointError, match="not finite"):
        beam_search(broken, PREFIX, num_beams, decoding())
    with pytest.raises(FloatingPointError, match="not finite: the language model's best score is nan"):
        nucleus_sampling(broken, PREFIX, 2, decoding(), torch.Generator())
    with pytest.raises(ValueError, match="3 beams need a vocabulary of 6, got 4"):
        beam_search(TableWriter(), PREFIX, 3, decoding())
