"""The ladder on the demo's models: a healthy run climbs it, and each seeded fault is named as the most likely cause."""

import json
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import open_clip
import pytest

from clipscore.cli import DONE, REFUSED
from clipscore.clip_model import CLIP_MEAN, CLIP_STD
from clipscore.config.load import REPOSITORY
from scripts.reproduce import rungs
from scripts.reproduce.__main__ import OFF, describe, main
from scripts.reproduce.rungs import Outcome, Rung, tolerance
from scripts.runs.samples import Run, Sample
from scripts.tables.paper import Column, PaperRun, PaperTable, Row, paper_tables

FIGURES = REPOSITORY / "scripts/reproduce/demo_tables.json"
WORDS = ["num_workers=0", "num_threads=1", "device=cpu"]


@pytest.fixture
def ladder(roots, demo_data, monkeypatch, capsys):
    """Climb with the demo's test sets, or a changed copy of them; the exit code and what was printed."""

    def climb(*words, data=demo_data, figures=FIGURES):
        monkeypatch.setenv("RLCF_DATA", str(data))
        code = main(["--figures", str(figures), "--samples", "40", *WORDS, *words])
        return code, capsys.readouterr().out

    return climb


@pytest.fixture
def zero_shot(tmp_path):
    """Figures of zero-shot on one data set."""

    def figures(dataset):
        table = json.loads(FIGURES.read_text())["demo"]
        columns = [column for column in table["columns"] if column["key"] == dataset]
        table |= {"columns": columns, "rows": table["rows"][:1]}
        file = tmp_path / f"{dataset}.json"
        file.write_text(json.dumps({"demo": table}))
        return file

    return figures


@pytest.fixture
def copied(demo_data, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(demo_data / "demo/sketch", data / "demo/sketch", copy_function=shutil.copyfile)
    for path in [data, *data.rglob("*")]:
        path.chmod(0o755)
    return data


def test_a_healthy_run_climbs_the_ladder_and_another_precision_on_a_gpu_is_named(ladder, roots):
    code, text = ladder()
    assert code == DONE and text.count("✓") == 6 and text.endswith("all that was run is as expected\n")
    assert "demo, zero-shot, 240 samples: sketch accuracy 45.0 (expected 45.0 ± 0.15)" in text
    [folder] = (roots / "output").glob("rlcf_encoder*")
    env = json.loads((folder / "env.json").read_text())
    env["fingerprint"]["precision"] = "torch.bfloat16"
    env["environments"][0]["gpu"] = "a GPU"
    (folder / "env.json").write_text(json.dumps(env))
    code, text = ladder()
    assert code == OFF and "most likely: the precision is bfloat16" in text and text.count("✓") == 2


def test_a_wrong_prompt(ladder, zero_shot):
    code, text = ladder("prompt=a_photo_of_a", figures=zero_shot("sketch"))
    assert code == OFF and "most likely: the prompt is 'a_photo_of_a'" in text and "prompt='a photo of a'" in text


def test_a_wrong_order_of_classes(ladder, zero_shot, copied):
    file = copied / "demo/sketch/classnames.txt"
    folders, names = zip(*(line.split(" ", 1) for line in file.read_text().splitlines()), strict=True)
    file.write_text("".join(f"{folder} {name}\n" for folder, name in zip(folders, names[1:] + names[:1], strict=True)))
    code, text = ladder(data=copied, figures=zero_shot("sketch"))
    assert code == OFF and "most likely: class names are in another order than the labels" in text


def test_half_of_the_images(ladder, zero_shot, copied):
    for image in sorted(copied.rglob("*.png"))[::2]:
        image.unlink()
    code, text = ladder("partial=true", data=copied, figures=zero_shot("sketch"))
    assert code == OFF and "most likely: the data are not whole: 120 of 240 samples" in text


def test_a_wrong_activation(ladder, zero_shot, tmp_path):
    weights = REPOSITORY / "pretrained/demo/policy.pt"
    vision = {"image_size": 24, "patch_size": 4, "width": 64, "head_width": 64, "layers": 3}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 3}
    sizes = {"embed_dim": 128, "vision_cfg": vision, "text_cfg": text}
    for name, options in {"Demo": {}, "Demo-quickgelu": {"quick_gelu": True}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(sizes | options))
        open_clip.add_model_config(tmp_path / f"{name}.json")
    weights = Path(shutil.copy(weights, tmp_path / "policy.pt"))
    seen = {"mean": CLIP_MEAN, "std": CLIP_STD}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"preprocess_cfg": seen}))
    code, shown = ladder(f"policy=Demo:{weights}", figures=zero_shot("noise"))
    assert code == OFF and "belong to the other activation" in shown
    assert f"give policy=Demo-quickgelu:{weights}" in shown


