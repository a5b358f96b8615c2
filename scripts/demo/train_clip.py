"""Train the demo's two CLIP models: `python -m scripts.demo.train_clip [--out FOLDER] [--only policy|reward]`.

The policy sees the clean style only, so the shifted styles are a domain shift for it; the reward model is larger and
sees all styles at all severities. Both see training digits only, in random crops and flips like those of test time;
colour is part of the class and is never changed. A file holds an fp16 state dict in OpenAI's layout, on CLIP's own
vocabulary. Rows of the token embedding that no caption uses are zero, and the archive is deflated, so that a file is
under 2 MB; `torch.load` reads it, though not with mmap=True.
"""

from __future__ import annotations

import argparse
import io
import logging
import math
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor
from tqdm import tqdm

from clipscore.clip_model import ClipModel
from scripts.demo.captions import caption_token_ids
from scripts.demo.evaluate import DEFAULT_FOLDER, MODEL_NAMES, accuracy_table
from scripts.demo.scenes import CANVAS_PX
from scripts.demo.styles import STYLES
from scripts.demo.training_pictures import draw_pictures, random_views

log = logging.getLogger(__name__)

PATCH_PX = 4
EMBED_DIM = 64
TEXT_WIDTH = 64  # the OpenAI layout has width // 64 text heads, so 64 is the smallest
TEXT_LAYERS = 2
BATCH = 128
WARMUP_STEPS = 50
TEXT_STEPS = 100
PEAK_LR = 7e-4
EMBEDDING_LR_FACTOR = 0.1  # token embeddings stay near their first size, 0.02: prompt tuning's steps are as large
WEIGHT_DECAY = 0.02
MAX_LOGIT_SCALE = math.log(100)  # as in CLIP
CLEAN_FIRST = 0.25  # share of the steps on clean pictures only; on all styles at once, digits are not learned for long


@dataclass(frozen=True)
class Recipe:
    """Size and diet of one model."""

    width: int
    layers: int
    steps: int
    styles: tuple[str, ...]
    seed: int


RECIPES = {
    "policy": Recipe(width=64, layers=3, steps=3000, styles=("clean",), seed=0),
    "reward": Recipe(width=96, layers=4, steps=3200, styles=STYLES, seed=1),
}


