"""Text encoding, with the common beginning of prompts encoded once, against open_clip's own tower on every prompt."""

import pytest
import torch
from open_clip.transformer import LayerScale
from torch import nn
from torch.nn import functional as F

from classification.prompt_learner import PromptLearner
from clipscore import text_encoder
from clipscore.clip_model import unit
from clipscore.lean_blocks import ClassTokenBlock, LeanQuickGelu
from clipscore.shared_prefix import can_share
from clipscore.text_encoder import encode_prompts, length_chunks, num_equal_columns

NAMES = ["wok", "great_white_shark", "T-shirt", "fire truck", "Granny_Smith", "sea_urchin"]
WEIGHTS = torch.randn(len(NAMES), 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def clip(tiny_clip):
    return tiny_clip("P")


@pytest.fixture
def learner(clip):
    return PromptLearner(clip, NAMES, "a photo of a")


def gradient(features, learner):
    return torch.autograd.grad((features * WEIGHTS.to(features.dtype)).sum(), learner.context)[0]


def features_and_gradient(clip, learner, num_shared=0):
    features = encode_prompts(clip, learner.build, learner.context, learner.eot, num_shared=num_shared)
    return features.detach(), gradient(features, learner)


def test_features_and_context_gradient_equal_the_plain_form(clip, learner, monkeypatch):
    monkeypatch.setattr(text_encoder, "CHUNK_POSITIONS", 25)  # several chunks
    backend, ids, context = clip.backend, learner.token_ids, learner.context
    embedded = backend.token_embedding(ids)
    embedded = torch.cat([embedded[:, :1], context.expand(len(NAMES), -1, -1), embedded[:, 1 + len(context) :]], 1)
    x = backend.transformer(embedded + backend.positional_embedding, attn_mask=backend.attn_mask)
    x = backend.ln_final(x)[torch.arange(len(x)), ids.argmax(-1)] @ backend.text_projection
    plain = x / x.norm(dim=-1, keepdim=True)  # all classes, all 77 positions, one graph
    features, found = features_and_gradient(clip, learner)
    torch.testing.assert_close(features, plain.detach(), atol=1e-13, rtol=0)
    torch.testing.assert_close(found, gradient(plain, learner), atol=1e-12, rtol=0)
    assert found.abs().max() > 1e-3


def test_backward_encodes_only_rows_with_a_gradient_and_a_bound_on_them_changes_no_number(clip, learner):
    gradients, built = [], []

    def build(context, rows):
        built.extend(rows.tolist())
        return learner.build(context, rows)

    for max_used in (None, 4, 99):
        built.clear()
        features = encode_prompts(clip, build, learner.context, learner.eot, None, learner.num_shared, max_used)
        assert sorted(built) == list(range(len(NAMES)))
        built.clear()
        gradients += torch.autograd.grad((features[[1, 4]] * WEIGHTS[:2]).sum(), learner.context)
        assert {1, 4} <= set(built) and len(built) == {None: 2, 4: 4, 99: len(NAMES)}[max_used]
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], atol=1e-13, rtol=0)


def test_chunks_are_sorted_by_length_and_bounded():
    chunks = length_chunks(torch.tensor([9, 2, 4, 4]), positions=10)
    assert [chunk.tolist() for chunk in chunks] == [[1, 2], [3], [0]]  # lengths 3 and 5: 2 * 5 <= 10; then 5; then 10


def test_equal_columns_end_before_the_end_token():
    end = 9
    ids = torch.tensor([[1, 2, 3, end, 0], [1, 2, 4, 3, end]])
    assert num_equal_columns(ids) == 2
    assert num_equal_columns(ids[:1]) == 3  # one text: all but its end token
    assert num_equal_columns(torch.tensor([[1, 2, 2, 3, end], [1, 3, 2, 3, end]])) == 1