def test_what_is_missing_is_said_before_anything_runs(ladder, roots, caplog):
    assert ladder("table9")[0] == REFUSED and "has no table9; there are: demo" in caplog.text
    assert ladder("limit=5", "dataset=demo/blur")[0] == REFUSED and "rung has its own dataset, limit;" in caplog.text
    assert ladder("policy=nowhere.pt")[0] == REFUSED and "no row of the tables has a figure and all" in caplog.text
    assert caplog.text.count("nowhere.pt") == 3  # three rungs need it: with the places that were tried, once
    assert not (roots / "output").exists()


def test_a_figure_that_is_most_likely_a_slip_is_no_rung():
    [*_, (_, whole)] = rungs.ladder([paper_tables()["table1"]], 500)
    found = [rung.columns[0].key for rung in whole if rung.row.label == "RLCF, prompt"]
    assert "imagenet_v2" not in found and len(found) == 4 and len(whole) == 17 * 5 - 1


def test_a_row_that_lacks_something_is_left_out(ladder, zero_shot, caplog):
    file = zero_shot("sketch")
    table = json.loads(file.read_text())
    [row] = table["demo"]["rows"]
    [run] = row["runs"]
    lacking = row | {"label": "CoCoOp", "runs": [run | {"overrides": ["prompt_start=nowhere", "name=lacking"]}]}
    file.write_text(json.dumps({"demo": table["demo"] | {"rows": [lacking, row]}}))
    code, text = ladder(figures=file)
    assert code == REFUSED and text.count("✓") == 3 and "CoCoOp" not in text
    assert caplog.text.count("left out: demo, CoCoOp, demo/sketch") == 2  # before and after


@pytest.mark.parametrize(("per_class", "right", "shift"), [(3, 0.74, 1), (2, 0.74, 1), (3, 0.55, 0), (1, 0.5, 0)])
def test_an_order_is_named_only_where_pictures_of_a_class_agree(per_class, right, shift):
    draw = random.Random(0)
    tops = [(seen, seen if draw.random() < right else draw.randrange(200)) for seen in [*range(200)] * per_class]
    rows = [{"label": (seen + shift) % 200, "top5": [top]} for seen, top in tops]
    run = SimpleNamespace(collect=lambda project: dict(enumerate(map(project, rows))), about={})
    accuracy = 100 * sum(row["label"] == row["top5"][0] for row in rows) / len(rows)
    table = PaperTable("t", "", "classification", 2, [], [])
    allowed = tolerance(table, 74.0, len(rows), 7500, adapts=True)
    outcome = Outcome(run, len(rows), [(Column("a", "A", metric="accuracy"), accuracy, 74.0, allowed)])
    found = rungs._class_order(SimpleNamespace(table=table), outcome)
    assert any(cause.distance <= rungs.CLOSED * outcome.distance for cause in found) == bool(shift)


def test_figures_are_those_of_the_samples_that_the_summary_is_of(roots, monkeypatch):
    config = "configs/captioning/eval_clipcap.yaml"
    columns = [Column(key, key, "flickr30k", metric=key) for key in ("cider", "spice")]
    wanted = PaperRun("", config, ["metrics=[cider]"], ["flickr30k"])
    table = PaperTable("t", "", "captioning", 1, columns, [])
    rung = Rung(table, Row("", "ClipCap", [wanted], {"cider": 50.0, "spice": 13.0}), wanted, columns, limit=500)
    run = Run(roots, rung.config().model_dump(), {}, [], {}, {"num_samples": 500, "cider": 49.0})
    monkeypatch.setattr(Run, "collect", lambda self, project: {str(number): Sample() for number in range(700)})
    monkeypatch.setattr(rungs, "open_run", lambda path: run)
    monkeypatch.setattr(rungs, "run_one", lambda config: None)
    outcome = rungs.climb(rung, [])  # a whole run that was stopped after 700
    assert outcome.num_samples == 500 and "cider cider 49.0" in describe(rung, outcome)
    assert describe(rung, outcome).endswith(", spice spice not computed")
