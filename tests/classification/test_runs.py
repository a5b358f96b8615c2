"""Whole runs on the demo data: from YAML to summary, killed and taken up, with unreadable images, on own data."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from clipscore.config.load import REPOSITORY
from scripts import run
from scripts.demo.make_data import make_data

QUICK = ["policy=demo/policy.pt", "views.num_views=16", "views.select_fraction=0.2", "views.crop_scale=[0.5,1]"]
QUICK += ["num_workers=0", "device=cpu"]
REWARD = ["reward.models=demo/reward.pt"]
ENSEMBLE = ["reward.models=[{name: demo/reward.pt, weight: 10}, {name: demo/policy.pt, weight: 5}]"]


@pytest.fixture(scope="module")
def demo_data(tmp_path_factory) -> Path:
    """The demo's test sets, read-only."""
    root = tmp_path_factory.mktemp("data")
    make_data(root)
    return root


@pytest.fixture
def roots(tmp_path, demo_data, monkeypatch) -> Path:
    """Environment with demo data and weights; results go to tmp_path."""
    monkeypatch.setenv("RLCF_DATA", str(demo_data))
    monkeypatch.setenv("RLCF_PRETRAINED", str(REPOSITORY / "pretrained"))
    monkeypatch.setenv("RLCF_OUTPUT", str(tmp_path / "output"))
    return tmp_path


def config(name: str) -> str:
    return f"configs/classification/{name}.yaml"


def start(name: str, *words: str) -> int:
    return run.main(["--config", config(name), *QUICK, *words])


def results(roots: Path, name: str, dataset: str) -> tuple[dict, list[dict]]:
    """Summary and sorted records of a run, without times."""
    folder = roots / "output" / f"{Path(name).name}__{dataset.replace('/', '-')}__seed0"
    summary = json.loads((folder / "summary.json").read_text())
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    strip = lambda d: {k: v for k, v in d.items() if not k.startswith("seconds") and k != "samples_per_second"}  # noqa: E731
    return strip(summary), sorted((strip(row) for row in rows), key=lambda row: row["id"])


def every_config() -> list[tuple[str, list[str]]]:
    """Each classification config with what replaces the paper's models by the demo's."""
    cases = []
    for path in sorted((REPOSITORY / "configs/classification").rglob("*.yaml")):
        values = yaml.safe_load(path.read_text())
        words = []
        if "reward" in values:
            words += REWARD if len(values["reward"]["models"]) == 1 else ENSEMBLE
        if "prompt_start" in values:
            words.append("prompt_start=demo/" + values["prompt_start"].split("/")[0])
        if "zero_shot_models" in values:
            words.append("zero_shot_models=[demo/reward.pt]")
        cases.append((path.relative_to(REPOSITORY / "configs/classification").with_suffix("").as_posix(), words))
    return cases


@pytest.mark.parametrize(("name", "words"), every_config(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_config_runs_through(roots, capsys, name, words):
    assert start(name, "dataset=demo/sketch", "limit=3", *words) == 0
    summary, rows = results(roots, name, "demo/sketch")
    assert summary["num_samples"] == 3 and len(rows) == 3
    tunes = "steps" in yaml.safe_load((REPOSITORY / config(name)).read_text())
    assert tunes == any(row.get("loss") for row in rows)
    assert "demo/sketch" in capsys.readouterr().out


def test_rlcf_beats_zero_shot_and_rewards_are_recorded(roots):
    assert start("rlcf_encoder", *REWARD, "dataset=demo/noise", "lr=1e-3", "limit=60") == 0
    summary, rows = results(roots, "rlcf_encoder", "demo/noise")
    assert summary["accuracy"] > summary["accuracy_before"] + 5 and summary["fixed"] > summary["broken"]
    for row in rows:
        assert len(row["candidates"]) == len(row["rewards"]) == len(row["loss"]) == 3
        assert len(row["selected"]) == 3
        assert all(0 <= reward <= 2.5 for step in row["rewards"] for view in step for reward in view)


@pytest.mark.parametrize(("name", "words"), [("rlcf_prompt", REWARD), ("rlcf_s_m_encoder", [*ENSEMBLE, "lr=1e-3"])])
def test_a_killed_run_goes_on_to_the_same_numbers(roots, monkeypatch, name, words):
    words = [*QUICK, *words, "dataset=demo/sketch", "limit=90", "num_threads=1"]
    if name == "rlcf_s_m_encoder":
        words.append("momentum.update_interval=16")
    command = [sys.executable, "-m", "scripts.run", "--config", config(name), *words]
    rows = roots / "output" / f"{name}__demo-sketch__seed0" / "rows.jsonl"
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE) as child:
        deadline = time.monotonic() + 120
        while not rows.is_file() or rows.read_bytes().count(b"\n") < 70:  # the momentum state is saved after 64
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(child.pid, signal.SIGKILL)
    assert not (rows.parent / "summary.json").exists()
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    resumed = results(roots, name, "demo/sketch")
    monkeypatch.setenv("RLCF_OUTPUT", str(roots / "whole/output"))
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, env=os.environ)
    assert resumed == results(roots / "whole", name, "demo/sketch")


