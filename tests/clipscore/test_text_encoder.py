"""Fast text encoding against the plain form: all classes, all 77 positions, one graph."""

from __future__ import annotations

import torch

from classification.prompt_learner import PromptLearner, class_prompts
from clipscore import text_encoder
from clipscore.text_encoder import encode_prompts, encode_texts, length_chunks, num_equal_columns

NAMES = ["wok", "great_white_shark", "T-shirt", "fire truck", "Granny_Smith", "sea_urchin"]


def plain_features(clip, learner, context):
    """Every prompt at full length with open_clip's own modules: the oracle."""
    backend = clip.backend
    embeddings = backend.token_embedding(learner.token_ids)
    embeddings = torch.cat(
        [embeddings[:, :1], context.expand(len(NAMES), -1, -1), embeddings[:, 1 + len(context) :]], 1
    )
    x = backend.transformer(embeddings + backend.positional_embedding, attn_mask=backend.attn_mask)
    x = backend.ln_final(x)[torch.arange(len(x)), learner.token_ids.argmax(-1)] @ backend.text_projection
    return x / x.norm(dim=-1, keepdim=True)


def test_features_and_context_gradient_equal_the_plain_form(tiny_clip, monkeypatch):
    monkeypatch.setattr(text_encoder, "CHUNK_POSITIONS", 25)  # several chunks
    clip = tiny_clip("P")
    learner = PromptLearner(clip, NAMES, "a photo of a")
    weights = torch.randn(len(NAMES), 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = encode_prompts(clip, learner.build, learner.context, learner.eot)
    plain = plain_features(clip, learner, learner.context)
    torch.testing.assert_close(ours, plain, atol=1e-13, rtol=0)
    gradients = [torch.autograd.grad((f * weights).sum(), learner.context)[0] for f in (ours, plain)]
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=0)
    assert gradients[0].abs().max() > 1e-3


def test_backward_encodes_only_rows_with_a_gradient(tiny_clip):
    clip = tiny_clip("P")
    learner = PromptLearner(clip, NAMES, "a photo of a")
    built = []

    def build(context, rows):
        built.extend(rows.tolist())
        return learner.build(context, rows)

    features = encode_prompts(clip, build, learner.context, learner.eot)
    built.clear()
    features[[1, 4]].sum().backward()
    assert sorted(built) == [1, 4]


def test_a_bound_on_the_rows_with_a_gradient_changes_no_number(tiny_clip):
    clip = tiny_clip("P")
    learner = PromptLearner(clip, NAMES, "a photo of a")
    weights = torch.randn(2, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients, built = [], []

    def build(context, rows):
        built.append(len(rows))
        return learner.build(context, rows)

    for max_used in (None, 4, 99):
        built.clear()
        features = encode_prompts(clip, build, learner.context, learner.eot, None, learner.num_shared, max_used)
        gradients += torch.autograd.grad((features[[1, 4]] * weights).sum(), learner.context)
        assert sum(built) - len(NAMES) == {None: 2, 4: 4, 99: len(NAMES)}[max_used]
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], atol=1e-13, rtol=0)


def test_known_features_spare_the_forward_pass(tiny_clip):
    clip = tiny_clip("P")
    learner = PromptLearner(clip, NAMES, "a photo of a")
    known = encode_prompts(clip, learner.build, learner.context, learner.eot).detach()
    again = encode_prompts(clip, None, learner.context, learner.eot, known)
    assert torch.equal(again, known) and again.requires_grad and not known.requires_grad


def test_fixed_texts_keep_their_order(tiny_clip, monkeypatch):
    monkeypatch.setattr(text_encoder, "CHUNK_POSITIONS", 20)
    clip = tiny_clip("R1")
    texts = class_prompts("a_photo_of_a", NAMES)
    plain = clip.backend.encode_text(clip.tokenize(texts), normalize=True)
    torch.testing.assert_close(encode_texts(clip, texts), plain, atol=1e-13, rtol=0)


def test_chunks_are_sorted_by_length_and_bounded():
    chunks = length_chunks(torch.tensor([9, 2, 4, 4]), positions=10)
    assert [chunk.tolist() for chunk in chunks] == [[1, 2], [3], [0]]  # lengths 3 and 5: 2 * 5 <= 10; then 5; then 10


def test_equal_columns_end_before_the_end_token():
    end = 9
    ids = torch.tensor([[1, 2, 3, end, 0], [1, 2, 4, 3, end]])
    assert num_equal_columns(ids) == 2
    assert num_equal_columns(ids[:1]) == 3  # one text: all but its end token
    assert num_equal_columns(torch.tensor([[1, 2, 2, 3, end], [1, 3, 2, 3, end]])) == 1