def test_layer_scales_are_kept_and_other_blocks_are_not_shared(clip, learner):
    assert learner.num_shared == 5
    unscaled = features_and_gradient(clip, learner, 5)[0]
    for number, block in enumerate(clip.text.transformer.resblocks):
        block.ls_1, block.ls_2 = (LayerScale(64, 0.5 + 0.1 * number + scale).double() for scale in (0, 0.3))
    shared, plain = (features_and_gradient(clip, learner, number)[0] for number in (5, 0))
    torch.testing.assert_close(shared, plain, atol=1e-13, rtol=0)
    assert not torch.allclose(shared, unscaled, atol=1e-3)

    class OtherBlock(type(clip.text.transformer.resblocks[0])):
        pass

    assert can_share(clip.text.transformer) and not can_share(nn.Identity())
    clip.text.transformer.resblocks[1].__class__ = OtherBlock
    assert not can_share(clip.text.transformer)
    assert torch.equal(*(features_and_gradient(clip, learner, number)[0] for number in (5, 0)))


def test_frozen_weights_cast_once_change_no_bit_and_leave_what_is_tuned_or_in_fp32(clip):
    learner = PromptLearner(clip.float(), NAMES, "a photo of a")
    images = torch.randn(2, 3, 32, 32)
    exact = features_and_gradient(clip, learner, learner.num_shared)
    clip.autocast_dtype = torch.bfloat16

    def numbers():
        with torch.no_grad():
            features = clip.encode_images(images)
        return features, *features_and_gradient(clip, learner, learner.num_shared)

    before = numbers()
    assert 0 < (before[1] - exact[0]).abs().max() < 0.05
    tuned = clip.visual.conv1.weight.requires_grad_()
    clip.cast_frozen()
    assert all(torch.equal(*pair) and pair[0].dtype == torch.float32 for pair in zip(before, numbers(), strict=True))
    types = {name: parameter.dtype for name, parameter in clip.backend.named_parameters()}
    assert clip.visual.conv1.weight is tuned and tuned.dtype == clip.dtype == torch.float32
    kept = ("ln", "embedding", "logit_scale", "conv1")
    assert types.pop("visual.positional_embedding") == torch.bfloat16
    assert all((dtype == torch.float32) == any(word in name for word in kept) for name, dtype in types.items())


def test_on_a_cpu_frozen_image_weights_that_fp16_holds_are_kept_in_it_and_change_no_bit(clip):
    images = torch.randn(2, 3, 32, 32)
    clip.half().float().visual.conv1.weight[0, 0, 0, 0] = 1 / 3
    first, second, *_ = clip.visual.transformer.resblocks
    assert type(second) is ClassTokenBlock and type(first.mlp.gelu) is LeanQuickGelu
    tuned = first.mlp.c_fc.weight.requires_grad_()
    before = clip.encode_images(images).detach()
    clip.cast_frozen()
    assert torch.equal(clip.encode_images(images), before)
    types = {name: parameter.dtype for name, parameter in clip.named_parameters()}
    halves = {name.split(".parametrizations")[0] for name, dtype in types.items() if dtype == torch.float16}
    assert first.mlp.c_fc.weight is tuned and second.mlp.c_fc.weight.dtype == torch.float32
    block = "backend.visual.transformer.resblocks.1."
    assert halves >= {f"{block}{name}" for name in ("attn", "attn.out_proj", "mlp.c_fc", "mlp.c_proj")}
    assert not any(word in name for name in halves for word in ("conv1", "ln", "embedding", "backend.transformer"))


def test_unit_length_is_torch_s_and_no_direction_is_not_a_number():
    x = torch.randn(3, 8, requires_grad=True)
    ours, theirs = unit(x), F.normalize(x, dim=-1)
    gradients = [torch.autograd.grad((y * WEIGHTS[:3, :8].float()).sum(), x)[0] for y in (ours, theirs)]
    assert torch.equal(ours, theirs) and torch.equal(*gradients) and unit(torch.zeros(2, 4)).isnan().all()


def test_without_its_text_tower_a_model_encodes_images_only(clip):
    images = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    before = clip.encode_images(images)
    clip.free_text_tower()
    assert torch.equal(clip.encode_images(images), before)
    assert clip.text.token_embedding.weight.is_meta and clip.visual.conv1.weight.device.type == "cpu"
    with pytest.raises(RuntimeError, match="gave its text tower back"):
        clip.encode_token_ids(clip.tokenize(["wok"]))
