"""What the demo's models read: captions of a class in several wordings, as CLIP tokens."""

from __future__ import annotations

import open_clip
import torch
from torch import Tensor

from scripts.demo.scenes import CLASS_NAMES

CAPTION_TEMPLATES = (
    "a photo of a {}.",
    "a_photo_of_a {}.",
    "a photo of a {}",
    "a photo of the {}.",
    "a photo of one {}.",
    "a picture of a {}.",
    "an image of a {}.",
    "a drawing of a {}.",
    "a small photo of a {}.",
    "a bad photo of the {}.",
    "a handwritten {}.",
    "this is a {}.",
    "the {}.",
    "{}",
)


def caption_token_ids() -> Tensor:
    """Token ids of every class in every wording: [templates, C, L]."""
    wordings = [[template.format(name) for name in CLASS_NAMES] for template in CAPTION_TEMPLATES]
    return torch.stack([open_clip.tokenize(texts) for texts in wordings])