def test_workers_and_order_do_not_matter(roots, monkeypatch):
    common = [*REWARD, "dataset=demo/noise", "limit=8"]
    assert start("rlcf_prompt", *common) == 0
    first = results(roots, "rlcf_prompt", "demo/noise")
    monkeypatch.setenv("RLCF_OUTPUT", str(roots / "other/output"))
    assert start("rlcf_prompt", *common, "num_workers=2") == 0
    assert results(roots / "other", "rlcf_prompt", "demo/noise") == first


def test_own_data_and_unreadable_images(roots, demo_data, caplog):
    for label in ("00_red_zero", "01_red_one"):
        shutil.copytree(demo_data / "demo/sketch" / label, roots / "own" / label)
    (roots / "own/01_red_one/001.png").write_bytes(b"")
    (roots / "names.txt").write_text("red zero\nred one\n")
    words = ["dataset=mine", f"dataset_files.images={roots}/own", f"dataset_files.class_names={roots}/names.txt"]
    words += [*REWARD, "num_candidates=2"]
    assert start("rlcf_prompt", *words) == 0
    summary, _ = results(roots, "rlcf_prompt", "mine")
    assert summary["num_errors"] == 1 and summary["errors"] == ["01_red_one/001.png"]
    assert start("rlcf_prompt", *words, "num_candidates=3", "name=other") == 2
    assert "num_candidates=3, but mine has 2 classes" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dataset=imagenet_a", *REWARD], "imagenet-a"),
        (["dataset=imagnet", *REWARD], "unknown data set 'imagnet'; nearest: 'imagenet'"),
        (["dataset=demo/clean", *REWARD, "policy=ViT-B/17"], "did you mean ViT-B/16"),
        (["dataset=demo/clean", "reward.models=[{name: demo/nothing.pt}]"], "pretrained/demo/nothing.pt"),
        (["dataset=demo/clean", *REWARD, "device=cuda:99"], "sees no CUDA device"),
        (["dataset=demo/clean", *REWARD, "precision=fp16"], "precision=fp16 needs a CUDA device"),
        (["dataset=demo/clean", *REWARD, "tune=encoder", "cuda_graphs=true"], "cuda_graphs=true needs a CUDA"),
        (["dataset=demo/clean", *REWARD, "prompt_start=demo/nothing"], "no CoOp or CoCoOp checkpoint at demo/nothing"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(roots, capsys, words, message):
    assert start("rlcf_prompt", *words) == 2
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors
    assert not list(roots.glob("output/*/rows.jsonl"))


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_compiled_towers_give_the_same_answers(roots):
    small = [*REWARD, "dataset=demo/noise", "limit=1", "views.num_views=4", "views.select_fraction=0.5", "steps=2"]
    assert start("rlcf_encoder", *small) == start("rlcf_encoder", *small, "compile=true", "name=compiled") == 0
    _, [plain] = results(roots, "rlcf_encoder", "demo/noise")
    _, [compiled] = results(roots, "compiled", "demo/noise")
    exact = ("top5", "top5_before", "candidates", "selected", "step_top1")
    assert {key: compiled[key] for key in exact} == {key: plain[key] for key in exact}
    assert compiled["confidence"] == pytest.approx(plain["confidence"], abs=1e-4)
    assert compiled["moved"] == pytest.approx(plain["moved"], rel=1e-3) and plain["moved"] > 0
