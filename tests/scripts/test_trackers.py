"""Figures of runs and trainings in TensorBoard's event files and in an offline run of W&B."""

import json
import sys
from pathlib import Path

import pytest

from scripts import run

CONFIG = "configs/classification/rlcf_prompt.yaml"
WORDS = [
    "dataset=demo/sketch", "policy=demo/policy.pt", "reward.models=demo/reward.pt", "steps=2", "limit=3", "device=cpu",
    "views.num_views=4", "views.select_fraction=0.5", "num_workers=0", "num_threads=1",
]  # fmt: skip


def start(tracker: str) -> int:
    return run.main(["--config", CONFIG, *WORDS, f"log_to={tracker}"])


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="pip install tensorboard: log_to is not tested"
    )
    events = accumulator.EventAccumulator(str(folder / "tensorboard")).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_has_accuracy_and_reward(roots):
    pytest.importorskip("tensorboard", reason="pip install tensorboard: log_to is not tested")
    assert start("tensorboard") == 0
    [folder] = (roots / "output").iterdir()
    summary = json.loads((folder / "summary.json").read_text())
    found = scalars(folder)
    assert found["accuracy"] == [(2, pytest.approx(summary["accuracy"]))]
    rows = [json.loads(line)["rewards"] for line in (folder / "rows.jsonl").read_text().splitlines()]
    first = [value for row in rows for view in row[0] for value in view]
    assert [step for step, _ in found["reward"]] == [0, 1]
    assert found["reward"][0][1] == pytest.approx(sum(first) / len(first), rel=1e-5)


def test_wandb_offline(roots, monkeypatch):
    pytest.importorskip("wandb", reason="pip install wandb: log_to=wandb is not tested")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert start("wandb") == 0
    [folder] = (roots / "output").iterdir()
    [stored] = folder.glob("wandb/offline-run-*/*.wandb")
    assert b"accuracy" in stored.read_bytes() and b"reward" in stored.read_bytes()


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_without_the_package_a_run_does_not_start(roots, monkeypatch, capsys, package):
    monkeypatch.setitem(sys.modules, "wandb" if package == "wandb" else "torch.utils.tensorboard", None)
    assert start(package) == 2
    assert f"log_to={package} needs a package more: python -m pip install {package}" in capsys.readouterr().err
    assert not (roots / "output").exists()
