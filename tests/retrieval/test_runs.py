"""Whole retrieval runs on the demo's scenes: from YAML to summary, killed and taken up, bad input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from clipscore.config.load import REPOSITORY
from scripts import run
from tests.whole_runs import kill_at, results, write_own_data

QUICK = ["policy=demo/policy.pt", "device=cpu", "num_workers=0"]
REWARD = ["reward.models=demo/reward.pt"]
ENSEMBLE = ["reward.models=[{name: demo/reward.pt, weight: 10}, {name: demo/policy.pt, weight: 5}]"]
DIRECTIONS = ("image_to_text", "text_to_image")
SCENES = "demo_scenes/noise"


@pytest.fixture(autouse=True)
def data_root(monkeypatch, demo_data) -> None:
    monkeypatch.setenv("RLCF_DATA", str(demo_data))


def config(name: str) -> str:
    return f"configs/retrieval/{name}.yaml"


def start(name: str, *words: str) -> int:
    return run.main(["--config", config(name), *QUICK, *words])


def folder_of(roots: Path, name: str, direction: str, dataset: str = SCENES) -> Path:
    return roots / "output" / f"{name}__{dataset.replace('/', '-')}-{direction}__seed42"


def every_config() -> list[tuple[str, list[str]]]:
    """Each retrieval config with what replaces the paper's models by the demo's."""
    cases = []
    for path in sorted((REPOSITORY / "configs/retrieval").glob("*.yaml")):
        values, words = yaml.safe_load(path.read_text()), []
        if "reward" in values:
            words += REWARD if len(values["reward"]["models"]) == 1 else ENSEMBLE
        if "zero_shot_models" in values:
            words.append("zero_shot_models=[demo/reward.pt]")
        cases.append((path.stem, words))
    return cases


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("name", "words"), every_config(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_config_runs_through(roots, capsys, name, words, direction):
    assert start(name, f"dataset={SCENES}", f"direction={direction}", "limit=3", *words) == 0
    summary, rows = results(folder_of(roots, name, direction))
    assert summary["num_samples"] == len(rows) == 3
    for row in rows:
        assert bool(row["loss"]) == (not name.startswith(("zero_shot", "best_of_k")))
        assert len(row["top10"]) == 10 and row["rank"] >= 1
        assert ("candidates" in row) == name.startswith(("rlcf", "best_of_k"))
    assert f"{SCENES}/{direction}" in capsys.readouterr().out


def test_records_are_those_of_the_direction(roots):
    for direction, first, num_candidates, size in [
        ("image_to_text", "images/00000.png", 20, 600),
        ("text_to_image", "images/00000.png#0", 12, 200),
    ]:
        words = [f"dataset={SCENES}", f"direction={direction}", "order=listed", "limit=5", "lr=1e-3"]
        assert start("rlcf_coco", *REWARD, *words) == 0
        folder = folder_of(roots, "rlcf_coco", direction)
        _, rows = results(folder)
        assert rows[0]["id"] == first and ("text" in rows[0]) == (direction == "text_to_image")
        for row in rows:
            assert [len(step) for step in row["candidates"]] == [len(step) for step in row["rewards"]]
            assert len(row["candidates"]) == 8 and len(row["candidates"][0]) == num_candidates
            asked_anew = set(row["candidates"][0][:10])  # by itself instead of in a batch: near ties may change places
            assert len(asked_anew & set(row["top10_before"])) >= 8
        about = json.loads((folder / "about.json").read_text())
        assert len(about["gallery"]) == size and about["direction"] == direction
    assert len(list((roots / "output/gallery").iterdir())) == 4  # two models, images and captions, made once


@pytest.mark.parametrize(
    ("name", "direction"),
    [("rlcf_coco", "image_to_text"), ("rlcf_coco", "text_to_image"), ("rlcf_s_m_coco", "text_to_image")],
)
def test_a_killed_run_goes_on_to_the_same_bytes(roots, monkeypatch, name, direction):
    words = [*QUICK, *(REWARD if name == "rlcf_coco" else ENSEMBLE), f"dataset={SCENES}", "limit=90", "num_threads=1"]
    words += [f"direction={direction}", "lr=3e-4", "steps=2"]
    if name == "rlcf_s_m_coco":
        words.append("momentum.update_interval=16")
    command = [sys.executable, "-m", "scripts.run", "--config", config(name), *words]
    folder = folder_of(roots, name, direction)
    kill_at(command, folder / "rows.jsonl", 70)  # the momentum state is saved after 64
    assert not (folder / "summary.json").exists()
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    monkeypatch.setenv("RLCF_OUTPUT", str(roots / "whole/output"))
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, env=os.environ)
    assert results(folder) == results(folder_of(roots / "whole", name, direction))


@pytest.fixture
def own_data(roots, demo_data) -> list[str]:
    """Overrides for four images of one's own, of which one has two captions."""
    return write_own_data(roots / "own", demo_data / SCENES, [["A."], ["b"], ["c", "Another!"], ["d"]])


def test_own_data(roots, own_data):
    assert start("zero_shot", *own_data, "cache=false") == 0
    assert start("zero_shot", *own_data, "direction=text_to_image", "cache=false") == 0
    assert [len(results(folder_of(roots, "zero_shot", direction, "mine"))[1]) for direction in DIRECTIONS] == [4, 5]
    assert not (roots / "output/gallery").exists()


@pytest.mark.parametrize(
    ("captions", "words", "message"),
    [
        ([], [], "the file lists no images"),
        ([["a"], []], [], "(00001.png) has no captions"),
        ([["a", "!!"]], [], "1 captions are empty once punctuation is removed"),
        ([["a"]] * 5, ["num_candidates=6"], "num_candidates.image_to_text=6, but the gallery of mine has 5 items"),
        ([["a"]], ["dataset_files.annotations=nowhere.json"], "annotations=nowhere.json not found; tried"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(roots, demo_data, capsys, captions, words, message):
    own_data = write_own_data(roots / "own", demo_data / SCENES, captions)
    assert start("rlcf_coco", *own_data, *REWARD, "num_candidates=2", *words) == 2
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors
    assert not list(roots.glob("output/*/rows.jsonl"))


def test_long_captions_are_cut_and_counted(roots, demo_data, caplog):
    captions = [["short"], ["antidisestablishmentarianism " * 40]]
    assert start("zero_shot", *write_own_data(roots / "own", demo_data / SCENES, captions)) == 0
    assert "1 captions fill all 77 tokens" in caplog.text
