"""The demo's language model: a tiny OPT that writes captions of scenes, and its byte-level tokenizer.

It is trained with a throw-away mapper that reads what a scene shows as noisy one-hot numbers, so that it listens to
prefix embeddings: a model of captions alone would be too small to be steered once it is frozen. A newline ends each
caption here; the training of mappers has no end token.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm
from transformers import OPTConfig, OPTForCausalLM

from captioning.build import load_tokenizer
from captioning.captioner import Captioner
from captioning.mapper import Mapper
from captioning.training.train import learning_rate_share, training_loss
from scripts.demo.arrangements import random_scene
from scripts.demo.captions import captions_of
from scripts.demo.scenes import Scene
from scripts.demo.training.attribute_heads import SIZES, attributes_of

WIDTH, LAYERS, HEADS, POSITIONS = 64, 3, 4, 64
PREFIX_LENGTH = len(SIZES)  # one embedding for the layout, and two for each place: colour and digit
MAPPER_LAYERS = 2  # of the demo's mappers
SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>"]  # in OPT's order; "</s>" is the start token
NUM_SCENES = 20_000
MAX_VOCABULARY = 400  # the 256 bytes, the special tokens, and room for every word
STEPS, BATCH, PEAK_LR, WARMUP = 3000, 96, 3e-3, 100
CODE_NOISE = 0.2  # standard deviation; a place's right colour or digit is told from the others most of the time


def train_tokenizer(captions: list[str], folder: Path) -> None:
    """Write a byte-level tokenizer in OPT's form: vocab.json, merges.txt and what Hugging Face reads beside them."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(captions, MAX_VOCABULARY, 2, show_progress=False, special_tokens=SPECIAL_TOKENS)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_model(str(folder))
    roles = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
    options = {"add_prefix_space": False, "add_bos_token": True, "tokenizer_class": "GPT2Tokenizer"}
    _write_json(folder / "special_tokens_map.json", roles)
    if not (folder / "config.json").is_file():  # Hugging Face asks it for the tokenizer's kind
        _write_json(folder / "config.json", {"model_type": "opt"})
    _write_json(folder / "tokenizer_config.json", roles | options | {"errors": "replace"})


def model_config(vocabulary: int) -> dict[str, Any]:
    """A tiny OPT."""
    return {
        "vocab_size": vocabulary, "hidden_size": WIDTH, "word_embed_proj_dim": WIDTH, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "ffn_dim": 4 * WIDTH, "max_position_embeddings": POSITIONS,
        "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2, "dropout": 0.0,
    }  # fmt: skip


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


def train_language_model(folder: Path, seed: int = 0) -> None:
    """Train tokenizer and language model, on random wordings of random scenes, a newline behind each; write both."""
    rng = np.random.default_rng([seed, 2])
    scenes = [random_scene("train", rng) for _ in range(NUM_SCENES)]
    train_tokenizer([text for scene in scenes for text in captions_of(scene)], folder)
    tokenizer = load_tokenizer(folder)
    torch.manual_seed(seed)  # only the fresh weights are drawn from the global generator
    lm = OPTForCausalLM(OPTConfig(**model_config(len(tokenizer))))
    captioner, generator = Captioner(lm, tokenizer, CodeMapper()), torch.Generator().manual_seed(seed)
    captioner.lm.requires_grad_(True)
    optimizer = torch.optim.AdamW(captioner.parameters(), lr=PEAK_LR, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_share(step, WARMUP, STEPS))
    tokens, mask = captioner.tokenize([f"{text}\n" for scene in scenes for text in captions_of(scene)])
    tokens, mask = (t.view(len(scenes), -1, t.shape[1]) for t in (tokens, mask))  # -> [S, wordings, T]
    codes = torch.stack([scene_code(scene) for scene in scenes])  # [S, A]
    for _ in (bar := tqdm(range(STEPS), desc="language model", mininterval=1.0)):
        rows = torch.randint(len(scenes), (BATCH,), generator=generator)
        wordings = torch.randint(tokens.shape[1], (BATCH,), generator=generator)
        noisy = codes[rows] + CODE_NOISE * torch.randn(BATCH, codes.shape[1], generator=generator)
        loss = training_loss(captioner, noisy, tokens[rows, wordings], mask[rows, wordings])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(captioner.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    save_language_model(lm, folder)


def save_language_model(lm: OPTForCausalLM, folder: Path) -> None:
    """Write config.json and model.safetensors; equal weights give equal bytes under all versions of transformers."""
    config = {"architectures": ["OPTForCausalLM"], "model_type": "opt"} | model_config(lm.config.vocab_size)
    _write_json(folder / "config.json", config)
    weights = {key: tensor.contiguous() for key, tensor in lm.state_dict().items() if key != "lm_head.weight"}  # tied
    (folder / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
