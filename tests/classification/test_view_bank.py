"""The bank of view features: the numbers of a run without it, and never those of other weights, views or images."""

import shutil
import sqlite3

import pytest
import torch

from classification import task as task_module
from scripts import run
from tests.whole_runs import results

WORDS = ["policy=demo/policy.pt", "views.num_views=8", "views.select_fraction=0.5", "views.crop_scale=[0.5,1]"]
WORDS += ["limit=3", "num_workers=0", "device=cpu", "num_threads=1", "dataset=demo/sketch"]
REWARD = ["reward.models=demo/reward.pt"]


@pytest.fixture
def start(tmp_path, roots, demo_data, monkeypatch):
    shutil.copytree(demo_data / "demo/sketch", tmp_path / "data/demo/sketch", copy_function=shutil.copyfile)
    monkeypatch.setenv("RLCF_DATA", str(tmp_path / "data"))
    opened = []
    plain = task_module.open_image
    monkeypatch.setattr(task_module, "open_image", lambda path, **how: opened.append(path.name) or plain(path, **how))

    def start(name, *words, config="rlcf_prompt"):
        opened.clear()
        more = REWARD if config == "rlcf_prompt" else []
        file = f"configs/classification/{config}.yaml"
        assert run.main(["--config", file, *WORDS, *more, *words, f"name={name}"]) == 0
        summary, rows = results(tmp_path / "output" / f"{name}__demo-sketch__seed{'seed=1' in words:d}")
        return (summary | {"name": ""}, rows), len(opened)

    return start


def test_a_second_run_opens_no_image_and_has_the_records_of_a_run_without_a_bank(start, tmp_path):
    first, opened = start("first", "view_cache=true")
    assert (first, opened) == (start("plain")[0], 3)
    again, opened = start("again", "view_cache=true", "lr=1e-2", "num_candidates=2")
    assert opened == 0 and again == start("plain_again", "lr=1e-2", "num_candidates=2")[0] != first
    wider, opened = start("wider", "view_cache=true", "views.select_fraction=0.75")  # two more rewards of each image
    rows, expected = wider[1], start("plain_wider", "views.select_fraction=0.75")[0][1]
    assert opened == 3 and [row["selected"] for row in rows] == [row["selected"] for row in expected]
    for row, plain in zip(rows, expected, strict=True):  # of another batch: other last digits
        assert row["loss"] == pytest.approx(plain["loss"], abs=1e-4)
    assert start("widest", "view_cache=true", "views.select_fraction=0.75", "steps=1")[1] == 0
    assert start("tpt", "view_cache=true", config="tpt_prompt")[1] == 0
    assert start("seed", "view_cache=true", "seed=1")[1] == 3
    assert start("byol", "view_cache=true", "views.recipe=byol")[1] == 3
    image = tmp_path / "data/demo/sketch" / rows[0]["id"]
    image.write_bytes(image.read_bytes() + b"0")
    assert start("touched", "view_cache=true")[1] == 1


def test_what_is_wrong_with_a_bank_is_a_sentence(start, tmp_path, monkeypatch, capsys):
    start("first", "view_cache=true")
    files = sorted((tmp_path / "output/views").glob("*.sqlite"))
    assert len(files) == 2  # policy and reward
    command = ["--config", "configs/classification/rlcf_prompt.yaml", *WORDS, *REWARD, "view_cache=true", "name=x"]
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1, 1, 0))
    assert run.main([*command, "limit=9"]) == 2 and "view_cache needs" in capsys.readouterr().err
    with sqlite3.connect(files[0]) as database:
        database.execute("update about set origin = 'other'")
    assert run.main(command) == 2 and "holds features of other weights or views" in capsys.readouterr().err
    files[0].write_bytes(b"no database" * 100)
    assert run.main(command) == 2 and "delete it, its features are made again" in capsys.readouterr().err
    assert run.main([*command, "tune=encoder"]) == 2 and "but tune=encoder changes it" in capsys.readouterr().err
    assert torch.is_grad_enabled()
