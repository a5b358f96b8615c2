"""Train the demo's captioner: `python -m scripts.demo.training.train_captioner [--out FOLDER] [--only ...]`.

A tiny OPT that writes captions of scenes, and two mappers from the features of the demo's policy to its prefix: ClipCap
learns from the image features of clean training scenes, CapDec from those of their captions, by the same code as
COCO's. pretrained/demo/CAPTIONING.md has the recipe and results.
"""

import argparse
import logging
import shutil
import tempfile
from pathlib import Path

from captioning.checkpoints import CHECKPOINT
from captioning.features import extract
from captioning.training.config import TrainConfig
from clipscore.data.caption_sets import find_captions
from clipscore.models.load import load_clip
from scripts.demo.captioner_report import KINDS, caption_table
from scripts.demo.evaluate import DEFAULT_FOLDER
from scripts.demo.make_data import training_set, write_captioned
from scripts.demo.training.captioner_lm import MAPPER_LAYERS, PREFIX_LENGTH, train_language_model
from scripts.train_mapper import run_training

DATASET = "demo_scenes/clean"
NUM_SCENES = 20_000
SEED = 0
EPOCHS, BATCH, LR, WARMUP = 5, 64, 5e-3, 200
NOISE_VARIANCE = 0.008  # of length 1, like the step from an image to its caption: their cosine is 0.70


def write_training_scenes(data_root: Path, number: int = NUM_SCENES, seed: int = SEED) -> None:
    """Clean scenes of training digits with all their captions, in the form of COCO's training list."""
    write_captioned(training_set(number, [seed, 3]), data_root / DATASET, "train")


def training_config(kind: str, opt: Path, policy: Path, features: Path, output: Path) -> TrainConfig:
    """The demo's training of one mapper."""
    noise = {"noise_variance": NOISE_VARIANCE} if kind == "capdec" else {}
    return TrainConfig.model_validate(noise | {
        "kind": kind, "name": kind, "dataset": DATASET, "features": str(features), "policy": str(policy),
        "llm": str(opt), "mapper_layers": MAPPER_LAYERS, "prefix_length": PREFIX_LENGTH, "epochs": EPOCHS,
        "batch": BATCH, "lr": LR, "warmup": WARMUP, "seed": SEED, "device": "cpu", "num_threads": 1,
        "data_root": "", "pretrained_root": str(policy.parent), "output_root": str(output),
    })  # fmt: skip


def train_mappers(kinds: list[str], policy: Path, out: Path) -> None:
    """Train mappers on the language model in OUT/opt, and write OUT/<kind>/ckpt-latest.pt."""
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        write_training_scenes(work)
        data = find_captions(DATASET, work, split="train")
        extract(data, "train", load_clip(str(policy), policy.parent), work / "features", num_workers=0)
        for kind in kinds:
            folder = run_training(training_config(kind, out / "opt", policy, work / "features", work / "output"))
            (out / kind).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / CHECKPOINT, out / kind / CHECKPOINT)


def main() -> None:
    """Train, save, and print how right the captions are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DEFAULT_FOLDER, help="gets opt, clipcap and capdec")
    parser.add_argument("--policy", type=Path, default=DEFAULT_FOLDER / "policy.pt", help="the CLIP of the mappers")
    parser.add_argument("--only", choices=("opt", *KINDS), help="train one part, not all")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.only in (None, "opt"):
        train_language_model(arguments.out / "opt", SEED)
    train_mappers([kind for kind in KINDS if arguments.only in (None, kind)], arguments.policy, arguments.out)
    if arguments.only is None and arguments.out == arguments.policy.parent:
        print(caption_table(arguments.out))


if __name__ == "__main__":
    main()
