"""What the demo's models read: captions of a class or of a scene in several wordings, as CLIP tokens."""

import torch
from torch import Tensor

from clipscore.models.backends import open_clip
from scripts.demo.scenes import CLASS_NAMES, Scene

CAPTION_TEMPLATES = (
    "a photo of a {}.", "a_photo_of_a {}.", "a photo of a {}", "a photo of the {}.", "a photo of one {}.",
    "a picture of a {}.", "an image of a {}.", "a drawing of a {}.", "a small photo of a {}.",
    "a bad photo of the {}.", "a handwritten {}.", "this is a {}.", "the {}.", "{}",
)  # fmt: skip
# Of scenes by layout; {0}, {1}, {2} are the digits in reading order, each with its article.
SCENE_TEMPLATES: dict[str, tuple[str, ...]] = {
    "row": ("{0} left of {1}", "{1} right of {0}", "{0} with {1} on the right", "{1} with {0} on the left"),
    "column": ("{0} above {1}", "{1} below {0}", "{0} with {1} at the bottom", "{1} with {0} at the top"),
    "two above one": ("{0} left of {1} above {2}", "{2} below {1} right of {0}",
                      "{1} right of {0} above {2}", "{2} below {0} left of {1}"),
    "one above two": ("{0} above {1} left of {2}", "{2} right of {1} below {0}",
                      "{0} above {2} right of {1}", "{1} left of {2} below {0}"),
}  # fmt: skip
CAPTIONS_PER_SCENE = 3  # of a test scene
CONTEXT_LENGTH = 24  # of the training captions' token ids; CLIP's own 77 would be mostly padding


def caption_token_ids() -> Tensor:
    """Token ids of every class in every wording: [templates, C, L]."""
    wordings = [[template.format(name) for name in CLASS_NAMES] for template in CAPTION_TEMPLATES]
    return torch.stack([open_clip.tokenize(texts, context_length=CONTEXT_LENGTH) for texts in wordings])


def captions_of(scene: Scene) -> list[str]:
    """All true captions of a scene of two or three digits; each names all its digits and their arrangement."""
    names = [f"a {digit.name}" for digit in scene.digits]
    return [template.format(*names) for template in SCENE_TEMPLATES[scene.layout]]


def chosen_captions(scene: Scene, index: int) -> list[str]:
    """Three captions of a test scene: its index says with which wording they begin."""
    captions, start = captions_of(scene), index % len(SCENE_TEMPLATES[scene.layout])
    return (captions + captions)[start : start + CAPTIONS_PER_SCENE]


def scene_token_ids(scene: Scene) -> Tensor:
    """Token ids of a scene's captions. [wordings, L]"""
    return open_clip.tokenize(captions_of(scene), context_length=CONTEXT_LENGTH)
