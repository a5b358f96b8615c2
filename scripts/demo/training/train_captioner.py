"""Train the demo's captioner: `python -m scripts.demo.training.train_captioner [--out FOLDER] [--only ...]`.

A tiny OPT that writes captions of scenes, and two mappers from the features of the demo's policy to its prefix: ClipCap
learns from the image features of clean training scenes, CapDec from those of their captions, by the same code as
COCO's. pretrained/demo/CAPTIONING.md has the recipe and results.

The language model is trained with a throw-away mapper that reads what a scene shows as noisy one-hot numbers, so that
it listens to prefix embeddings: a model of captions alone would be too small to be steered once it is frozen. A newline
ends each caption there; the training of mappers has no end token.
"""

import argparse
import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import OPTConfig, OPTForCausalLM

from captioning.build import load_tokenizer
from captioning.captioner import Captioner
from captioning.checkpoints import CHECKPOINT
from captioning.config import TrainConfig
from captioning.features import extract
from captioning.mapper import Mapper
from captioning.training.train import learning_rate_share, training_loss
from clipscore.data.caption_sets import find_captions
from clipscore.models.load import load_clip
from scripts.demo.arrangements import captions_of, random_scene
from scripts.demo.make_data import training_set, write_captioned
from scripts.demo.scenes import Scene
from scripts.demo.training.batches import SIZES, attributes_of
from scripts.demo.training.train_clip import DEFAULT_FOLDER, fit
from scripts.train_mapper import run_training

SEED = 0
NUM_SCENES = 20_000  # for the language model, and others for the mappers
# The language model.
WIDTH, LAYERS, HEADS, POSITIONS = 64, 3, 4, 64
SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>"]  # in OPT's order; "</s>" is the start token
MAX_VOCABULARY = 400  # the 256 bytes, the special tokens, and room for every word
STEPS, LM_BATCH, PEAK_LR, LM_WARMUP = 3000, 96, 3e-3, 100
CODE_NOISE = 0.2  # standard deviation; a place's right colour or digit is told from the others most of the time
# The mappers.
DATASET = "demo_scenes/clean"
KINDS = ("clipcap", "capdec")
MAPPER_LAYERS = 2
PREFIX_LENGTH = 7  # one embedding for the layout, and two for each place: colour and digit
EPOCHS, BATCH, LR, WARMUP = 5, 64, 5e-3, 200
NOISE_VARIANCE = 0.008  # of length 1, like the step from an image to its caption: their cosine is 0.70


