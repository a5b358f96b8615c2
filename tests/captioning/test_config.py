"""Settings that contradict each other are named together."""

import pytest

from captioning.config import CaptioningConfig, TrainConfig
from clipscore.config.load import REPOSITORY, load_config
from scripts.run import config_class
from scripts.runs.compare_configs import identifying, identity
from tests.parity_captioning import config_like

RLCF = {"method": "rlcf", "steps": 4, "lr": 1e-6, "reward": {"models": ["ViT-L/14"]}}


@pytest.mark.parametrize(("changes", "message"), [
    ({"dataset": "coco_captoins", "dataset_files": None}, "coco_captoins"),
    ({"method": "rlcf"}, "needs steps.*needs reward.models"),
    ({"reward": {"models": ["ViT-L/14"]}}, "zero_shot does not read reward"),
    ({"steps": 1, "lr": 1e-3, "num_candidates": 3}, "does not read lr .*num_candidates .*steps"),
    ({**RLCF, "decoding": {"top_p": 0.5}}, "top_p need sampling=nucleus, got beam"),
    ({**RLCF, "mapper": "mlp", "clip_length": 2}, "clip_length need mapper=transformer, got mlp"),
    ({**RLCF, "decoding": {"top_p": 1.5}}, "less than or equal to 1"),
])  # fmt: skip
def test_contradictions_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        config_like(changes)


# The official scripts: learning rate and K; steps 4, weight decay 0 and eps 1e-6 in all of them.
TABLE_3 = {"capdec_c2f": (5e-6, 6), "capdec_c2n": (3e-6, 6), "clipcap_c2f": (2e-6, 10), "clipcap_c2n": (2e-6, 10)}
ENSEMBLE = {"ViT-L/14@336px": 10.0, "RN50x64": 3.0, "ViT-L/14": 5.0}


@pytest.mark.parametrize("name", TABLE_3)
@pytest.mark.parametrize("ensemble", [False, True])
def test_hyper_parameters_of_table_3(name, ensemble):
    file = name.replace("_", "_s_") if ensemble else name
    config = load_config(REPOSITORY / f"configs/captioning/{file}.yaml", [], config_class)
    assert (config.lr, config.num_candidates, config.steps) == (*TABLE_3[name], 4)
    assert (config.weight_decay, config.eps, config.pad_in_loss, config.momentum) == (0.0, 1e-6, True, None)
    assert {m.name: m.weight for m in config.reward.models} == (ENSEMBLE if ensemble else {"ViT-L/14": 1.0})
    assert (config.policy, config.llm, config.normalize_prefix) == ("ViT-B/16", "facebook/opt-125m", True)
    assert (config.prefix_length, config.mapper_layers, config.final_beams) == (40, 8, 5)
    assert (config.decoding.max_new_tokens, config_like(RLCF).decoding.top_p) == (50, 0.92)
    assert config.checkpoint == f"{name.split('_')[0]}_opt125m_transformer_coco_01"


@pytest.mark.parametrize(("sampling", "said"), [("beam", 50), ("nucleus", None)])
def test_sampling_has_no_top_k_and_old_beam_searches_stay_the_same_runs(sampling, said):
    config = config_like({**RLCF, "sampling": sampling})
    assert config.decoding.top_k is None and config.model_dump(mode="json")["decoding"]["top_k"] == said
    old = config_like({**RLCF, "sampling": "nucleus", "decoding": {"top_k": 50}})
    assert identity(old, {}) != identity(config_like({**RLCF, "sampling": "nucleus"}), {})
    assert old.decoding.top_k == old.model_dump()["decoding"]["top_k"] == 50


@pytest.mark.parametrize("config_class", [CaptioningConfig, TrainConfig])
def test_configurations_without_a_clip_length_count_as_null(config_class):
    assert identifying({"clip_length": None, "seed": 1}, config_class) == {"seed": 1}
    assert identifying({"clip_length": 5, "seed": 1}, config_class) == {"clip_length": 5, "seed": 1}
