"""How right the demo's captions are without adaptation: `python -m scripts.demo.captioner_report [--folder FOLDER]`."""

import argparse
from pathlib import Path

import torch
from PIL import Image

from captioning.build import load_captioner
from captioning.captioner import Captioner
from captioning.config import CaptioningConfig, DecodingConfig
from captioning.generate import beam_search
from clipscore.clip_model import ClipModel
from clipscore.models.load import load_clip
from scripts.demo.arrangements import retrieval_scenes
from scripts.demo.captions import captions_of
from scripts.demo.evaluate import DEFAULT_FOLDER, as_clip_batch, style_table
from scripts.demo.scenes import Scene
from scripts.demo.styles import RETRIEVAL_SEVERITY, retrieval_pictures

KINDS = ("clipcap", "capdec")
MAPPER_LAYERS = 2
PREFIX_LENGTH = 7  # one embedding for the layout, and two for each place: colour and digit
BATCH, NUM_BEAMS = 50, 5


def load_demo_captioner(kind: str, folder: Path = DEFAULT_FOLDER) -> tuple[Captioner, ClipModel]:
    """The demo's captioner of a kind, "clipcap" or "capdec", and the CLIP whose features it reads."""
    config = CaptioningConfig(
        dataset="demo_scenes/clean", method="zero_shot", policy="policy.pt", llm=str(folder / "opt"),
        checkpoint=kind, mapper_layers=MAPPER_LAYERS, prefix_length=PREFIX_LENGTH, data_root="",
        pretrained_root=str(folder), output_root="",
    )  # fmt: skip
    clip = load_clip(config.policy, folder)
    return load_captioner(config, clip, folder / kind), clip


@torch.no_grad()
def captions_for(captioner: Captioner, clip: ClipModel, pictures: list[Image.Image]) -> list[str]:
    """The captions of pictures of the demo's size, before any adaptation."""
    captions = []
    for images in as_clip_batch(pictures).split(BATCH):
        found = beam_search(captioner, captioner.prefix(clip.encode_images(images)), NUM_BEAMS, DecodingConfig())
        captions += captioner.decode([best.tokens for best, *_ in found])
    return captions


def scores(captions: list[str], scenes: list[Scene]) -> tuple[float, float, float]:
    """Captions that are word for word one of the scene's and digits named with their colours, in %; CIDEr times 100."""
    from pycocoevalcap.cider.cider import Cider  # only the figures need it, not the captioners

    pairs = list(zip(captions, scenes, strict=True))
    exact = [caption in captions_of(scene) for caption, scene in pairs]
    named = [f"a {digit.name}" in caption for caption, scene in pairs for digit in scene.digits]
    # CIDEr needs no tokenizer, as captions of scenes are lower-case words.
    references = {number: captions_of(scene) for number, scene in enumerate(scenes)}
    cider, _ = Cider().compute_score(references, {number: [caption] for number, caption in enumerate(captions)})
    return 100 * sum(exact) / len(exact), 100 * sum(named) / len(named), 100 * float(cider)


def caption_table(folder: Path) -> str:
    """The scores of both captioners on the scenes of every style, as a Markdown table."""
    scenes, models = retrieval_scenes(), [load_demo_captioner(kind, folder) for kind in KINDS]

    def figures(style: str) -> list[float]:
        pictures, _ = retrieval_pictures(style)
        return [score for model in models for score in scores(captions_for(*model, pictures), scenes)]

    columns = [f"{kind}, {score}" for kind in KINDS for score in ("right", "digits", "CIDEr")]
    return style_table(RETRIEVAL_SEVERITY, columns, figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="folder of policy.pt, opt and the mappers")
    print(caption_table(parser.parse_args().folder))
