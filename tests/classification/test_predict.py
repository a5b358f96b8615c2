"""`python -m classification.predict` on drawn pictures: it prints what a run records, and says what is wrong."""

import json
from pathlib import Path

import pytest

from classification.data.class_names import class_names
from classification.predict import __doc__ as HELP
from classification.predict import main, read_classes
from scripts import run
from scripts.demo.make_data import write_classes
from scripts.demo.scenes import CLASS_NAMES
from scripts.demo.styles import test_pictures as drawn_pictures
from tests.whole_runs import assert_one_sentence, screen_of_example

CLASSES = ["red zero", "blue five", "green seven", "red eight"]
MODELS = ["policy=demo/policy.pt", "reward.models=demo/reward.pt", "device=cpu"]
pytestmark = pytest.mark.usefixtures("roots")
QUICK = [*MODELS, "views.num_views=4", "views.select_fraction=1.0", "steps=2", "num_candidates=2", "num_workers=0"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A picture of each class, 0.png and on, with a split file."""
    folder = tmp_path_factory.mktemp("pictures")
    found, labels = drawn_pictures("sketch")
    entries = []
    for number, name in enumerate(CLASSES):
        found[labels.index(CLASS_NAMES.index(name))].save(folder / f"{number}.png")
        entries.append([f"{number}.png", number, name])
    (folder / "split.json").write_text(json.dumps({"train": [], "val": [], "test": entries}))
    return folder


def test_an_interrupt_ends_it_quietly(pictures, monkeypatch, capsys, caplog):
    def interrupted(*_) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("classification.predict.classify", interrupted)
    assert main(["--image", str(pictures / "0.png"), "--classes", ",".join(CLASSES), *QUICK]) == 130
    assert (capsys.readouterr().out, caplog.text) == ("", "")


@pytest.mark.parametrize("name", ["rlcf_prompt", "rlcf_encoder"])
def test_prints_what_a_run_records(pictures, roots, capsys, name):
    config = f"configs/classification/{name}.yaml"
    files = [f"dataset_files.images={pictures}", f"dataset_files.split_file={pictures / 'split.json'}"]
    words = [*QUICK, "dataset=photos", *files, "lr=1e-3"]
    assert run.main(["--config", config, *words]) == 0
    rows = [json.loads(line) for line in (roots / f"output/{name}__photos__seed0/rows.jsonl").read_text().splitlines()]
    row = next(row for row in rows if row["id"] == "1.png")
    capsys.readouterr()

    command = ["--image", str(pictures / "1.png"), "--classes", ",".join(CLASSES), "--config", config, *words]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [answer["class"] for answer in found["before"]] == [CLASSES[label] for label in row["top5_before"]]
    assert [answer["class"] for answer in found["after"]] == [CLASSES[label] for label in row["top5"]]
    assert found["before"][0]["probability"] == pytest.approx(row["confidence_before"], rel=1e-4)
    assert found["after"][0]["probability"] == pytest.approx(row["confidence"], rel=1e-4)
    assert row["selected"] != sorted(row["selected"])  # so that an order which is lost is seen
    assert found["selected"] == row["selected"] and found["entropy"] == pytest.approx(row["entropy"], rel=1e-4)
    assert [step["loss"] for step in found["steps"]] == pytest.approx(row["loss"], rel=1e-4)
    for step, candidates, rewards in zip(found["steps"], row["candidates"], row["rewards"], strict=True):
        assert [view["view"] for view in step["views"]] == row["selected"]
        for view, labels, earned in zip(step["views"], candidates, rewards, strict=True):
            assert [candidate["class"] for candidate in view["candidates"]] == [CLASSES[label] for label in labels]
            assert [candidate["reward"] for candidate in view["candidates"]] == pytest.approx(earned, rel=1e-4)

    assert main(command) == 0
    text = capsys.readouterr().out
    share = f"{found['before'][0]['probability']:.2%}"
    (first,) = [line for line in text.splitlines() if line.lstrip().startswith(share)]
    assert first.split("  ")[-1].strip() == found["after"][0]["class"]


def test_a_method_without_candidates_shows_its_loss(pictures, capsys):
    words = ["policy=demo/policy.pt", "device=cpu", "views.num_views=4", "views.select_fraction=0.5"]
    config = ["--config", "configs/classification/tpt_prompt.yaml"]
    assert main(["--image", str(pictures / "0.png"), "--classes", "red zero,red one", *config, *words]) == 0
    assert "step 1: loss " in capsys.readouterr().out


def test_classes_come_from_a_list_a_file_or_a_data_set(tmp_path):
    (tmp_path / "names.txt").write_text("\ufeffa dog, lying\n\n cat \n")
    assert read_classes(str(tmp_path / "names.txt")) == ["a dog, lying", "cat"]
    assert read_classes("cat, dog,") == ["cat", "dog"]
    assert read_classes("imagenet_a") == class_names("imagenet_a")
    assert len(read_classes("Pets")) == 37


@pytest.mark.parametrize(("words", "message"), [
    (["--classes", "cat"], "one class, 'cat', and no file of that name; give at least two"),
    (["--classes", ","], "no class; give at least two"),
    (["--classes", "cat,hot_dog,hot dog"], "'hot dog' is there twice"),
    (["--classes", "cat,dog", "num_candidates=3"], "--classes has 2 classes; .*: add num_candidates=2 to"),
    (["--image", "none.png"], "--image none.png: there is no such file"),
    (["--image", "{folder}/split.json"], "split.json: cannot be read as an image"),
    (["policy=demo/none.pt"], "none.pt"),
    (["lr=much", "view=3"], "lr: received 'much' .*\n.* view: unknown key"),
    (["--config", "configs/retrieval/rlcf_coco.yaml"], "needs a file of configs/classification/"),
    (["word"], "'word' is not an override"),
    (["--config", "configs/classification/zero_shot.yaml"], "method=zero_shot"),
])  # fmt: skip
def test_bad_input_is_one_sentence(pictures, caplog, words, message):
    words = [word.format(folder=pictures) for word in words]
    given = ["--image", str(pictures / "0.png"), "--classes", "cat,dog"]
    assert main([*given, *QUICK, *words]) == 2
    assert_one_sentence(caplog, message)


def test_the_example_of_the_help_works(tmp_path, capsys):
    write_classes(drawn_pictures("sketch"), "sketch", tmp_path / "demo")
    lines = [line.split() for line in screen_of_example(HELP, tmp_path, capsys)]
    assert ["before", "after"] in lines and lines[-5][1:3] == ["red", "eight"] and lines[-5][4:] == ["red", "five"]