def build_clip(recipe: Recipe, used_ids: Tensor) -> ClipModel:
    """A small CLIP in OpenAI's layout, with zero token embeddings but for the ids used."""
    vision = CLIPVisionCfg(layers=recipe.layers, width=recipe.width, patch_size=PATCH_PX, image_size=CANVAS_PX)
    text = CLIPTextCfg(width=TEXT_WIDTH, heads=TEXT_WIDTH // 64, layers=TEXT_LAYERS)
    backend = CLIP(EMBED_DIM, vision, text, quick_gelu=True)
    unused = torch.ones(backend.vocab_size, dtype=torch.bool)
    unused[used_ids] = False
    with torch.no_grad():
        backend.token_embedding.weight[unused] = 0  # without a gradient these rows stay exactly zero
    return ClipModel(backend, name="demo", sha256="", tokenizer=open_clip.tokenize)


def caption_loss(features: Tensor, text_features: Tensor, labels: Tensor, logit_scale: Tensor) -> Tensor:
    """Cross-entropy of finding each feature's caption among one caption per class.

    This is CLIP's image-to-text half. The other half would have to share a caption among the images of its class, and
    was seen to slow these small models down.

    Args:
        features: unit length, of images or of other wordings, [B, D].
        text_features: unit length, in class order, [C, D].
        labels: class of each feature, [B].
        logit_scale: what a cosine is multiplied by.
    """
    return F.cross_entropy(logit_scale * features @ text_features.T, labels)


def make_optimizer(model: ClipModel) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only and a slower token embedding."""
    embedding = model.backend.token_embedding.weight
    rest = [p for p in model.parameters() if p is not embedding]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": WEIGHT_DECAY, "factor": 1.0},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0, "factor": 1.0},
        {"params": [embedding], "weight_decay": 0.0, "factor": EMBEDDING_LR_FACTOR},
    ]
    return torch.optim.AdamW(groups, lr=PEAK_LR, betas=(0.9, 0.98))


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, steps: int) -> None:
    """Linear warm-up, then half a cosine to zero."""
    share = min((step + 1) / WARMUP_STEPS, 1.0) * 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimizer.param_groups:
        group["lr"] = PEAK_LR * share * group["factor"]


def update(model: ClipModel, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One clipped optimizer step; the logit scale stays within CLIP's bound."""
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    with torch.no_grad():
        model.backend.logit_scale.clamp_(0, MAX_LOGIT_SCALE)


def random_captions(generator: torch.Generator, token_ids: Tensor) -> Tensor:
    """One wording per class: [templates, C, L] -> [C, L]."""
    num_templates, num_classes, _ = token_ids.shape
    return token_ids[torch.randint(num_templates, (num_classes,), generator=generator), torch.arange(num_classes)]


def spread_texts(model: ClipModel, token_ids: Tensor, generator: torch.Generator) -> None:
    """Teach the text tower alone that two wordings of a class belong together and two classes do not.

    At its random start the tower gives all captions nearly one feature (cosine 0.99), and the vision tower would learn
    nothing about digits for hundreds of steps.
    """
    optimizer = make_optimizer(model)
    classes = torch.arange(token_ids.shape[1])
    for step in range(TEXT_STEPS):
        set_learning_rate(optimizer, step, TEXT_STEPS)
        one, other = (model.encode_token_ids(random_captions(generator, token_ids)) for _ in range(2))
        update(model, optimizer, caption_loss(one, other, classes, model.logit_scale))


def train(name: str) -> ClipModel:
    """Train one model of RECIPES from its seed."""
    recipe = RECIPES[name]
    torch.manual_seed(recipe.seed)  # open_clip initialises from the global generator; nothing else draws from it
    token_ids = caption_token_ids()
    model = build_clip(recipe, token_ids.unique())
    images, labels = draw_pictures(recipe.styles, recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    spread_texts(model, token_ids, generator)
    optimizer = make_optimizer(model)
    num_clean = len(images) // len(recipe.styles)
    for step in (bar := tqdm(range(recipe.steps), desc=name, mininterval=1.0)):
        set_learning_rate(optimizer, step, recipe.steps)
        reach = num_clean if step < CLEAN_FIRST * recipe.steps else len(images)
        batch = torch.randint(reach, (BATCH,), generator=generator)
        image_features = model.encode_images(random_views(images[batch], generator))
        text_features = model.encode_token_ids(random_captions(generator, token_ids))
        loss = caption_loss(image_features, text_features, labels[batch], model.logit_scale)
        update(model, optimizer, loss)
        bar.set_postfix(loss=f"{loss.item():.3f}", scale=f"{model.logit_scale.item():.1f}", refresh=False)
    return model.eval()


def save(model: ClipModel, path: Path) -> None:
    """Write the fp16 state dict; equal weights give equal bytes."""
    buffer = io.BytesIO()
    torch.save({key: value.half() for key, value in model.backend.state_dict().items()}, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with zipfile.ZipFile(buffer) as plain, zipfile.ZipFile(partial, "w") as packed:
        for record in plain.namelist():
            packed.writestr(zipfile.ZipInfo(record), plain.read(record), zipfile.ZIP_DEFLATED)
    partial.replace(path)


def main() -> None:
    """Train, save, and print the accuracies of what was saved."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DEFAULT_FOLDER, help="folder of policy.pt and reward.pt")
    parser.add_argument("--only", choices=MODEL_NAMES, help="train one model, not both")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    names = (arguments.only,) if arguments.only else MODEL_NAMES
    for name in names:
        start = time.perf_counter()
        save(train(name), arguments.out / f"{name}.pt")
        log.info("%s: %.1f minutes", name, (time.perf_counter() - start) / 60)
    log.info("%s", accuracy_table(arguments.out, names))


if __name__ == "__main__":
    main()
