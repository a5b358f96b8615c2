"""Whole runs on the demo data: from YAML to summary, bad input, compiled towers."""

import functools
from pathlib import Path

import pytest
import torch
import yaml

from clipscore.config.load import REPOSITORY
from scripts import run
from tests.whole_runs import REWARD, configs, demo_models, results

QUICK = ["policy=demo/policy.pt", "views.num_views=16", "views.select_fraction=0.2", "views.crop_scale=[0.5,1]"]
QUICK += ["num_workers=0", "device=cpu"]
pytestmark = pytest.mark.usefixtures("roots")


def config(name: str) -> str:
    return f"configs/classification/{name}.yaml"


def start(name: str, *words: str) -> int:
    return run.main(["--config", config(name), *QUICK, *words])


def results_of(roots: Path, name: str, dataset: str) -> tuple[dict, list[dict]]:
    return results(roots / "output" / f"{Path(name).name}__{dataset.replace('/', '-')}__seed0")


@pytest.mark.parametrize("name", configs("classification"))
def test_every_config_runs_through(roots, capsys, name):
    assert start(name, "dataset=demo/sketch", "limit=2", *demo_models("classification", name)) == 0
    summary, rows = results_of(roots, name, "demo/sketch")
    assert summary["num_samples"] == len(rows) == 2
    tunes = "steps" in yaml.safe_load((REPOSITORY / config(name)).read_text())
    assert tunes == any(row.get("loss") for row in rows)
    assert "demo/sketch" in capsys.readouterr().out


def test_rlcf_beats_zero_shot_and_rewards_are_recorded(roots):
    assert start("rlcf_encoder", *REWARD, "dataset=demo/noise", "lr=1e-3", "limit=40") == 0
    summary, rows = results_of(roots, "rlcf_encoder", "demo/noise")
    assert summary["accuracy"] > summary["accuracy_before"] + 5 and summary["fixed"] > summary["broken"]
    for row in rows:
        assert len(row["candidates"]) == len(row["rewards"]) == len(row["loss"]) == 3
        assert len(row["selected"]) == 3
        assert all(0 <= reward <= 2.5 for step in row["rewards"] for view in step for reward in view)


@pytest.mark.parametrize(("words", "message"), [
    (["dataset=imagenet_a", *REWARD], "imagenet-a"),
    (["dataset=demo/clean", *REWARD, "policy=ViT-B/17"], "did you mean ViT-B/16"),
    (["dataset=demo/clean", "reward.models=[{name: demo/nothing.pt}]"], "pretrained/demo/nothing.pt"),
    (["dataset=demo/clean", *REWARD, "precision=fp16"], "precision=fp16 needs a CUDA device"),
    (["dataset=demo/clean", *REWARD, "tune=encoder", "cuda_graphs=true"], "cuda_graphs=true needs a CUDA"),
])  # fmt: skip
def test_bad_input_is_one_sentence_and_nothing_is_written(roots, capsys, words, message):
    assert start("rlcf_prompt", *words) == 2
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors
    assert not list(roots.glob("output/*/rows.jsonl"))


def test_compiled_towers_give_the_same_answers(roots, monkeypatch):
    plain_compile = torch.nn.Module.compile  # the CPU's own backend calls a C++ compiler
    eager = functools.partialmethod(plain_compile, backend="aot_eager")
    monkeypatch.setattr(torch.nn.Module, "compile", eager)
    small = [*REWARD, "dataset=demo/noise", "limit=1", "views.num_views=4", "views.select_fraction=0.5", "steps=2"]
    assert start("rlcf_encoder", *small) == start("rlcf_encoder", *small, "compile=true", "name=compiled") == 0
    _, [plain] = results_of(roots, "rlcf_encoder", "demo/noise")
    _, [compiled] = results_of(roots, "compiled", "demo/noise")
    exact = ("top5", "top5_before", "candidates", "selected", "step_top1")
    assert {key: compiled[key] for key in exact} == {key: plain[key] for key in exact}
    assert compiled["confidence"] == pytest.approx(plain["confidence"], abs=1e-4)
    assert compiled["moved"] == pytest.approx(plain["moved"], rel=1e-3) and plain["moved"] > 0
