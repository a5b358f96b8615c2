"""The common beginning of prompts, encoded once, against open_clip's own tower on every prompt."""

from __future__ import annotations

import copy

import open_clip
import pytest
import torch
from open_clip.transformer import LayerScale
from torch import nn

from classification.prompt_learner import PromptLearner
from clipscore.clip_model import ClipModel
from clipscore.shared_prefix import can_share
from clipscore.text_encoder import encode_prompts

NAMES = ["wok", "great_white_shark", "T-shirt", "fire truck", "Granny_Smith", "sea_urchin"]
WEIGHTS = torch.randn(len(NAMES), 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def features_and_gradient(clip, learner, num_shared):
    features = encode_prompts(clip, learner.build, learner.context, learner.eot, num_shared=num_shared)
    weights = WEIGHTS.to(features.dtype)
    return features.detach(), torch.autograd.grad((features * weights).sum(), learner.context)[0]


@pytest.mark.parametrize(("position", "num_shared"), [("end", 5), ("middle", 3), ("front", 1)])
def test_sharing_changes_no_feature_and_no_gradient(tiny_clip, position, num_shared):
    clip = tiny_clip("P")
    learner = PromptLearner(clip, NAMES, "a photo [CLS] of a" if position == "middle" else "a photo of a", position)
    assert learner.num_shared == num_shared
    shared, plain = (features_and_gradient(clip, learner, number) for number in (learner.num_shared, 0))
    torch.testing.assert_close(shared[0], plain[0], atol=1e-13, rtol=0)
    torch.testing.assert_close(shared[1], plain[1], atol=1e-12, rtol=0)
    assert plain[1].abs().max() > 1e-3


def test_layer_scales_are_kept_and_other_blocks_are_not_shared(tiny_clip):
    clip = tiny_clip("P")
    learner = PromptLearner(clip, NAMES, "a photo of a")
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


def test_candidates_in_fp32_are_those_of_the_plain_form(tiny_clip):
    clip = tiny_clip("P").float()
    learner = PromptLearner(clip, NAMES, "a photo of a")
    images = nn.functional.normalize(torch.randn(64, 32, generator=torch.Generator().manual_seed(1)), dim=1)
    shared, plain = (features_and_gradient(clip, learner, number) for number in (5, 0))
    assert torch.equal(*((images @ features.T).topk(3, dim=1).indices for features, _ in (shared, plain)))
    torch.testing.assert_close(shared[1], plain[1], atol=1e-5, rtol=1e-5)


def test_under_autocast_the_features_keep_their_type_and_nearly_their_value(tiny_clip):
    clip = tiny_clip("P").float()
    learner = PromptLearner(clip, NAMES, "a photo of a")
    exact = features_and_gradient(clip, learner, 5)
    clip.autocast_dtype = torch.bfloat16
    half = features_and_gradient(clip, learner, 5)
    assert half[0].dtype == half[1].dtype == torch.float32
    assert 0 < (half[0] - exact[0]).abs().max() < 0.05


def test_lean_blocks_give_the_numbers_and_gradients_of_open_clips_own():
    torch.manual_seed(0)
    own = open_clip.create_model("ViT-S-32", force_quick_gelu=True).double()
    lean = copy.deepcopy(own)
    clips = [ClipModel(b, "x", "x", open_clip.tokenize, lean=b is lean).eval() for b in (own, lean)]
    assert list(own.state_dict()) == list(lean.state_dict())
    assert all((type(a) is not type(b)) for a, b in zip(
        (own.visual.transformer.resblocks[-1], own.visual.transformer.resblocks[0].mlp.gelu),
        (lean.visual.transformer.resblocks[-1], lean.visual.transformer.resblocks[0].mlp.gelu), strict=True,
    ))  # fmt: skip
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    features = [clip.encode_images(images) for clip in clips]
    torch.testing.assert_close(*features, atol=1e-13, rtol=0)
    with torch.no_grad():  # another form of the activation
        torch.testing.assert_close(clips[1].encode_images(images), features[0], atol=1e-13, rtol=0)
    for feature in features:
        (feature * torch.arange(feature.numel(), dtype=torch.float64).view_as(feature)).sum().backward()
    for (name, ours), theirs in zip(lean.visual.named_parameters(), own.visual.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-10, rtol=1e-9, msg=name)


def test_frozen_weights_cast_once_change_no_bit_and_leave_what_is_tuned_or_in_fp32(tiny_clip):
    clip = tiny_clip("P").float()
    clip.autocast_dtype = torch.bfloat16
    images, learner = torch.randn(2, 3, 32, 32), PromptLearner(clip, NAMES, "a photo of a")

    def numbers():
        with torch.no_grad():
            features = clip.encode_images(images)
        return features, *features_and_gradient(clip, learner, learner.num_shared)

    before = numbers()
    tuned = clip.visual.conv1.weight.requires_grad_()
    clip.cast_frozen()
    assert all(torch.equal(*pair) and pair[0].dtype == torch.float32 for pair in zip(before, numbers(), strict=True))
    types = {name: parameter.dtype for name, parameter in clip.backend.named_parameters()}
    assert clip.visual.conv1.weight is tuned and tuned.dtype == clip.dtype == torch.float32
    kept = ("ln", "embedding", "logit_scale", "conv1")
    assert all((dtype == torch.float32) == any(word in name for word in kept) for name, dtype in types.items())


def test_without_its_text_tower_a_model_encodes_images_only(tiny_clip):
    clip = tiny_clip("P")
    images = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    before = clip.encode_images(images)
    clip.free_text_tower()
    assert torch.equal(clip.encode_images(images), before)
    assert clip.text.token_embedding.weight.is_meta and clip.visual.conv1.weight.device.type == "cpu"
    with pytest.raises(RuntimeError, match="gave its text tower back"):
        clip.encode_token_ids(clip.tokenize(["wok"]))
