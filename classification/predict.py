"""RLCF on a picture of your own: `python -m classification.predict --image photo.jpg --classes "cat,dog,..."`.

Classify one picture before and after adapting to it, and show what the reward says on the way.

On the demo's models:

  python -m scripts.demo.make_data output/demo_data
  python -m classification.predict --image output/demo_data/demo/sketch/05_red_five/022.png \\
    --classes "red zero,red one,red two,red three,red four,red five,red six,red seven,red eight,red nine" \\
    policy=demo/policy.pt reward.models=demo/reward.pt steps=4 \\
    views.num_views=16 views.select_fraction=0.375 views.crop_scale=[0.5,1.0]
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from classification.build import build_method, check_candidates
from classification.config import ClassificationConfig
from classification.data.class_names import check_distinct, class_names
from classification.data.layouts import LAYOUTS, canonical_name
from classification.method import Answer, classify
from classification.prompt_learner import load_prompt_start
from classification.views import make_views
from clipscore.cli import columns, command_parser, describe, read_settings, run_command
from clipscore.data.checks import read_lines
from clipscore.data.open_image import open_picture
from clipscore.data.records import rounded
from clipscore.data.samples import sample_seed
from clipscore.models.group import load_models
from clipscore.objectives import RlcfStep

NUM_ANSWERS = 5
NUM_SHOWN = 6  # views in the text; the JSON has all


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = command_parser("classification", "configs/classification/rlcf_prompt.yaml", __doc__)
    parser.add_argument("--image", required=True, metavar="FILE", help="the picture")
    what = "names separated by commas, a file with one name per line, or the classes of a data set (imagenet, ...)"
    parser.add_argument("--classes", required=True, metavar="LIST", help=what)
    return run_command(parser, predict, show, arguments)


def predict(args: argparse.Namespace) -> dict[str, Any]:
    """Adapt to the picture of a command line; a JSON-able result."""
    config = read_settings(args, ClassificationConfig)
    names = read_classes(args.classes)
    check_candidates(config.model_copy(update={"dataset": "--classes"}), len(names))
    picture, views = open_picture(args.image, "--image"), config.views
    start = load_prompt_start(config.prompt_start, [Path(config.pretrained_root)]) if config.prompt_start else None
    models = load_models(config)
    method = build_method(config, models, names, start)
    seed = sample_seed(config.seed, config.dataset, Path(args.image).name)
    drawn = make_views(picture, views.num_views, models.policy.form, seed, **views.drawing).to(models.device)
    about = {"image": args.image, "method": describe(config), "num_classes": len(names)}
    return about | result(classify(method, method.context.views(drawn)), names, views.num_views)


def read_classes(text: str) -> list[str]:
    """Names in a file, between commas, or of a data set; ValueError: fewer than two, or one that is there twice."""
    is_file = os.path.isfile(text)
    if not is_file and "," not in text and len(text) > 1:  # a single letter is a class that stands alone
        dataset = canonical_name(text)
        if dataset is not None and dataset.split("/")[0] in LAYOUTS:
            return class_names(dataset)
    names = [name.strip() for name in (read_lines(text, "--classes") if is_file else text.split(",")) if name.strip()]
    if len(names) < 2:
        found = f"one class, {names[0]!r}" if names else "no class"
        found += "" if is_file or "," in text else ", and no file of that name"
        mend = f'separated by commas ("cat,dog"), a file with one name per line, or a data set: {", ".join(LAYOUTS)}'
        raise ValueError(f"--classes {text}: {found}; give at least two, {mend}")
    check_distinct(f"--classes {text}", names)
    return names


def result(answer: Answer, names: Sequence[str], num_views: int) -> dict[str, Any]:
    """The JSON-able part of an answer: numbers as in a run's record, classes by name."""
    assert answer.before is not None
    selected = [] if answer.selected is None else answer.selected.tolist()
    steps: list[dict[str, Any]] = []
    for step in answer.steps or ():
        shown: dict[str, Any] = {"loss": rounded(step.loss)}
        if isinstance(step, RlcfStep):
            shown["views"] = []
            for view, labels, rewards in zip(selected, step.candidates.tolist(), step.rewards.tolist(), strict=True):
                pairs = zip(labels, rewards, strict=True)
                candidates = [{"class": names[label], "reward": rounded(reward)} for label, reward in pairs]
                shown["views"].append({"view": view, "candidates": candidates})
        steps.append(shown)
    entropy = [] if answer.entropy is None else rounded(answer.entropy)
    found = {"num_views": num_views, "selected": selected, "entropy": entropy, "steps": steps}
    return found | {"before": answers(answer.before, names), "after": answers(answer.logits, names)}


def answers(logits: Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
    """The most likely classes, best first. [C]"""
    top = logits.double().softmax(0).topk(min(NUM_ANSWERS, len(names)))
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return [{"class": names[label], "probability": rounded(probability)} for label, probability in pairs]


def show(found: dict[str, Any]) -> str:
    """A result as text."""
    selected = found["selected"]
    lines = [f"{found['image']}: {found['num_classes']} classes", found["method"], ""]
    lines += [f"{len(selected)} of {found['num_views']} views are kept (0 is the centre view), entropy in nats"]
    kept = zip(selected, found["entropy"], strict=True)
    lines += columns([[f"view {view}", f"{entropy:.4f}"] for view, entropy in list(kept)[:NUM_SHOWN]])
    for number, step in enumerate(found["steps"], start=1):
        lines += ["", f"step {number}: loss {step['loss']:.6g}" + (", candidates and rewards" * ("views" in step))]
        table = []
        for view in step.get("views", [])[:NUM_SHOWN]:
            cells = [cell for c in view["candidates"] for cell in (c["class"], f"{c['reward']:.4f} ")]
            table.append([f"view {view['view']}", *cells])
        lines += columns(table)
    if len(selected) > NUM_SHOWN:
        lines += ["", f"{len(selected) - NUM_SHOWN} more views are in --json"]
    rows = [["before", "", "after", ""]]
    for before, after in zip(found["before"], found["after"], strict=True):
        rows.append([text for a in (before, after) for text in (f"{a['probability']:7.2%}", f"{a['class']}  ")])
    return "\n".join([*lines, "", *columns(rows, indent="")])


if __name__ == "__main__":
    sys.exit(main())
