"""An episode: what is tuned, what the loss is, and that nothing is left behind."""

import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from captioning.adapt import Picture, adapt, caption_nll
from captioning.build import build_method, find_language_model, image_features, load_language_model
from captioning.generate import Hypothesis
from clipscore.config.load import REPOSITORY
from clipscore.models import group
from clipscore.models.load import load_clip
from clipscore.task import build_reward
from clipscore.text_encoder import encode_texts
from tests.parity_captioning import config_like

IMAGES = torch.randn(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def config(**changes):
    values = {"method": "rlcf", "steps": 2, "lr": 1e-2, "num_candidates": 3, "reward": {"models": ["RC"]}}
    values |= {"mapper_layers": 2, "prefix_length": 4, "final_beams": 2, "decoding": {"max_new_tokens": 5}}
    return config_like(values | changes)


@pytest.fixture
def build(captioner, tiny_clip):
    """The parts of a run, and a function that adapts to one of the images."""

    def build(**changes):
        options, model = config(**changes), captioner()
        method = build_method(options, model, [tiny_clip(m.name) for m in options.reward.models])
        objective, state, clip = method.objective, method.state, tiny_clip("P")

        def run(image, seed=0, **more):
            generator = torch.Generator().manual_seed(seed)
            picture = Picture(image, image_features(clip, image, True), generator)
            return adapt(model, state, objective, picture, options.steps, **more)

        return model, state, objective, run

    return build


def test_the_loss_of_a_caption_by_hand():
    losses, mask = torch.tensor([[1.0, 2.0, 6.0], [1.0, 5.0, 3.0]]), torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert caption_nll(losses, mask, pad_in_loss=True).tolist() == [3.0, 3.0]
    assert caption_nll(losses, mask, pad_in_loss=False).tolist() == [1.5, 3.0]


def test_the_answer_is_lower_cased_and_what_is_scored_is_not(build, monkeypatch):
    model, _, objective, run = build()
    monkeypatch.setattr(model, "decode", lambda tokens: ["A Dog"] * len(tokens))
    seen: list[str] = []
    real = objective.reward.encode_texts
    monkeypatch.setattr(objective.reward, "encode_texts", lambda texts: seen.extend(texts) or real(texts))
    episode = run(IMAGES[0], with_before=True)
    assert (episode.before, episode.caption) == ("a dog", "a dog")
    assert set(seen) == {"A Dog"} and episode.steps[0].captions == ["A Dog"] * 3


def test_the_mapper_runs_once_for_all_candidates_of_a_step(build):
    model, _, _, run = build(steps=2)
    batches: list[int] = []
    model.mapper.register_forward_hook(lambda module, inputs, output: batches.append(len(inputs[0])))
    run(IMAGES[0])
    assert batches == [1, 1, 1]  # two steps and the answer


def test_the_reward_sees_the_image_in_fp32(monkeypatch):
    demo = REPOSITORY / "pretrained/demo"
    monkeypatch.setattr(group, "autocast_dtype", lambda *_: torch.bfloat16)  # as on CUDA, where frozen weights are cast
    options = config(reward={"models": [str(demo / "reward.pt")]}, policy=str(demo / "policy.pt"))
    models = group.load_models(options.model_copy(update={"device": "cpu"}))
    [reward], exact = models.rewards, load_clip(str(demo / "reward.pt"), demo)
    image = torch.randn(1, 3, models.policy.image_size, models.policy.image_size)
    observed, expected = (build_reward(options, [model]).encode_images(image)[0] for model in (reward, exact))
    assert torch.equal(observed, expected)
    texts, whole = encode_texts(reward, ["a scene"]), encode_texts(exact, ["a scene"])
    assert 0 < (texts - whole).abs().max() < 0.02  # under autocast, as before
    assert {p.dtype for p in reward.visual.parameters()} == {torch.float32}
    assert any(p.dtype == torch.bfloat16 for p in reward.backend.transformer.parameters())


def test_empty_captions_do_no_harm(build, monkeypatch):
    _, _, objective, run = build(steps=1)
    monkeypatch.setattr(objective, "propose", lambda *_: [Hypothesis([]), Hypothesis([8]), Hypothesis([35])])
    step = run(IMAGES[0]).steps[0]
    assert step.captions == ["", "a", ""]
    torch.testing.assert_close(step.rewards[0], step.rewards[2], rtol=0, atol=1e-14)  # other rows, other last bits
    assert step.loss.isfinite() and step.mask.sum(dim=1).tolist() == [1, 2, 1]


def test_numbers_that_are_not_finite_are_refused(build, monkeypatch):
    _, _, objective, run = build(lr=1e300)
    with pytest.raises(FloatingPointError, match="best score is nan"):  # the mapper's weights after the first update
        run(IMAGES[0])
    monkeypatch.setattr(objective.reward, "score", lambda *_: torch.full((1, 3), math.nan, dtype=torch.float64))
    with pytest.raises(FloatingPointError, match=r"not finite: losses \[nan\]"):
        run(IMAGES[0])


def test_language_models_are_found_in_folders(captioner, tmp_path):
    model = captioner()
    model.lm.half().save_pretrained(tmp_path / "opt-tiny")
    model.tokenizer.save_pretrained(tmp_path / "opt-tiny")
    for name in ("opt-tiny", "facebook/opt-tiny", str(tmp_path / "opt-tiny")):
        assert find_language_model(name, tmp_path) == str(tmp_path / "opt-tiny")
    assert find_language_model("someone/opt-tiny", tmp_path) == "someone/opt-tiny"  # their own, from the hub
    lm, tokenizer = load_language_model("opt-tiny", tmp_path)
    assert {p.dtype for p in lm.parameters()} == {torch.float32}
    assert tokenizer("\n", add_special_tokens=False).input_ids == [model.stop]
    with pytest.raises(FileNotFoundError, match=r"no config\.json in any of .*fetch_pretrained.sh opt. fetches"):
        load_language_model(str(tmp_path / "nothing"), tmp_path)


WEIGHTS = "model.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0"


@pytest.mark.parametrize(("file", "change", "message"), [
    (WEIGHTS, lambda t: {k: v for k, v in t.items() if "layers.0." not in k}, r"lacks 16 tensors \(model"),
    (WEIGHTS, lambda t: {f"module.{k}": v for k, v in t.items()}, r"lacks .* and has 52 others \(module\."),
    (WEIGHTS, lambda t: {k: v[:-1] for k, v in t.items()}, "is no whole language model .*RuntimeError"),
    (WEIGHTS, lambda t: {k: v / 0 for k, v in t.items()}, "is expected in finite floating-point numbers"),
    (WEIGHTS, POINTER, "is a git-lfs pointer"),
    (WEIGHTS, b"\xff" * 99, "is truncated: .*header"),
    (WEIGHTS, None, "no weights in .*expected model.safetensors or pytorch_model.bin"),
    ("config.json", b"<!DOCTYPE html>", "is a web page"),
    ("config.json", b"{}", "is no whole language model"),
    ("vocab.json", POINTER, r"vocab\.json .* is a git-lfs pointer"),
])  # fmt: skip
def test_language_models_that_are_not_whole(tmp_path, file, change, message):
    folder = shutil.copytree(REPOSITORY / "pretrained/demo/opt", tmp_path / "opt")
    if callable(change):
        save_file(change(load_file(folder / file)), folder / file, metadata={"format": "pt"})
    elif change is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(change)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_language_model("opt", tmp_path)
