"""Zero-shot accuracy of the demo's models on every style: `python -m scripts.demo.evaluate [--weights FOLDER]`."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clipscore.clip_model import CLIP_MEAN, CLIP_STD, ClipModel
from clipscore.clip_weights import load_clip
from scripts.demo.scenes import CLASS_NAMES
from scripts.demo.styles import TEST_SEVERITY, test_pictures

log = logging.getLogger(__name__)

DEFAULT_FOLDER = Path("pretrained/demo")
MODEL_NAMES = ("policy", "reward")
PROMPTS = ("a photo of a {}.", "a_photo_of_a {}.")  # of prompt tuning; of encoder tuning


def as_clip_batch(pictures: list[Image.Image]) -> Tensor:
    """RGB pictures of one size to a batch with CLIP's mean and deviation: [B, 3, H, W]."""
    pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[:, None, None]


@torch.no_grad()
def zero_shot_accuracy(model: ClipModel, style: str, prompt: str) -> float:
    """Top-1 accuracy on the test set of a style, percent; the class name goes into the prompt's braces."""
    texts = model.encode_token_ids(model.tokenize([prompt.format(name) for name in CLASS_NAMES]))
    pictures, labels = test_pictures(style)
    images = model.encode_images(as_clip_batch(pictures))
    correct = (images @ texts.T).argmax(dim=-1) == torch.tensor(labels)  # [B, D] @ [D, C] -> [B, C] -> [B]
    return 100 * correct.float().mean().item()


def accuracy_table(folder: Path, names: tuple[str, ...] = MODEL_NAMES) -> str:
    """Markdown table: a row per style, a column per model and prompt.

    Raises:
        FileNotFoundError: a model's file is not in the folder.
    """
    models = {name: load_clip(f"{name}.pt", folder) for name in names}
    columns = [(name, prompt) for name in names for prompt in PROMPTS]
    lines = [
        "| style | severity | " + " | ".join(f"{name}, `{prompt}`" for name, prompt in columns) + " |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for style, severity in TEST_SEVERITY.items():
        cells = [f"{zero_shot_accuracy(models[name], style, prompt):.1f}" for name, prompt in columns]
        lines.append(f"| {style} | {severity:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the table for the weights of a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=DEFAULT_FOLDER, help="folder of policy.pt and reward.pt")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    log.info("%s", accuracy_table(arguments.weights))


if __name__ == "__main__":
    main()
