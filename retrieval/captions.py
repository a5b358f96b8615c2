"""Captions as BLIP's models read them, Li et al. 2022 (arXiv 2201.12086); official blip_processors.py."""

import itertools
import re
from collections.abc import Sequence

MAX_WORDS = 50
_PUNCTUATION, _SPACES = re.compile(r'[.!"()*#:;~]'), re.compile(r"\s{2,}")


def clean_caption(text: str) -> str:
    """Lower case, some punctuation to spaces, at most MAX_WORDS words between spaces; may hold nothing but white space.

    Two white spaces or more become one space; a single line break or tab stays. As BLIP's models read captions, Li et
    al. 2022 (arXiv 2201.12086); official blip_processors.py.
    """
    words = _SPACES.sub(" ", _PUNCTUATION.sub(" ", text.lower())).rstrip("\n").strip(" ").split(" ")
    return " ".join(words[:MAX_WORDS])


def clean_captions(captions: Sequence[Sequence[str]], names: Sequence[str]) -> list[list[str]]:
    """`clean_caption` of the captions of each image; ValueError, which names the image, when nothing is left of one."""
    cleaned = [[clean_caption(text) for text in texts] for texts in captions]
    all_texts = [(name, raw) for name, texts in zip(names, captions, strict=True) for raw in texts]
    empty = [place for place, text in zip(all_texts, itertools.chain(*cleaned), strict=True) if not text.strip()]
    if empty:
        name, raw = empty[0]
        what = f"{len(empty)} captions are empty once punctuation is removed, the first is {raw!r} of image {name}"
        raise ValueError(f"{what}; remove them from the annotation file")
    return cleaned
