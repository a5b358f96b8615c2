"""Whole retrieval runs on the demo's scenes: from YAML to summary, killed and taken up, bad input."""

from __future__ import annotations

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

QUICK = ["policy=demo/policy.pt", "device=cpu", "num_workers=0"]
REWARD = ["reward.models=demo/reward.pt"]
ENSEMBLE = ["reward.models=[{name: demo/reward.pt, weight: 10}, {name: demo/policy.pt, weight: 5}]"]
DIRECTIONS = ("image_to_text", "text_to_image")
SCENES = "demo_scenes/noise"


@pytest.fixture(scope="module")
def demo_data(tmp_path_factory) -> Path:
    """The demo's test sets, read-only."""
    root = tmp_path_factory.mktemp("data")
    make_data(root)
    for path in [root, *root.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    yield root
    for path in [root, *root.rglob("*")]:
        path.chmod(path.stat().st_mode | 0o200)


@pytest.fixture
def roots(tmp_path, demo_data, monkeypatch) -> Path:
    """Environment with demo data and weights; results go to tmp_path."""
    monkeypatch.setenv("RLCF_DATA", str(demo_data))
    monkeypatch.setenv("RLCF_PRETRAINED", str(REPOSITORY / "pretrained"))
    monkeypatch.setenv("RLCF_OUTPUT", str(tmp_path / "output"))
    return tmp_path


def config(name: str) -> str:
    return f"configs/retrieval/{name}.yaml"


def start(name: str, *words: str) -> int:
    return run.main(["--config", config(name), *QUICK, *words])


def results(roots: Path, name: str, direction: str, dataset: str = SCENES) -> tuple[str, list[str]]:
    """Summary and sorted records of a run as text, without times."""
    folder = roots / "output" / f"{name}__{dataset.replace('/', '-')}-{direction}__seed42"
    summary = json.loads((folder / "summary.json").read_text())
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    strip = lambda d: {k: v for k, v in d.items() if not k.startswith("seconds") and k != "samples_per_second"}  # noqa: E731
    return json.dumps(strip(summary)), sorted(json.dumps(strip(row)) for row in rows)


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
    summary, rows = results(roots, name, direction)
    assert json.loads(summary)["num_samples"] == len(rows) == 3
    for row in map(json.loads, rows):
        assert bool(row["loss"]) == (not name.startswith("zero_shot"))
        assert len(row["top10"]) == 10 and row["rank"] >= 1
        assert ("candidates" in row) == name.startswith("rlcf")
    assert f"{SCENES}/{direction}" in capsys.readouterr().out


def test_records_are_those_of_the_direction(roots):
    for direction, first, num_candidates, size in [
        ("image_to_text", "images/00000.png", 20, 600),
        ("text_to_image", "images/00000.png#0", 12, 200),
    ]:
        assert start("rlcf_coco", *REWARD, f"dataset={SCENES}", f"direction={direction}", "limit=5", "lr=1e-3") == 0
        rows = [json.loads(row) for row in results(roots, "rlcf_coco", direction)[1]]
        assert rows[0]["id"] == first and ("text" in rows[0]) == (direction == "text_to_image")
        for row in rows:
            assert [len(step) for step in row["candidates"]] == [len(step) for step in row["rewards"]]
            assert len(row["candidates"]) == 8 and len(row["candidates"][0]) == num_candidates
            asked_anew = set(row["candidates"][0][:10])  # by itself instead of in a batch: near ties may change places
            assert len(asked_anew & set(row["top10_before"])) >= 8
        about = json.loads(next(roots.glob(f"output/rlcf_coco*{direction}*/about.json")).read_text())
        assert len(about["gallery"]) == size and about["direction"] == direction
    assert len(list((roots / "output/gallery").iterdir())) == 4  # two models, images and captions, made once


@pytest.mark.parametrize(
    ("name", "direction"),
    [("rlcf_coco", "image_to_text"), ("rlcf_coco", "text_to_image"), ("rlcf_s_m_coco", "text_to_image")],
)
def test_a_killed_run_goes_on_to_the_same_bytes(roots, monkeypatch, name, direction):
    words = [*QUICK, *(REWARD if name == "rlcf_coco" else ENSEMBLE), f"dataset={SCENES}", "limit=90", "num_threads=1"]
    words += [f"direction={direction}", "lr=3e-4"]
    if name == "rlcf_s_m_coco":
        words += ["momentum.update_interval=16", "steps=2"]
    command = [sys.executable, "-m", "scripts.run", "--config", config(name), *words]
    rows = roots / "output" / f"{name}__{SCENES.replace('/', '-')}-{direction}__seed42" / "rows.jsonl"
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE) as child:
        deadline = time.monotonic() + 120
        while not rows.is_file() or rows.read_bytes().count(b"\n") < 70:  # the momentum state is saved after 64
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(child.pid, signal.SIGKILL)
    assert not (rows.parent / "summary.json").exists()
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    resumed = results(roots, name, direction)
    monkeypatch.setenv("RLCF_OUTPUT", str(roots / "whole/output"))
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, env=os.environ)
    assert resumed == results(roots / "whole", name, direction)


