"""Train the demo's two CLIP models: `python -m scripts.demo.training.train_clip [--out FOLDER] [--only policy|reward]`.

The policy sees the clean style only, so the shifted styles are a domain shift for it; the reward model is larger and
sees all styles, up to the severities of the test sets or beyond. Both see training digits only: single ones in random
crops and flips like those of test time, scenes almost whole and never flipped. Heads that name colours and digits are
trained beside each model and thrown away, see `batches`.

A file holds an fp16 state dict in OpenAI's layout, on CLIP's own vocabulary. Rows of the token embedding that no
caption uses are zero, and the archive is deflated: under 3 MB, read by `torch.load`, though not with mmap=True.
"""

import argparse
import io
import math
import zipfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from clipscore.clip_model import ClipModel
from clipscore.models.backends import open_clip
from scripts.demo.scenes import CANVAS_PX, CLASS_NAMES
from scripts.demo.styles import STYLES
from scripts.demo.training.batches import PATCH_PX, PATCH_SIZES, SIZES, naming_loss, prepare, random_batch, text_batch

DEFAULT_FOLDER = Path("pretrained/demo")
CLIP_VOCABULARY = 49408
EMBED_DIM = 128
TEXT_WIDTH = 64  # the OpenAI layout has width // 64 text heads, so 64 is the smallest
TEXT_LAYERS = 3
WARMUP_STEPS = 50
TEXT_STEPS, TEXT_BATCH = 400, 128  # of captions only; the batch in scenes
PEAK_LR = 7e-4
EMBEDDING_LR_FACTOR = 0.1  # token embeddings stay near their first size, 0.02: prompt tuning's steps are as large
WEIGHT_DECAY = 0.02
FEATURE_SCALE = 10.0  # for the heads: unit-length features would need large weights
MAX_LOGIT_SCALE = math.log(100)  # as in CLIP
CLEAN_FIRST = 0.3  # share of the steps on clean pictures only; on all styles at once, digits are not learned for long

Step = TypeVar("Step")


class Recipe(NamedTuple):
    """Size and diet of one model."""

    width: int
    layers: int
    steps: int
    styles: tuple[str, ...]
    seed: int


RECIPES = {
    "policy": Recipe(width=64, layers=3, steps=5000, styles=("clean",), seed=0),
    "reward": Recipe(width=96, layers=4, steps=3500, styles=STYLES, seed=1),
}


def matching_loss(images: Tensor, texts: Tensor, is_match: Tensor, num_classes: int, logit_scale: Tensor) -> Tensor:
    """CLIP's loss, except that no class has to find its images: it has several, which slows these small models down.

    Unit-length images [B, D] and texts [T, D], the first num_classes of them of classes, and which match [B, T]: of
    each row the first match counts, others are left out.
    """
    logits = logit_scale * images @ texts.T

    def half(logits: Tensor, is_match: Tensor) -> Tensor:
        target = is_match.float().argmax(dim=1)
        others = is_match.scatter(1, target[:, None], False)
        return F.cross_entropy(logits.masked_fill(others, -torch.inf), target)

    return (half(logits, is_match) + half(logits.T[num_classes:], is_match.T[num_classes:])) / 2


def fit(
    title: str, steps: Collection[Step], loss_of: Callable[[Step], Tensor], rate: LRScheduler, clipped: Sequence[Tensor]
) -> None:
    """An update against the loss of each step. The gradient of the `clipped` parameters has at most length 1."""
    for step in (bar := tqdm(steps, desc=title, mininterval=1.0)):
        loss = loss_of(step)
        rate.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(clipped, 1.0)
        rate.optimizer.step()
        rate.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)


