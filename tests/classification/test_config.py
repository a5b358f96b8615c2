"""Combinations that make no sense are refused before anything is loaded."""

import pytest
from pydantic import ValidationError

from classification.config import ClassificationConfig, ViewsConfig

BASE = {"dataset": "demo/clean", "data_root": "", "pretrained_root": "", "output_root": ""}
REWARD = {"models": [{"name": "ViT-L/14"}]}
RLCF = {"method": "rlcf", "tune": "prompt", "steps": 3, "lr": 7e-3, "reward": REWARD}


def config(**changes):
    values = {**BASE, **RLCF, **changes}
    return ClassificationConfig.of({key: value for key, value in values.items() if value is not None})


def test_the_paper_keeps_six_of_64_views():
    assert ViewsConfig().num_selected == 6
    assert config().dataset == "demo/clean" and config(dataset="A").dataset == "imagenet_a"


@pytest.mark.parametrize(("changes", "message"), [
    ({"reward": None}, "method=rlcf needs reward.models"),
    ({"method": "tpt"}, "method=tpt does not read reward"),
    ({"method": "kd", "reward": {"models": [{"name": "a"}, {"name": "b"}]}}, "one teacher, got 2"),
    ({"tune": "none"}, "method=rlcf needs tune=prompt"),
    ({"steps": None}, "method=rlcf needs steps"),
    ({"lr": 0.0}, "lr=0 moves nothing"),
    ({"views": {"num_views": 8}}, "views.num_views=8 times views.select_fraction=0.1 keeps no view"),
    ({"views": {"crop_scale": [0.9, 0.5]}}, "low <= high"),
    ({"tune": "encoder", "prompt_start": "coop"}, "prompt_start would be ignored"),
    ({"momentum": {}}, "momentum needs tune=encoder or norm, got prompt"),
    ({"bn_prior": 16.0}, "bn_prior needs tune=encoder"),
    ({"zero_shot_models": ["RN50"]}, "method=rlcf does not read zero_shot_models"),
    ({"prompt": "a [CLS] here"}, "set class_position=middle"),
    ({"class_position": "middle"}, r"needs \[CLS\] between two words"),
    ({"class_position": "front", "tune": "encoder"}, "class_position=front needs tune=prompt"),
    ({"dataset": "imagnet"}, "unknown data set 'imagnet'; nearest: 'imagenet'"),
    ({"order": "listed", "order_seed": 1}, "order=listed has no order_seed, got 1"),
    ({"temperature": 2.0}, "method=rlcf does not read temperature"),
    ({"lr": float("inf")}, "finite number"),
    ({"cuda_graphs": True}, "cuda_graphs=true is for methods of this repository that tune an image tower"),
    ({"method": "zero_shot", "tune": "none", "steps": 0, "reward": None}, "method=zero_shot does not read lr"),
])  # fmt: skip
def test_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        config(**changes)


@pytest.mark.parametrize(("changes", "recipe"), [
    ({"dataset": "DTD"}, "augmix"),
    ({"dataset": "pets", "tune": "encoder", "views": {"num_views": 32}}, "augmix"),
    ({"dataset": "dtd", "views": {"recipe": "crop"}}, "crop"),
    ({"dataset": "imagenet_a"}, "crop"),
    ({"dataset": "dtd", "method": "zero_shot", "tune": "none", "steps": 0, "lr": None, "reward": None}, "crop"),
])  # fmt: skip
def test_fine_grained_sets_are_augmixed_as_in_the_official_code(changes, recipe):
    found = config(**changes)
    assert found.views.recipe == found.model_dump()["views"]["recipe"] == recipe
