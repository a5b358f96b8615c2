"""Zero-shot accuracy and recall of the demo's models: `python -m scripts.demo.evaluate [--weights FOLDER]`."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from clipscore.clip_model import ClipModel
from clipscore.data.images import normalize, to_pixels
from clipscore.models.load import load_clip
from retrieval.metrics import feature_ranks
from scripts.demo.scenes import CLASS_NAMES
from scripts.demo.styles import RETRIEVAL_SEVERITY, TEST_SEVERITY, retrieval_pictures, test_pictures
from scripts.tables.figures import share
from scripts.tables.grid import Grid, markdown

DEFAULT_FOLDER = Path("pretrained/demo")
MODEL_NAMES = ("policy", "reward")
DIRECTIONS = ("text to image", "image to text")
RECALL_DEPTHS = (1, 10)
PROMPTS = ("a photo of a {}.", "a_photo_of_a {}.")  # of prompt tuning; of encoder tuning


def as_clip_batch(pictures: Sequence[Image.Image]) -> Tensor:
    """RGB pictures of one size to a batch with CLIP's mean and deviation: [B, 3, H, W]."""
    return torch.stack([normalize(to_pixels(picture)) for picture in pictures])


@torch.no_grad()
def zero_shot_accuracy(model: ClipModel, style: str, prompt: str) -> float:
    """Top-1 accuracy on the test set of a style, percent; the class name goes into the prompt's braces."""
    texts = model.encode_token_ids(model.tokenize([prompt.format(name) for name in CLASS_NAMES]))
    pictures, labels = test_pictures(style)
    images = model.encode_images(as_clip_batch(pictures))
    correct = (images @ texts.T).argmax(dim=-1) == torch.tensor(labels)  # [B, D] @ [D, C] -> [B, C] -> [B]
    return 100 * correct.float().mean().item()


@torch.no_grad()
def retrieval_ranks(model: ClipModel, style: str) -> tuple[Tensor, Tensor]:
    """Rank, from 1, of the best true match on a style's retrieval test set: of each text [600], of each image [200]."""
    pictures, captions = retrieval_pictures(style)
    texts = model.encode_token_ids(model.tokenize([text for group in captions for text in group]))
    images, size = model.encode_images(as_clip_batch(pictures)), len(captions[0])
    text_ranks = feature_ranks(texts, images, [[row // size] for row in range(len(texts))])
    image_ranks = feature_ranks(images, texts, [range(row * size, (row + 1) * size) for row in range(len(images))])
    return text_ranks, image_ranks


def style_table(severity: dict[str, float], columns: Sequence[str], figures: Callable[[str], Sequence[float]]) -> str:
    """Markdown table: a row per style with its severity, and the figures of that style."""
    rows = [[style, f"{grade:g}", *(f"{f:.1f}" for f in figures(style))] for style, grade in severity.items()]
    return markdown(Grid(["style", "severity", *columns], rows, num_texts=2))


def tables(folder: Path, names: Sequence[str] = MODEL_NAMES) -> str:
    """Accuracy of each model and prompt, and recall at 1 and 10 of each model and direction, percent, by style."""
    models = [load_clip(f"{name}.pt", folder) for name in names]

    def accuracies(style: str) -> list[float]:
        return [zero_shot_accuracy(model, style, prompt) for model in models for prompt in PROMPTS]

    def recalls(style: str) -> list[float]:
        ranks = [ways.tolist() for model in models for ways in retrieval_ranks(model, style)]
        return [share(of_queries, depth) for of_queries in ranks for depth in RECALL_DEPTHS]

    prompts = [f"{name}, `{prompt}`" for name in names for prompt in PROMPTS]
    depths = [f"{name}, {way} R@{depth}" for name in names for way in DIRECTIONS for depth in RECALL_DEPTHS]
    return f"{style_table(TEST_SEVERITY, prompts, accuracies)}\n\n{style_table(RETRIEVAL_SEVERITY, depths, recalls)}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=DEFAULT_FOLDER, help="folder of policy.pt and reward.pt")
    print(tables(parser.parse_args().weights))
