"""Zero-shot accuracy and recall of the demo's models: `python -m scripts.demo.evaluate [--weights FOLDER]`."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clipscore.clip_model import CLIP_MEAN, CLIP_STD, ClipModel
from clipscore.models.load import load_clip
from scripts.demo.scenes import CLASS_NAMES
from scripts.demo.styles import RETRIEVAL_SEVERITY, TEST_SEVERITY, retrieval_pictures, test_pictures

log = logging.getLogger(__name__)

DEFAULT_FOLDER = Path("pretrained/demo")
MODEL_NAMES = ("policy", "reward")
DIRECTIONS = ("text to image", "image to text")
RECALL_DEPTHS = (1, 10)
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


def recall(ranks: Tensor, depth: int) -> float:
    """Share of ranks, counted from 0, below `depth`, percent."""
    return 100 * (ranks < depth).float().mean().item()


@torch.no_grad()
def retrieval_ranks(model: ClipModel, style: str) -> tuple[Tensor, Tensor]:
    """Rank, from 0, of the best true match on the retrieval test set of a style, by cosine.

    Returns:
        text to image, among 200 images, one rank per caption [600]; image to text, among 600 captions, one rank per
        image [200].
    """
    pictures, captions = retrieval_pictures(style)
    texts = model.encode_token_ids(model.tokenize([text for group in captions for text in group]))
    owner = torch.arange(len(captions)).repeat_interleave(len(captions[0]))
    cosines = texts @ model.encode_images(as_clip_batch(pictures)).T  # [T, D] @ [D, B] -> [T, B]
    is_match = owner[:, None] == torch.arange(len(pictures))
    best = cosines.masked_fill(~is_match, -2)
    text_ranks = (cosines > best.amax(dim=1, keepdim=True)).sum(dim=1)
    image_ranks = (cosines > best.amax(dim=0, keepdim=True)).sum(dim=0)
    return text_ranks, image_ranks


def recall_table(folder: Path, names: tuple[str, ...] = MODEL_NAMES) -> str:
    """Markdown table: a row per style, columns of recall at 1 and 10 per model and direction, percent.

    Raises:
        FileNotFoundError: a model's file is not in the folder.
    """
    models = {name: load_clip(f"{name}.pt", folder) for name in names}
    heads = [f"{name}, {way} R@{depth}" for name in names for way in DIRECTIONS for depth in RECALL_DEPTHS]
    lines = ["| style | severity | " + " | ".join(heads) + " |", "|---" * (len(heads) + 2) + "|"]
    for style, severity in RETRIEVAL_SEVERITY.items():
        ranks = [ways for name in names for ways in retrieval_ranks(models[name], style)]
        cells = [f"{recall(way, depth):.1f}" for way in ranks for depth in RECALL_DEPTHS]
        lines.append(f"| {style} | {severity:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


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
    """Print both tables for the weights of a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=DEFAULT_FOLDER, help="folder of policy.pt and reward.pt")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    log.info("%s\n\n%s", accuracy_table(arguments.weights), recall_table(arguments.weights))


if __name__ == "__main__":
    main()
