"""Run folders with a handful of records and pictures, written by hand; names in them try to be markup."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tests.scripts.synthetic_runs import write_files

HOSTILE = "</script><img src=x onerror=alert(1)>{{title}}"
NAMES = ["cat", HOSTILE, "dog & <b>bone</b>", "bird"]
CAPTION = 'a <script>alert("dog")</script> of & a cat'
STAGES = {"views": 0.01, "policy": 0.02, "reward": 0.03, "update": 0.04}
NEW_FIELDS = {"brier_before", "brier", "entropy", "step_top1", "step_rank", "moved", "seconds_stages"}
NEW_FIELDS |= {"seconds_waiting"}
VIEWS = {"num_views": 4, "select_fraction": 0.5, "recipe": "crop", "crop_scale": None}


def write_run(
    folder: Path, task: str, rows: Sequence[dict[str, Any]], summary: dict[str, Any] | None = None, **config: Any
) -> Path:
    """A run folder named after its config's name; `about` may be given among the config's keys."""
    about = config.pop("about", {})
    config = {"task": task, "dataset": "mine", "name": folder.name, "seed": 3, "method": "rlcf", **config}
    environment = {"commit": "0123456789", "gpu": None, "packages": {"torch": "2.0"}}
    summary = None if summary is None else {"num_samples": len(rows), "num_errors": 0, **summary}
    stored = {"fingerprint": {"data": "ab"}, "environments": [environment]}
    return write_files(folder, config, stored, map(json.dumps, rows), summary, about)


def pictures(root: Path, count: int) -> list[str]:
    """Coloured pictures, 0.png and so on; their ids."""
    root.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        picture = Image.new("RGB", (60, 40), (200, 30 * number % 256, 40))
        picture.paste((20, 60, 220), (0, 0, 30, 20))
        picture.save(root / f"{number}.png")
    return [f"{number}.png" for number in range(count)]


def classified(key: str, before: int, after: int, label: int = 0, **more: Any) -> dict[str, Any]:
    """A record of a picture with these answers: two steps, views 0 and 2 selected, K = 2."""
    rewards = [[[1.0, 0.5], [0.8, 0.4]], [[1.2, 0.6], [1.0, 0.8]]]
    return {
        "id": key, "label": label, "top5_before": [before, 3], "top5": [after, 3],
        "confidence_before": 0.5, "confidence": 0.9, "brier_before": 0.4, "brier": 0.2,
        "selected": [0, 2], "entropy": [0.25, 0.75], "step_top1": [before, after], "loss": [0.5, -0.5],
        "candidates": [[[0, 1], [0, 2]], [[0, 1], [1, 0]]], "rewards": rewards, "moved": 0.25,
        "seconds": 0.1, "seconds_stages": STAGES, "seconds_waiting": 0.05, **more,
    }  # fmt: skip


def classification_run(folder: Path, rows: Sequence[dict[str, Any]] | None = None, **more: Any) -> Path:
    """Six pictures: two fixed, one broken, one right and two wrong both times."""
    keys = pictures(folder.parent / "images", 6)
    answers = [(1, 0), (2, 0), (0, 1), (0, 0), (1, 2), (1, 1)]
    if rows is None:
        rows = [classified(key, *pair) for key, pair in zip(keys, answers, strict=True)]
    about = {"root": str(folder.parent / "images"), "class_names": NAMES}
    config = {"about": about, "views": VIEWS, "tune": "encoder", "steps": 2, "summary": {"accuracy": 50.0}}
    return write_run(folder, "classification", rows, **{**config, **more})


def retrieval_run(folder: Path, direction: str = "text_to_image") -> Path:
    """Three queries over three items: ranks 2 to 1, 1 to 3, 1 to 1."""
    keys = pictures(folder.parent / "images", 3)
    by_text = direction == "text_to_image"
    gallery = keys if by_text else [CAPTION, "a dog", "a bird"]
    rows = [
        {
            "id": f"{key}#0" if by_text else key, **({"text": CAPTION} if by_text else {}),
            "rank_before": was, "rank": now, "top10_before": [0, 1, 2], "top10": [1, 0, 2], "loss": [0.1, 0.2],
            "candidates": [[0, 1], [1, 2]], "rewards": [[0.5, 1.0], [1.0, 0.0]], "step_rank": [was, 1],
            "moved": 0.0, "seconds": 0.1, "seconds_stages": STAGES,
        }
        for key, was, now in zip(keys, (2, 1, 1), (1, 3, 1), strict=True)
    ]  # fmt: skip
    about = {"root": str(folder.parent / "images"), "direction": direction, "gallery": gallery}
    return write_run(folder, "retrieval", rows, summary={"r1": 66.7}, about=about, direction=direction)


def captioning_run(folder: Path) -> Path:
    """Three pictures: the reward rises by 0.5, falls by 0.25, stays."""
    keys = pictures(folder.parent / "images", 3)
    rows = [
        {
            "id": key, "image_id": key, "caption_before": "a cat", "caption": CAPTION, "references": ["a cat", CAPTION],
            "captions": [["a cat", CAPTION], [CAPTION, "a dog"]],
            "rewards": [[1.0, 0.5], [1.0 + gain, 0.5 + gain]], "loss": [0.1, 0.2],
            "moved": 1.5, "seconds": 0.1, "seconds_stages": STAGES,
        }
        for key, gain in zip(keys, (0.5, -0.25, 0.0), strict=True)
    ]  # fmt: skip
    summary = {"clipscore_before": 70.0, "clipscore": 75.5, "cider": 90.0}
    return write_run(folder, "captioning", rows, summary=summary, about={"root": str(folder.parent / "images")})