@pytest.fixture
def own_data(roots, demo_data) -> list[str]:
    """Overrides for four images of one's own, with captions of which one image has two."""
    shutil.copytree(demo_data / SCENES / "images", roots / "own/pictures")
    (roots / "own/pictures").chmod(0o755)
    entries = [
        {"image": f"{n:05d}.png", "caption": [f"a scene number {n}.", "Another!"][: 1 + (n == 2)]} for n in range(4)
    ]
    write(roots, entries)
    files = {"annotations": "mine.json", "images": "pictures"}
    return ["dataset=mine", *(f"dataset_files.{key}={roots}/own/{name}" for key, name in files.items())]


def write(roots: Path, entries: object) -> None:
    (roots / "own/mine.json").write_text(entries if isinstance(entries, str) else json.dumps(entries))


def test_own_data(roots, own_data):
    assert start("zero_shot", *own_data, "cache=false") == 0
    assert start("zero_shot", *own_data, "direction=text_to_image", "cache=false") == 0
    assert [len(results(roots, "zero_shot", direction, "mine")[1]) for direction in DIRECTIONS] == [4, 5]
    assert not (roots / "output/gallery").exists()


@pytest.mark.parametrize(
    ("entries", "words", "message"),
    [
        ("", [], "mine.json: the file is empty"),
        ([{"image": "00000.png"}], [], "(00000.png) has no captions"),
        ([{"caption": ["a"]}], [], "entry 0 has no image"),
        ([{"image": "00000.png", "caption": ["a"]}] * 2, [], "listed more than once (00000.png)"),
        ([{"image": "00000.png", "caption": ["a", "?!"]}, {"image": "1.png", "caption": ["b"]}], [], "1.png"),
        ([{"image": "00000.png", "caption": ["a", "!!"]}], [], "1 captions are empty once punctuation is removed"),
        (None, ["num_candidates=6"], "num_candidates.image_to_text=6, but the gallery of mine has 5 items"),
        (None, ["dataset_files.annotations=nowhere.json"], "dataset_files.annotations=nowhere.json not found; tried"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(roots, own_data, capsys, entries, words, message):
    if entries is not None:
        write(roots, entries)
    assert start("rlcf_coco", *own_data, *REWARD, "num_candidates=2", *words) == 2
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors
    assert not list(roots.glob("output/*/rows.jsonl"))


def test_a_damaged_image_stops_the_run_before_the_first_query(roots, own_data, capsys):
    (roots / "own/pictures/00002.png").chmod(0o644)
    (roots / "own/pictures/00002.png").write_bytes(b"")
    assert start("rlcf_coco", *own_data, *REWARD, "num_candidates=2") == 2
    assert "00002.png: the file is empty" in capsys.readouterr().err


def test_long_captions_are_cut_and_counted(roots, own_data, caplog):
    words = " ".join("antidisestablishmentarianism" for _ in range(40))
    write(roots, [{"image": f"{n:05d}.png", "caption": [words if n == 1 else "short"]} for n in range(4)])
    assert start("zero_shot", *own_data) == 0
    assert "1 captions fill all 77 tokens" in caplog.text
