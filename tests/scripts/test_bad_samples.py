"""No run stops at one sample: losses that are not finite, and pictures that cannot be read, in all three tasks."""

import json
import struct
import zlib
from pathlib import Path

import pytest
import torch
from PIL import Image

from clipscore.episodic import EpisodicState
from clipscore.task import Task
from scripts import run
from scripts.runs import loop
from scripts.runs.process import Interrupted
from tests.whole_runs import CAPTIONER, CLIPSCORE, results

MODELS = ["policy=demo/policy.pt", "reward.models=demo/reward.pt", "device=cpu", "num_workers=0", "num_threads=1"]
RUNS = {
    "classification": ["rlcf_s_m_encoder", "views.num_views=4", "views.select_fraction=0.5"],
    "retrieval": ["rlcf_s_m_coco", "direction=image_to_text", "num_candidates=3"],
    "captioning": ["capdec_s_m_c2f", *CAPTIONER, *CLIPSCORE, "decoding.max_new_tokens=3", "num_candidates=2"],
}
NUM_SAMPLES, BAD, STOP_AT = 50, (7, 8, 33), 30  # in the order of a run


def start(task: str, output: Path, *words: str) -> int:
    name, *more = RUNS[task]
    steps = ["steps=1", "lr=1e-3", "momentum.update_interval=4", f"output_root={output}"]
    return run.main(["--config", f"configs/{task}/{name}.yaml", *MODELS, *more, *steps, *words])


def only_run(output: Path) -> Path:
    return next(path.parent for path in output.glob("*/summary.json"))


@pytest.mark.parametrize("task", RUNS)
def test_a_loss_that_is_not_finite_is_answered_without_adaptation(tmp_path, roots, demo_data, monkeypatch, task):
    monkeypatch.setattr(loop, "CARRY_INTERVAL", 8)
    seen, bad = list[str](), list[str]()
    in_order, episode, step = loop.in_order, Task._episode, EpisodicState.step

    def watched(self, sample):
        seen.append(sample.id)
        if len(seen) == STOP_AT:
            raise Interrupted(15)
        return episode(self, sample)

    def bad_step(self, loss):
        return step(self, loss * torch.nan if seen[-1] in bad else loss)

    def order(ids, config):
        ids = in_order(ids, config)
        bad.extend([] if bad else [ids[number] for number in BAD])
        return [key for key in ids if without_bad is False or key not in bad]

    monkeypatch.setattr(loop, "in_order", order)
    monkeypatch.setattr(Task, "_episode", watched)
    monkeypatch.setattr(EpisodicState, "step", bad_step)
    words = [f"data_root={demo_data}", f"dataset={'demo/noise' if task == 'classification' else 'demo_scenes/noise'}"]
    without_bad = False
    assert start(task, tmp_path / "a", *words, f"limit={NUM_SAMPLES}") == 128 + 15
    assert start(task, tmp_path / "a", *words, f"limit={NUM_SAMPLES}") == 0
    without_bad = True
    assert start(task, tmp_path / "b", *words, f"limit={NUM_SAMPLES - len(BAD)}") == 0
    (summary, rows), (_, others) = (results(only_run(tmp_path / name)) for name in "ab")
    marked = [row for row in rows if row.get("unadapted")]
    assert len(rows) == NUM_SAMPLES and [row["id"] for row in marked] == bad and summary["num_unadapted"] == len(BAD)
    assert summary["num_samples"] == NUM_SAMPLES and summary["num_errors"] == 0
    assert [row for row in rows if row not in marked] == others  # and those after a bad one start from the same weights
    for row in marked:
        assert not row.get("loss") and row.get("caption") != ""
        assert all(row.get(key) == row.get(f"{key}_before") for key in ("top5", "rank"))
    carries = [torch.load(only_run(tmp_path / name) / "carry.pt")["state"] for name in "ab"]
    assert carries[0]["num_samples"] == carries[1]["num_samples"]
    assert all(torch.equal(average, carries[1]["average"][key]) for key, average in carries[0]["average"].items())


def write_pictures(folder: Path) -> list[Path]:
    """Pictures, the first four of them cut off, empty, a web page, and one that says it has 10 gigapixels."""
    folder.mkdir(parents=True)
    paths = [folder / f"{number:02}.jpg" for number in range(NUM_SAMPLES)]
    for number, path in enumerate(paths):
        Image.effect_noise((64, 64), 10 + number).convert("RGB").save(path)
    paths[0].write_bytes(paths[0].read_bytes()[:-600])
    paths[1].write_bytes(b"")
    paths[2].write_text("<!doctype html>")
    head = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + bytes(4) + b"IDAT"
    paths[3].write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    return paths


@pytest.mark.parametrize("task", RUNS)
def test_pictures_that_cannot_be_read_are_counted(tmp_path, roots, task, capsys):
    paths = write_pictures(tmp_path / "own/a")
    (tmp_path / "own/b").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "own/b/x.png")
    entries = [{"image": f"a/{path.name}", "caption": ["a", "b"]} for path in paths]
    (tmp_path / "own/mine.json").write_text(json.dumps(entries))
    files = {"images": tmp_path / "own", "annotations": tmp_path / "own/mine.json"}
    if task == "classification":
        del files["annotations"]
    words = ["dataset=mine", *(f"dataset_files.{key}={path}" for key, path in files.items()), "num_candidates=2"]
    assert start(task, tmp_path / "output", *words) == 0
    summary, rows = results(only_run(tmp_path / "output"))
    assert (len(rows), summary["num_samples"]) == (NUM_SAMPLES + (task == "classification"), len(rows) - 3)
    assert (summary["num_errors"], summary["num_truncated"]) == (3, 1) and sum("truncated" in row for row in rows) == 1
    errors = {Path(row["id"]).stem: row["error"] for row in rows if "error" in row}
    assert ["empty" in errors["01"], "web page" in errors["02"], "Bomb" in errors["03"]] == [True] * 3
    said = capsys.readouterr()
    assert said.err.count("00.jpg is cut off") == 1 and "num_errors  num_truncated" in said.out
    assert start(task, tmp_path / "strict", *words, "strict_images=true") == 0
    assert results(only_run(tmp_path / "strict"))[0]["num_errors"] == 4
    assert start(task, tmp_path / "stop", *words, "on_error=stop") == 1
    if task == "retrieval":
        assert start(task, tmp_path / "gallery", *words, "direction=text_to_image") == 2
        assert "01.jpg: the file is empty" in capsys.readouterr().err
        assert not list(tmp_path.glob("gallery/*/rows.jsonl"))