def train_tokenizer(captions: list[str], folder: Path) -> None:
    """Write a byte-level tokenizer in OPT's form: vocab.json, merges.txt and what Hugging Face reads beside them."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(captions, MAX_VOCABULARY, 2, show_progress=False, special_tokens=SPECIAL_TOKENS)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_model(str(folder))
    roles = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
    options = {"add_prefix_space": False, "add_bos_token": True, "tokenizer_class": "GPT2Tokenizer"}
    _write_json(folder / "special_tokens_map.json", roles)
    _write_json(folder / "tokenizer_config.json", roles | options | {"errors": "replace"})
    _write_json(folder / "config.json", {"model_type": "opt"})  # Hugging Face asks it for the tokenizer's kind


class CodeMapper(Mapper):
    """Reads what a scene shows; it is thrown away when the language model has learned to listen."""

    clip_width, lm_width, prefix_length = sum(SIZES), WIDTH, PREFIX_LENGTH

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(size, WIDTH) for size in SIZES)

    def forward(self, codes: Tensor) -> Tensor:
        """`scene_code`, possibly noisy -> one embedding for each of its parts. [B, A] -> [B, P, W]"""
        pairs = zip(self.parts, codes.split(SIZES, dim=1), strict=True)
        return torch.stack([linear(part) for linear, part in pairs], dim=1)


def scene_code(scene: Scene) -> Tensor:
    """What a scene shows, one-hot: its layout, and the colour and digit at each place. [A]"""
    parts = [F.one_hot(value, size) for value, size in zip(attributes_of(scene), SIZES, strict=True)]
    return torch.cat(parts).float()


def train_language_model(folder: Path, seed: int = SEED) -> None:
    """Train tokenizer and language model, on random wordings of random scenes, a newline behind each; write both."""
    rng = np.random.default_rng([seed, 2])
    scenes = [random_scene("train", rng) for _ in range(NUM_SCENES)]
    captions = [text for scene in scenes for text in captions_of(scene)]
    train_tokenizer(captions, folder)
    tokenizer = load_tokenizer(folder)
    torch.manual_seed(seed)  # only the fresh weights are drawn from the global generator
    config: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": WIDTH, "word_embed_proj_dim": WIDTH, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "ffn_dim": 4 * WIDTH, "max_position_embeddings": POSITIONS,
        "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2, "dropout": 0.0,
    }  # fmt: skip
    lm = OPTForCausalLM(OPTConfig(**config))
    captioner, generator = Captioner(lm, tokenizer, CodeMapper()), torch.Generator().manual_seed(seed)
    captioner.lm.requires_grad_(True)
    tokens, mask = captioner.tokenize([f"{text}\n" for text in captions])
    tokens, mask = (t.view(len(scenes), -1, t.shape[1]) for t in (tokens, mask))  # -> [S, wordings, T]
    codes = torch.stack([scene_code(scene) for scene in scenes])  # [S, A]

    def loss(_: int) -> Tensor:
        rows = torch.randint(len(scenes), (LM_BATCH,), generator=generator)
        wordings = torch.randint(tokens.shape[1], (LM_BATCH,), generator=generator)
        noisy = codes[rows] + CODE_NOISE * torch.randn(LM_BATCH, codes.shape[1], generator=generator)
        return training_loss(captioner, noisy, tokens[rows, wordings], mask[rows, wordings])

    optimizer = torch.optim.AdamW(captioner.parameters(), lr=PEAK_LR, weight_decay=0.01, betas=(0.9, 0.98))
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_share(step, LM_WARMUP, STEPS))
    fit("language model", range(STEPS), loss, rate, list(captioner.parameters()))
    # Not by save_pretrained: equal weights give equal bytes under all versions of transformers.
    _write_json(folder / "config.json", {"architectures": ["OPTForCausalLM"], "model_type": "opt"} | config)
    weights = {key: tensor.contiguous() for key, tensor in lm.state_dict().items() if key != "lm_head.weight"}  # tied
    (folder / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_training_scenes(data_root: Path, number: int = NUM_SCENES, seed: int = SEED) -> None:
    """Clean scenes of training digits with all their captions, in the form of COCO's training list."""
    write_captioned(training_set(number, [seed, 3]), data_root / DATASET, "train")


def train_mappers(kinds: list[str], policy: Path, out: Path) -> None:
    """Train mappers on the language model in OUT/opt, and write OUT/<kind>/ckpt-latest.pt."""
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        write_training_scenes(work)
        data = find_captions(DATASET, work, split="train")
        extract(data, "train", load_clip(str(policy), policy.parent), work / "features", num_workers=0)
        for kind in kinds:
            config = {
                "kind": kind, "name": kind, "dataset": DATASET, "features": str(work / "features"),
                "policy": str(policy), "llm": str(out / "opt"), "mapper_layers": MAPPER_LAYERS,
                "prefix_length": PREFIX_LENGTH, "epochs": EPOCHS, "batch": BATCH, "lr": LR, "warmup": WARMUP,
                "seed": SEED, "device": "cpu", "num_threads": 1, "data_root": "",
                "pretrained_root": str(policy.parent), "output_root": str(work / "output"),
            }  # fmt: skip
            noise = {"noise_variance": NOISE_VARIANCE} if kind == "capdec" else {}
            folder = run_training(TrainConfig.model_validate(config | noise))
            (out / kind).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / CHECKPOINT, out / kind / CHECKPOINT)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DEFAULT_FOLDER, help="gets opt, clipcap and capdec")
    parser.add_argument("--policy", type=Path, default=DEFAULT_FOLDER / "policy.pt", help="the CLIP of the mappers")
    parser.add_argument("--only", choices=("opt", *KINDS), help="train one part, not all")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.only in (None, "opt"):
        train_language_model(arguments.out / "opt")
    train_mappers([kind for kind in KINDS if arguments.only in (None, kind)], arguments.policy, arguments.out)
