"""Batches of the demo's training: pictures of single digits and of scenes, and captions of classes and of scenes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scripts.demo.captions import caption_token_ids
from scripts.demo.scenes import CLASS_NAMES
from scripts.demo.training.pictures import (
    SCENE_CROP_SCALE,
    SINGLE_CROP_SCALE,
    Pictures,
    random_views,
    scene_pictures,
    single_pictures,
)

SINGLES, SCENES = 72, 56  # pictures of a batch
TEXT_BATCH = 128  # scenes of a batch of captions only


@dataclass(frozen=True)
class Diet:
    """What one model is trained on.

    Attributes:
        singles, scenes: pictures, style by style; a scene of an even row differs little from its next.
        scene_captions: token ids of each scene in each wording, [B, wordings, L].
        class_captions: token ids of each class in each wording, [templates, C, L].
        class_attributes: what the captions of a class say, see `attribute_heads`. [C, A]
        used_ids: CLIP's ids of the tokens that occur. The captions hold places in this list, in the same order, because
            the embeddings of all 49,408 tokens would take most of a step.
    """

    singles: Pictures
    scenes: Pictures
    scene_captions: Tensor
    class_captions: Tensor
    class_attributes: Tensor
    used_ids: Tensor


@dataclass(frozen=True)
class Texts:
    """Token ids [T, L], and what they say [T, A]: a caption of each class, then one of each of some scenes."""

    token_ids: Tensor
    attributes: Tensor


@dataclass(frozen=True)
class Batch:
    """Pictures [B, 3, H, W] with their attributes [B, A] and those of their patches [B, P, 2], and texts."""

    images: Tensor
    attributes: Tensor
    patch_attributes: Tensor
    texts: Texts


def prepare(styles: tuple[str, ...], seed: int) -> Diet:
    """Draw all pictures of a model."""
    singles, labels = single_pictures(styles, seed)
    scenes, scene_captions = scene_pictures(styles, seed)
    class_captions = caption_token_ids()
    used = torch.cat([scene_captions.unique(), class_captions.unique()]).unique()
    scene_captions, class_captions = (torch.searchsorted(used, ids) for ids in (scene_captions, class_captions))
    firsts = [int((labels == label).nonzero()[0]) for label in range(len(CLASS_NAMES))]
    return Diet(singles, scenes, scene_captions, class_captions, singles.attributes[firsts], used)


def text_batch(diet: Diet, rows: Tensor, generator: torch.Generator) -> Texts:
    """One wording of each class and of each of some scenes, at random."""
    _, num_wordings, _ = diet.scene_captions.shape
    num_templates, num_classes, _ = diet.class_captions.shape
    scenes = diet.scene_captions[rows, torch.randint(num_wordings, (len(rows),), generator=generator)]
    templates = torch.randint(num_templates, (num_classes,), generator=generator)
    classes = diet.class_captions[templates, torch.arange(num_classes)]
    attributes = torch.cat([diet.class_attributes, diet.scenes.attributes[rows]])
    return Texts(torch.cat([classes, scenes]), attributes)


def random_texts(diet: Diet, generator: torch.Generator) -> Texts:
    """A batch of captions only."""
    return text_batch(diet, torch.randint(len(diet.scene_captions), (TEXT_BATCH,), generator=generator), generator)


def random_batch(diet: Diet, share: float, generator: torch.Generator) -> Batch:
    """A batch of the first `share` of the pictures: random views of single digits, then of scenes in similar pairs."""
    ones = torch.randint(int(share * len(diet.singles.images)), (SINGLES,), generator=generator)
    firsts = torch.randint(int(share * len(diet.scenes.images)) // 2, (SCENES // 2,), generator=generator) * 2
    rows = torch.stack([firsts, firsts + 1], dim=1).flatten()
    single_views = random_views(diet.singles.normalised(ones), generator, SINGLE_CROP_SCALE, may_flip=True)
    scene_views = random_views(diet.scenes.normalised(rows), generator, SCENE_CROP_SCALE, may_flip=False)
    return Batch(
        images=torch.cat([single_views, scene_views]),
        attributes=torch.cat([diet.singles.attributes[ones], diet.scenes.attributes[rows]]),
        patch_attributes=torch.cat([diet.singles.patch_attributes[ones], diet.scenes.patch_attributes[rows]]),
        texts=text_batch(diet, rows, generator),
    )
