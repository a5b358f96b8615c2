"""RLCF on a picture of your own: `python -m captioning.predict --image photo.jpg`.

Caption one picture before and after adapting to it, and show what the reward says on the way.

On the demo's models:

  python -m scripts.demo.make_data output/demo_data
  python -m captioning.predict --image output/demo_data/demo_scenes/noise/images/00014.png \\
    llm=demo/opt checkpoint=demo/clipcap prefix_length=7 mapper_layers=2 decoding.max_new_tokens=24 \\
    policy=demo/policy.pt reward.models=demo/reward.pt num_candidates=6 lr=3e-4
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from captioning import build
from captioning.adapt import Step
from captioning.config import CaptioningConfig
from captioning.method import Answer, Picture
from clipscore.cli import columns, command_parser, describe, read_settings, run_command
from clipscore.data.images import model_input
from clipscore.data.open_image import open_picture
from clipscore.data.records import rounded
from clipscore.data.samples import sample_seed
from clipscore.models.group import load_models


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command_parser("captioning", "configs/captioning/clipcap_c2f.yaml", __doc__)
    parser.add_argument("--image", required=True, metavar="FILE", help="the picture")
    return run_command(parser, predict, show, arguments)


def predict(args: argparse.Namespace) -> dict[str, Any]:
    """Adapt to the picture of a command line; a JSON-able result."""
    config = read_settings(args, CaptioningConfig)
    picture = open_picture(args.image, "--image")
    answer = caption(config, picture, Path(args.image).name)
    return {"image": args.image, "method": describe(config), "checkpoint": config.checkpoint, **result(answer)}


def caption(config: CaptioningConfig, picture: Image.Image, file_name: str) -> Answer:
    """Adapt what the config describes to one picture; what is sampled depends on seed, data set and file name."""
    root = Path(config.pretrained_root)
    checkpoint = build.find_checkpoint(config.checkpoint, [root, Path(config.output_root)])
    build.check_language_model(config.llm, root)
    models = load_models(config)
    clip = models.policy
    captioner = build.load_captioner(config, clip, checkpoint, models.precision)
    method = build.build_method(
        config.model_copy(update={"caption_before": True}), captioner, models.rewards, models.scale_loss
    )
    image = model_input(picture, clip.form).to(models.device).unsqueeze(0)  # [1, 3, H, W]
    features = build.image_features(clip, image, config.normalize_prefix, config.clip_length)
    generator = torch.Generator().manual_seed(sample_seed(config.seed, config.dataset, file_name))
    return method.answer(Picture(build.reward_views(image, clip, models.rewards, picture), features, generator))


def result(answer: Answer) -> dict[str, Any]:
    """The JSON-able part of an answer; numbers as in a run's record."""
    steps: list[dict[str, Any]] = []
    for step in answer.steps:
        pairs = zip(step.captions, step.rewards.tolist(), strict=True)
        candidates = [{"caption": text, "reward": rounded(reward)} for text, reward in pairs]
        steps.append({"loss": rounded(step.loss)} if isinstance(step, Step) else {})
        steps[-1]["candidates"] = candidates
    return {"caption_before": answer.before, "steps": steps, "caption": answer.caption}


def show(found: dict[str, Any]) -> str:
    lines = [found["image"], f"{found['method']}, captioner {found['checkpoint']}"]
    for number, step in enumerate(found["steps"], start=1):
        loss = f"loss {step['loss']:.6g}, " if "loss" in step else ""
        lines += ["", f"step {number}: {loss}rewards of the candidates"]
        lines += columns([[f"{c['reward']:.4f}", c["caption"] or "(empty)"] for c in step["candidates"]])
    told = {"before": found["caption_before"], "after": found["caption"]}
    answers = [[name, text or "(empty)"] for name, text in told.items() if text is not None]
    return "\n".join([*lines, "", *columns(answers, indent="")])


if __name__ == "__main__":
    sys.exit(main())
