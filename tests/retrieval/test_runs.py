"""Whole retrieval runs on the demo's scenes: from YAML to summary, killed and taken up, bad input."""

from pathlib import Path

import pytest

from scripts import run
from tests.whole_runs import REWARD, configs, demo_models, results, write_own_data

QUICK = ["policy=demo/policy.pt", "device=cpu", "num_workers=0"]
DIRECTIONS = ("image_to_text", "text_to_image")
SCENES = "demo_scenes/noise"


def config(name: str) -> str:
    return f"configs/retrieval/{name}.yaml"


def start(name: str, *words: str) -> int:
    return run.main(["--config", config(name), *QUICK, *words])


def folder_of(roots: Path, name: str, direction: str, dataset: str = SCENES) -> Path:
    return roots / "output" / f"{name}__{dataset.replace('/', '-')}-{direction}__seed42"


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    """A folder for many runs, which make the features of the gallery once."""
    return tmp_path_factory.mktemp("runs") / "output"


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", configs("retrieval"))
def test_every_config_runs_through(roots, output, capsys, name, direction):
    words = [f"dataset={SCENES}", f"direction={direction}", "limit=2", f"output_root={output}"]
    assert start(name, *words, *demo_models("retrieval", name)) == 0
    summary, rows = results(folder_of(output.parent, name, direction))
    assert summary["num_samples"] == len(rows) == 2
    for row in rows:
        assert bool(row["loss"]) == (not name.startswith(("zero_shot", "best_of_k")))
        assert len(row["top10"]) == 10 and row["rank"] >= 1
        assert ("candidates" in row) == name.startswith(("rlcf", "best_of_k"))
    assert f"{SCENES}/{direction}" in capsys.readouterr().out
    assert list((output / "gallery").iterdir())


@pytest.mark.parametrize(("captions", "words", "message"), [
    ([["a"], []], [], "(00001.png) has no captions"),
    ([["a", "!!"]], [], "1 captions are empty once punctuation is removed"),
    ([["a"]] * 5, ["num_candidates=6"], "num_candidates.image_to_text=6, but the gallery of mine has 5 items"),
])  # fmt: skip
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
