"""The captioner's savings give the plain numbers, and its language model is frozen."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from captioning.captioner import Captioner, join_projections
from captioning.mapper import MlpMapper, build_mapper

CAPTIONS = ["a brown dog", "people wait for the train on a busy platform", ""]


def plain_losses(captioner, prefix, tokens, mask):
    """Every caption with its own copy of the prefix, in one pass over all positions."""
    prefix = prefix.repeat_interleave(len(tokens) // len(prefix), dim=0)
    whole = torch.cat([prefix, captioner.embed(tokens)], dim=1)
    seen = torch.cat([mask.new_ones(prefix.shape[:2]), mask], dim=1)
    logits = captioner.lm(inputs_embeds=whole, attention_mask=seen).logits[:, prefix.shape[1] - 1 : -1]
    return F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")


@pytest.mark.parametrize("captions", [CAPTIONS + CAPTIONS[::-1], ["", ""]], ids=["three of each image", "empty ones"])
@pytest.mark.parametrize("kind", ["opt", "gpt2"])
def test_a_shared_prefix_equals_copies(captioner, features, kind, captions):
    model = captioner(kind)
    tokens, mask = model.tokenize(captions)
    weights = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    results = []
    for losses in (plain_losses, lambda model, *inputs: model.token_losses(*inputs)):
        model.mapper.zero_grad()
        values = losses(model, model.prefix(features), tokens, mask)
        (values * weights).sum().backward()
        results.append([values.detach(), *(p.grad for p in model.mapper.parameters())])
    assert results[0][0].shape == tokens.shape
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", ["opt", "gpt2"])
def test_kept_keys_and_values_equal_running_everything_again(captioner, features, kind):
    model = captioner(kind)
    prefix = model.prefix(features)
    text = model.start(prefix)
    text.advance(torch.tensor([1, 0, 1]), torch.tensor([8, 9, 10]))
    text.advance(torch.tensor([2, 2, 1, 0]), torch.tensor([11, 12, 13, 14]))
    rows, tokens = [1, 1, 0, 1], [[2, 10, 11], [2, 10, 12], [2, 9, 13], [2, 8, 14]]
    whole = torch.cat([prefix[rows], model.embed(torch.tensor(tokens))], dim=1)
    logits = model.lm(inputs_embeds=whole).logits[:, -1]
    torch.testing.assert_close(text.logits, logits, rtol=0, atol=1e-12)


def test_joined_projections_give_the_same_losses_gradients_and_logits(captioner, features):
    plain, joined = captioner(), captioner()
    join_projections(joined.lm)
    assert len(list(joined.lm.parameters())) < len(list(plain.lm.parameters()))
    found = []
    for model in (plain, joined):
        tokens, mask = model.tokenize(["a brown dog", "a", "dog dog"])
        losses = model.token_losses(model.prefix(features[:1]), tokens, mask)
        losses.sum().backward()
        text = model.start(model.prefix(features).detach())
        text.advance(torch.tensor([1, 0, 1]), torch.tensor([4, 5, 6]))
        found.append([losses, text.logits, *(parameter.grad for parameter in model.mapper.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


def test_the_language_model_is_frozen(captioner, features):
    model = captioner()
    model.train()
    assert model.mapper.training and not any(module.training for module in model.lm.modules())
    model.token_losses(model.prefix(features), *model.tokenize(CAPTIONS[:2])).sum().backward()
    assert not any(p.requires_grad or p.grad is not None for p in model.lm.parameters())
    assert all(p.grad is not None for p in model.mapper.parameters())


def test_captions_and_tokens(captioner):
    model = captioner()
    tokens, mask = model.tokenize(["a", "", "a a"])
    assert tokens.tolist() == [[2, 8, 1], [2, 1, 1], [2, 8, 36]]  # start token; no end token; padding
    assert mask.tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 1]]
    ids = model.tokenizer(" a man 's dog , the end .", add_special_tokens=False).input_ids
    assert model.decode([[*ids, model.stop], [], [2, 1]]) == ["a man's dog, the end.", "", ""]


def tokenizer(bos, newline):
    """As little of one as the captioner asks about."""
    parts = {"unk_token_id": 3, "pad_token_id": None, "bos_token_id": bos}
    return type("Tokenizer", (), parts | {"__call__": lambda *_, **__: SimpleNamespace(input_ids=newline)})()


def test_what_does_not_fit_is_refused(captioner, features):
    model = captioner()
    with pytest.raises(ValueError, match=r"reads CLIP features of width 32, got \[2, 31\]"):
        model.prefix(features[:, :31])
    with pytest.raises(ValueError, match="makes embeddings of width 32, but the language model reads width 64"):
        Captioner(model.lm, model.tokenizer, MlpMapper(32, 32, 4))
    for newline in ([5, 6], [3], []):
        with pytest.raises(ValueError, match="newline, which must be one token"):
            Captioner(model.lm, tokenizer(2, newline), model.mapper)
    with pytest.raises(ValueError, match="no start token"):
        Captioner(model.lm, tokenizer(None, [35]), model.mapper)
    assert Captioner(model.lm, tokenizer(2, [35]), model.mapper).pad == 2
    with pytest.raises(ValueError, match="8 heads, which do not divide the language model's width 60"):
        build_mapper("transformer", 32, 60, 4, 1)
    with pytest.raises(ValueError, match="mapper must be transformer or mlp, got 'lstm'"):
        build_mapper("lstm", 32, 64, 4, 1)
