"""Combinations that make no sense are refused before anything is loaded."""

import pytest
from pydantic import ValidationError

from clipscore.config.load import REPOSITORY, load_config
from retrieval.captions import clean_caption, clean_captions
from retrieval.config import RetrievalConfig
from scripts.run import config_class

BASE = {"dataset": "coco", "data_root": "", "pretrained_root": "", "output_root": ""}
REWARD = {"models": [{"name": "ViT-L/14"}]}
RLCF = {"method": "rlcf", "steps": 8, "lr": 1e-6, "reward": REWARD}


def config(**changes):
    values = {**BASE, **RLCF, **changes}
    return RetrievalConfig.of({key: value for key, value in values.items() if value is not None})


def test_official_defaults():
    ours = config(dataset="COCO")
    assert (ours.dataset, ours.column, ours.k) == ("coco", "coco/image_to_text", 20)
    assert config(direction="text_to_image").k == 12
    assert (ours.eps, ours.weight_decay, ours.seed) == (1e-6, 5e-4, 42)
    assert config(num_candidates=7).k == config(num_candidates=7, direction="text_to_image").k == 7


@pytest.mark.parametrize(("changes", "message"), [
    ({"method": "pseudo_label"}, "method=pseudo_label does not read reward"),
    ({"method": "kd", "reward": {"models": [{"name": "a"}, {"name": "b"}]}}, "one teacher, got 2"),
    ({"method": "kd", "num_candidates": 3}, "method=kd does not read num_candidates"),
    ({"method": "zero_shot", "reward": None}, "method=zero_shot does not read lr .*steps"),
    ({"zero_shot_models": ["RN50"]}, "does not read zero_shot_models"),
    ({"dataset": "cocoo"}, "unknown data set 'cocoo'; nearest: 'coco'"),
    ({"direction": "i2t"}, "'image_to_text' or 'text_to_image'"),
    ({"num_candidates": True}, "valid dictionary"),
])  # fmt: skip
def test_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        config(**changes)


@pytest.mark.parametrize(("text", "cleaned"), [
    ("A dog\nruns\tfast", "a dog\nruns\tfast"),  # a single white space stays, whichever it is
    ("a\n\nb \nc.\nd", "a b c d"),
    ("\nends with a line break\n", "\nends with a line break"),
    ("tab\t", "tab\t"),
    ("x\ny " * 60, " ".join(["x\ny"] * 50)),  # words stand between spaces
])  # fmt: skip
def test_captions_are_cleaned_as_blip_does(text, cleaned):
    assert clean_caption(text) == cleaned


def test_captions_of_punctuation_only_are_refused():
    with pytest.raises(ValueError, match=r"2 captions are empty .* the first is '!!' of image b.png; remove them"):
        clean_captions([["ok"], ["fine", "!!"], ["\t"]], ["a.png", "b.png", "c.png"])


ENSEMBLE = {"ViT-L/14@336px": 10.0, "RN50x64": 3.0, "ViT-L/14": 5.0}


@pytest.mark.parametrize(("dataset", "k"), [("coco", 20), ("flickr30k", 16)])
@pytest.mark.parametrize(
    ("name", "models"), [("rlcf", {"ViT-L/14": 1.0}), ("rlcf_s", ENSEMBLE), ("rlcf_s_m", ENSEMBLE)]
)
def test_hyper_parameters_of_table_2(dataset, k, name, models):
    ours = load_config(REPOSITORY / f"configs/retrieval/{name}_{dataset}.yaml", [], config_class)
    assert (ours.dataset, ours.policy, ours.steps, ours.lr, ours.weight_decay) == (dataset, "ViT-B/16", 8, 1e-6, 5e-4)
    assert (ours.num_candidates.image_to_text, ours.num_candidates.text_to_image, ours.eps) == (k, 12, 1e-6)
    assert {model.name: model.weight for model in ours.reward.models} == models
    momentum = ours.momentum and (ours.momentum.decay, ours.momentum.update_interval, ours.momentum.mix)
    assert momentum == ((0.9998, 64, 1.0) if name == "rlcf_s_m" else None)


@pytest.mark.parametrize(("name", "steps"), [("kd", 3), ("kd_5_steps", 5)])
def test_hyper_parameters_of_distillation(name, steps):
    ours = load_config(REPOSITORY / f"configs/retrieval/{name}.yaml", [], config_class)
    assert (ours.method, ours.steps, ours.lr, ours.weight_decay) == ("kd", steps, 1e-6, 5e-4)
    assert [model.name for model in ours.reward.models] == ["ViT-L/14"]
