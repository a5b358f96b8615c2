"""What the training of the demo's models minimises."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clipscore.clip_model import ClipModel
from scripts.demo.scenes import CLASS_NAMES
from scripts.demo.training.attribute_heads import AttributeHead, PatchHead
from scripts.demo.training.batches import Batch


@dataclass(frozen=True)
class Heads:
    """What is trained beside the model and thrown away."""

    features: AttributeHead
    patches: PatchHead


def matching_loss(images: Tensor, texts: Tensor, is_match: Tensor, num_classes: int, logit_scale: Tensor) -> Tensor:
    """CLIP's loss, except that no class has to find its images.

    Class captions would have to share themselves among the images of the class, which was seen to slow these small
    models down. A scene in the batch may be there twice: each row's first match counts, its others are left out.

    Args:
        images: unit length, [B, D].
        texts: unit length; the first num_classes are captions of classes. [T, D]
        is_match: which texts are true of which images. [B, T]
    """
    logits = logit_scale * images @ texts.T

    def half(logits: Tensor, is_match: Tensor) -> Tensor:
        target = is_match.float().argmax(dim=1)
        others = is_match.scatter(1, target[:, None], False)
        return F.cross_entropy(logits.masked_fill(others, -torch.inf), target)

    return (half(logits, is_match) + half(logits.T[num_classes:], is_match.T[num_classes:])) / 2


def batch_loss(model: ClipModel, heads: Heads, batch: Batch) -> Tensor:
    """Matching of pictures and captions, and naming of their parts."""
    projected, tokens = model.visual(batch.images)
    images, texts = F.normalize(projected, dim=-1), model.encode_token_ids(batch.texts.token_ids)
    is_match = (batch.attributes[:, None] == batch.texts.attributes).all(dim=-1)  # [B, 1, A], [T, A] -> [B, T]
    return (
        matching_loss(images, texts, is_match, len(CLASS_NAMES), model.logit_scale)
        + heads.features.loss(images, batch.attributes)
        + heads.features.loss(texts, batch.texts.attributes)
        + heads.patches.loss(tokens, batch.patch_attributes)
    )
