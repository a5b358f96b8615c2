"""Learn the demo's CoOp and CoCoOp prompts in minutes: `python -m scripts.demo.training.train_coop [--weights FOLDER]`.

Sixteen clean training scenes of each class, as CoOp's 16 shots; the policy stays frozen. The files have the form of
CoOp's own checkpoints, so that every script that starts from one can be run on the demo.

Source: CoOp, Zhou et al. 2022 (arXiv 2109.01134); CoCoOp, Zhou et al. 2022 (arXiv 2203.05557).
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from classification.prompt_learner import ConditionalContext, PromptLearner
from clipscore.clip_model import ClipModel
from clipscore.data.images import normalize, to_pixels
from clipscore.models.load import load_clip
from clipscore.text_encoder import encode_prompts
from scripts.demo.scenes import CLASS_NAMES, train_scenes
from scripts.demo.styles import render
from scripts.demo.training.train_clip import DEFAULT_FOLDER, fit

SHOTS = 16
PROMPT = "a photo of a"
RECIPES = ("CoOp", 32, 50), ("CoCoOp", 8, 10)  # batch and epochs, the latter as in the names of CoOp's checkpoint files
LR = 2e-3
META_REDUCTION = 16  # CoCoOp's meta network has a hidden width of D // 16


def few_shot_images(clip: ClipModel) -> tuple[Tensor, Tensor]:
    """Unnormalised features [60 * SHOTS, D] and labels of the first SHOTS training scenes of each class."""
    scenes = train_scenes()
    labels, shuffled = [scene.label for scene in scenes], np.random.default_rng(0).permutation(len(scenes)).tolist()
    each = ([index for index in shuffled if labels[index] == label][:SHOTS] for label in range(len(CLASS_NAMES)))
    chosen = [index for indices in each for index in indices]
    pixels = torch.stack([to_pixels(render(scenes[index], seed=index)) for index in chosen])
    with torch.no_grad():
        return clip.project_images(normalize(pixels)), torch.tensor([labels[index] for index in chosen])


def train(clip: ClipModel, features: Tensor, labels: Tensor, conditional: bool) -> dict[str, Tensor]:
    """Context vectors that all images share and, if `conditional`, the meta network that shifts them by the image.

    AdamW with a cosine decay to zero; the images are shuffled each epoch.
    """
    torch.manual_seed(0)
    learner = PromptLearner(clip, CLASS_NAMES, PROMPT)
    images, every, width = F.normalize(features, dim=-1), torch.arange(len(CLASS_NAMES)), features.shape[1]
    hidden = nn.Linear(width, width // META_REDUCTION), nn.Linear(width // META_REDUCTION, clip.token_width)
    layers = enumerate(hidden, 1) if conditional else ()
    net: dict[str, Tensor] = {f"linear{i}.{key}": p for i, layer in layers for key, p in layer.named_parameters()}

    def loss(rows: Tensor) -> Tensor:
        if not conditional:
            classes = encode_prompts(clip, learner.build, learner.context, learner.eot)
            return F.cross_entropy(clip.logit_scale * images[rows] @ classes.T, labels[rows])
        shifted = ConditionalContext(learner.context, net)
        prompts = torch.cat([learner.build(shifted(images[row]), every) for row in rows])  # [B * C, L, W]
        classes = clip.encode_embeddings(prompts, learner.eot.repeat(len(rows))).view(len(rows), len(every), -1)
        return F.cross_entropy(clip.logit_scale * torch.einsum("bd,bcd->bc", images[rows], classes), labels[rows])

    (title, batch, epochs), generator = RECIPES[conditional], torch.Generator().manual_seed(0)
    batches = [rows for _ in range(epochs) for rows in torch.randperm(len(images), generator=generator).split(batch)]
    optimizer = torch.optim.AdamW([learner.context, *net.values()], lr=LR, weight_decay=5e-4)
    fit(title, batches, loss, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches)), ())
    return {"ctx": learner.context.detach(), **{f"meta_net.{key}": value.detach() for key, value in net.items()}}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=DEFAULT_FOLDER, help="folder of policy.pt; results go there")
    folder = parser.parse_args().weights
    clip = load_clip("policy.pt", folder)
    features, labels = few_shot_images(clip)
    for conditional, (title, _, epochs) in enumerate(RECIPES):
        path = folder / title.lower() / "prompt_learner" / f"model.pth.tar-{epochs}"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state_dict": train(clip, features, labels, bool(conditional)), "epoch": epochs}, path)
        print("wrote", path)
