"""Captions as the retrieval models read them.

Source: BLIP, Li et al. 2022 (arXiv 2201.12086); official retrieval/lavis/processors/blip_processors.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MAX_WORDS = 50
_PUNCTUATION = re.compile(r'[.!"()*#:;~]')


def clean_caption(text: str, max_words: int = MAX_WORDS) -> str:
    """Lower case, some punctuation to spaces, single spaces, at most `max_words` words; may be empty."""
    return " ".join(_PUNCTUATION.sub(" ", text.lower()).split()[:max_words])


def clean_captions(captions: Sequence[Sequence[str]], names: Sequence[str]) -> list[list[str]]:
    """`clean_caption` of the captions of each image.

    Args:
        captions: of each image.
        names: of the images, for the message.

    Raises:
        ValueError: nothing is left of a caption.
    """
    cleaned = [[clean_caption(text) for text in texts] for texts in captions]
    empty = [
        (name, raw)
        for name, texts, originals in zip(names, cleaned, captions, strict=True)
        for text, raw in zip(texts, originals, strict=True)
        if not text
    ]
    if empty:
        name, raw = empty[0]
        raise ValueError(
            f"{len(empty)} captions are empty once punctuation is removed, the first is {raw!r} of image {name}; "
            "remove them from the annotation file"
        )
    return cleaned
