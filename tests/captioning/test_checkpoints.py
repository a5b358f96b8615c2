"""Checkpoints fit exactly, or what does not fit is named."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from captioning.checkpoints import load_lm, load_mapper, read_checkpoint
from captioning.mapper import build_mapper

SIZES = {"clip_width": 8, "lm_width": 16, "prefix_length": 2, "num_layers": 1}


def state_of(kind="transformer", **changes):
    return dict(build_mapper(kind, *{**SIZES, **changes}.values()).state_dict())


def test_a_checkpoint_is_read_and_loaded(tmp_path):
    lm = GPT2LMHeadModel(GPT2Config(vocab_size=10, n_embd=16, n_layer=1, n_head=2, n_positions=8))
    mapper, stored = state_of(), {name: tensor.clone() for name, tensor in lm.state_dict().items()}
    stored["transformer.wte.weight"] = stored["lm_head.weight"] = torch.full((10, 16), 2.0)
    constants = {"transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8)}  # as older versions of transformers store it
    state = {f"clip_project.{name}": tensor for name, tensor in mapper.items()}
    state |= {f"llm.llm.{name}": tensor for name, tensor in (stored | constants).items()}
    torch.save({"epoch": 9, "state_dict": state, "optimizer": {}}, tmp_path / "ckpt-latest.pt")
    mapper_state, lm_state = read_checkpoint(tmp_path)
    loaded = load_mapper("transformer", mapper_state, **SIZES)
    assert all(torch.equal(tensor, mapper[name]) for name, tensor in loaded.state_dict().items())
    load_lm(lm, lm_state)
    assert lm.transformer.wte.weight.eq(2).all() and lm.lm_head.weight.eq(2).all()
    del lm_state["lm_head.weight"]  # shares the memory of another tensor
    load_lm(lm, lm_state)
    load_lm(lm, {})
    with pytest.raises(ValueError, match=r"does not fit the language model: missing transformer\.wpe\.weight"):
        load_lm(lm, {name: tensor for name, tensor in lm_state.items() if "wpe" not in name})


def test_the_two_lengths_of_a_mapper_are_apart():
    state = state_of(clip_length=5)
    assert state["linear.weight"].shape == (5 * 16, 8) and state["prefix_const"].shape == (2, 16)  # as official ones
    mapper, features = load_mapper("transformer", state, **SIZES, clip_length=5), torch.randn(3, 8)
    tokens = torch.nn.functional.linear(features, state["linear.weight"], state["linear.bias"]).view(3, 5, 16)
    whole = mapper.transformer(torch.cat([tokens, state["prefix_const"].expand(3, 2, 16)], dim=1))
    assert torch.equal(mapper(features), whole[:, 5:])


def test_everything_that_does_not_fit_is_named():
    state = state_of()
    del state["transformer.layers.0.norm1.bias"]
    state["transformer.layers.0.attn.to_queries.bias"] = torch.zeros(16)
    state["linear.bias"] = torch.zeros(5)
    with pytest.raises(ValueError) as error:
        load_mapper("transformer", state, **SIZES)
    assert str(error.value) == (
        "the checkpoint does not fit the transformer mapper: missing transformer.layers.0.norm1.bias; surplus "
        "transformer.layers.0.attn.to_queries.bias; of another shape linear.bias [5] (expected [32])"
    )


@pytest.mark.parametrize(("kind", "stored", "message"), [
    ("transformer", state_of(clip_width=7), "reads CLIP features of width 7, but the policy's have width 8"),
    ("transformer", state_of(lm_width=24), "embeddings of width 24, but the language model reads width 16"),
    ("transformer", state_of(prefix_length=3), "prefix_length=3 clip_length=null, not prefix_length=2 clip_length"),
    ("transformer", state_of(clip_length=5), "has prefix_length=2 clip_length=5, not prefix_length=2 clip_length="),
    ("transformer", state_of(num_layers=2), "mapper_layers=2, not 1; set it so"),
    ("transformer", state_of("mlp"), "holds a mapper of kind mlp; set mapper=mlp"),
    ("transformer", {}, "missing prefix_const, .* and 10 more"),
    ("mlp", state_of(), "holds a mapper of kind transformer; set mapper=transformer"),
    ("mlp", state_of("mlp", prefix_length=3), "makes 48 numbers, but prefix_length=2 .* width 16 are 32"),
])  # fmt: skip
def test_another_mapper_is_named_in_words(kind, stored, message):
    with pytest.raises(ValueError, match=message):
        load_mapper(kind, stored, **SIZES)


@pytest.mark.parametrize(("content", "message"), [
    ({"model": 1}, "has no state_dict"),
    ({"state_dict": {"visual.proj": torch.zeros(1), "clip_project.x": torch.zeros(1)}}, "also visual.proj"),
    ({"state_dict": {"llm.llm.x": torch.zeros(1)}}, "none of the first kind"),
])  # fmt: skip
def test_other_files_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(ValueError, match=message):
        read_checkpoint(tmp_path / "file.pt")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*ckpt-latest\.pt"):
        read_checkpoint(tmp_path)