def fit_clip(
    title: str, model: ClipModel, heads: Sequence[nn.Module], num_steps: int, loss_of: Callable[[int], Tensor]
) -> None:
    """AdamW, weight decay on matrices only and a slower token embedding; warm-up, then a cosine to zero."""
    embedding = model.backend.token_embedding.weight
    rest = [p for module in (model, *heads) for p in module.parameters() if p is not embedding]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        {"params": [embedding], "weight_decay": 0.0, "lr": PEAK_LR * EMBEDDING_LR_FACTOR},
    ]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_LR, betas=(0.9, 0.98))

    def share(step: int) -> float:
        return min((step + 1) / WARMUP_STEPS, 1.0) * 0.5 * (1 + math.cos(math.pi * step / num_steps))

    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    optimizer.register_step_post_hook(lambda *_: model.backend.logit_scale.data.clamp_(0, MAX_LOGIT_SCALE))
    fit(title, range(num_steps), loss_of, rate, list(model.parameters()))


def train(name: str) -> ClipModel:
    """Train one model of RECIPES from its seed.

    First the text tower alone learns to name the parts of its captions. At its random start it gives all captions
    nearly one feature (cosine 0.99), and the vision tower would learn nothing about digits for hundreds of steps.
    """
    recipe = RECIPES[name]
    torch.manual_seed(recipe.seed)  # open_clip initialises from the global generator; nothing else draws from it
    diet = prepare(recipe.styles, recipe.seed)
    # In OpenAI's layout, but for the vocabulary; the image tower gives the patches' tokens too.
    sizes = {"layers": recipe.layers, "width": recipe.width, "patch_size": PATCH_PX, "image_size": CANVAS_PX}
    vision, heads = open_clip.CLIPVisionCfg(**sizes, output_tokens=True), TEXT_WIDTH // 64
    text = open_clip.CLIPTextCfg(width=TEXT_WIDTH, heads=heads, layers=TEXT_LAYERS, vocab_size=len(diet.used_ids))
    model = ClipModel(open_clip.CLIP(EMBED_DIM, vision, text, quick_gelu=True), "demo", "", open_clip.tokenize)
    head, patch_head = nn.Linear(EMBED_DIM, sum(SIZES)), nn.Linear(recipe.width, sum(PATCH_SIZES))
    generator = torch.Generator().manual_seed(recipe.seed)

    def text_loss(_: int) -> Tensor:
        rows = torch.randint(len(diet.scene_captions), (TEXT_BATCH,), generator=generator)
        token_ids, said = text_batch(diet, rows, generator)
        return naming_loss(head, FEATURE_SCALE * model.encode_token_ids(token_ids), said)

    def loss(step: int) -> Tensor:
        share = 1 / len(recipe.styles) if step < CLEAN_FIRST * recipe.steps else 1.0
        pictures, (token_ids, said) = random_batch(diet, share, generator)
        projected, tokens = model.visual(pictures.images)
        images, texts = F.normalize(projected, dim=-1), model.encode_token_ids(token_ids)
        is_match = (pictures.attributes[:, None] == said).all(dim=-1)  # [B, 1, A], [T, A] -> [B, T]
        loss = matching_loss(images, texts, is_match, len(CLASS_NAMES), model.logit_scale)
        loss = loss + naming_loss(head, FEATURE_SCALE * images, pictures.attributes)
        loss = loss + naming_loss(head, FEATURE_SCALE * texts, said)
        parts = tokens.flatten(0, 1), pictures.patch_attributes.flatten(0, 1)  # [B * P, W], [B * P, 2]
        return loss + naming_loss(patch_head, *parts, PATCH_SIZES)

    fit_clip("texts", model, [head], TEXT_STEPS, text_loss)
    fit_clip(name, model, [head, patch_head], recipe.steps, loss)
    embedding = torch.zeros(CLIP_VOCABULARY, TEXT_WIDTH)  # of tokens that no caption uses they stay zero
    embedding[diet.used_ids] = model.backend.token_embedding.weight.detach()
    model.backend.token_embedding = nn.Embedding.from_pretrained(embedding)
    model.backend.vocab_size, model.backend.visual.output_tokens = CLIP_VOCABULARY, False
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DEFAULT_FOLDER, help="folder of policy.pt and reward.pt")
    parser.add_argument("--only", choices=RECIPES, help="train one model, not both")
    arguments = parser.parse_args()
    for name in [arguments.only] if arguments.only else RECIPES:
        save(train(name), arguments.out / f"{name}.pt")
