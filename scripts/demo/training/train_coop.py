"""Learn the demo's CoOp and CoCoOp prompts in minutes: `python -m scripts.demo.training.train_coop [--weights FOLDER]`.

Sixteen clean training scenes of each class, as CoOp's 16 shots; the policy stays frozen. The files have the form of
CoOp's own checkpoints, so that every script that starts from one can be run on the demo.

Source: CoOp, Zhou et al. 2022 (arXiv 2109.01134); CoCoOp, Zhou et al. 2022 (arXiv 2203.05557).
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from classification.prompt_learner import ConditionalContext, PromptLearner
from clipscore.clip_model import ClipModel
from clipscore.models.load import load_clip
from clipscore.text_encoder import encode_prompts
from scripts.demo.evaluate import DEFAULT_FOLDER, as_clip_batch
from scripts.demo.scenes import CLASS_NAMES, train_scenes
from scripts.demo.styles import render
from scripts.demo.training.fit import fit

SHOTS = 16
PROMPT = "a photo of a"
COOP_EPOCHS, COCOOP_EPOCHS = 50, 10  # as in the names of CoOp's checkpoint files
COOP_BATCH, COCOOP_BATCH = 32, 8
LR = 2e-3
META_REDUCTION = 16  # CoCoOp's meta network has a hidden width of D // 16


def few_shot_images(clip: ClipModel) -> tuple[Tensor, Tensor]:
    """Unnormalised features [60 * SHOTS, D] and labels of the first SHOTS training scenes of each class."""
    scenes = train_scenes()
    labels, shuffled = [scene.label for scene in scenes], np.random.default_rng(0).permutation(len(scenes)).tolist()
    each = ([index for index in shuffled if labels[index] == label][:SHOTS] for label in range(len(CLASS_NAMES)))
    chosen = [index for indices in each for index in indices]
    pictures = as_clip_batch([render(scenes[index], seed=index) for index in chosen])
    with torch.no_grad():
        return clip.project_images(pictures), torch.tensor([labels[index] for index in chosen])


def fit_prompt(
    title: str, tuned: list[Tensor], num: int, batch: int, epochs: int, loss_of: Callable[[Tensor], Tensor]
) -> None:
    """AdamW with a cosine decay to zero; an update for the rows of each batch of `num` images, shuffled each epoch."""
    generator = torch.Generator().manual_seed(0)
    batches = [rows for _ in range(epochs) for rows in torch.randperm(num, generator=generator).split(batch)]
    optimizer = torch.optim.AdamW(tuned, lr=LR, weight_decay=5e-4)
    fit(title, batches, loss_of, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches)))


def train_coop(clip: ClipModel, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Shared context vectors."""
    learner = PromptLearner(clip, CLASS_NAMES, PROMPT)
    images = F.normalize(features, dim=-1)

    def loss(rows: Tensor) -> Tensor:
        classes = encode_prompts(clip, learner.build, learner.context, learner.eot)
        return F.cross_entropy(clip.logit_scale * images[rows] @ classes.T, labels[rows])

    fit_prompt("CoOp", [learner.context], len(images), COOP_BATCH, COOP_EPOCHS, loss)
    return {"ctx": learner.context.detach()}


def train_cocoop(clip: ClipModel, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Shared context vectors and the meta network that shifts them by the image."""
    torch.manual_seed(0)
    learner = PromptLearner(clip, CLASS_NAMES, PROMPT)
    width = features.shape[1]
    hidden = nn.Linear(width, width // META_REDUCTION), nn.Linear(width // META_REDUCTION, clip.token_width)
    net: dict[str, Tensor] = {
        f"linear{i}.{key}": p for i, layer in enumerate(hidden, 1) for key, p in layer.named_parameters()
    }
    images, every = F.normalize(features, dim=-1), torch.arange(len(CLASS_NAMES))

    def loss(rows: Tensor) -> Tensor:
        conditional = ConditionalContext(learner.context, net)
        prompts = torch.cat([learner.build(conditional(images[row]), every) for row in rows])  # [B * C, L, W]
        classes = clip.encode_embeddings(prompts, learner.eot.repeat(len(rows))).view(len(rows), len(every), -1)
        return F.cross_entropy(clip.logit_scale * torch.einsum("bd,bcd->bc", images[rows], classes), labels[rows])

    fit_prompt("CoCoOp", [learner.context, *net.values()], len(images), COCOOP_BATCH, COCOOP_EPOCHS, loss)
    return {"ctx": learner.context.detach(), **{f"meta_net.{key}": value.detach() for key, value in net.items()}}


def main() -> None:
    """Train both and write them beside the models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=DEFAULT_FOLDER, help="folder of policy.pt; results go there")
    folder = parser.parse_args().weights
    clip = load_clip("policy.pt", folder)
    features, labels = few_shot_images(clip)
    for name, train, epochs in (("coop", train_coop, COOP_EPOCHS), ("cocoop", train_cocoop, COCOOP_EPOCHS)):
        path = folder / name / "prompt_learner" / f"model.pth.tar-{epochs}"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state_dict": train(clip, features, labels), "epoch": epochs}, path)
        print("wrote", path)


if __name__ == "__main__":
    main()
