"""Replay of the caption metrics (kind F) and of the tokenizers (kind T).

F_metrics and T_tokenizer are json files without an npz, so each function here also says what was recorded.
`reference_example_overall` in F_metrics is left out: its captions are not part of the traces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch.nn import functional as F

from clipscore.metrics.captions import PROMPT, clip_scores, reference_cosines
from clipscore.metrics.coco import COCO_METRICS, coco_scores, ptb_tokenize
from clipscore.text_encoder import encode_texts
from retrieval.captions import clean_caption
from tests.golden_files import Golden

EXACT = 0.0
MODEL_TOLERANCE = 1e-8  # float64
SCORER_TOLERANCE = 1e-4  # METEOR prints its figures


class Quantity(NamedTuple):
    """One recorded quantity and ours, None when it is not replayed. Integers must be equal."""

    name: str
    ours: Any
    recorded: np.ndarray
    tolerance: float


def clipscore_quantities(golden: Golden) -> list[Quantity]:
    """CLIPScore, RefCLIPScore and what they are made of, from recorded image features."""
    meta, arrays = golden.meta("F_metrics"), golden.arrays("F_clipscore")
    clip = golden.clip(meta["model"].removeprefix("clip_").removesuffix(".safetensors"))
    texts = [meta["prompt_prefix"] + caption for caption in meta["captions"]]
    images = F.normalize(golden.tensor(arrays.pop("input/image_features")), dim=-1)
    candidates = encode_texts(clip, texts)
    references = [encode_texts(clip, [meta["prompt_prefix"] + text for text in group]) for group in meta["refs"]]
    scores, with_references = clip_scores(images, candidates, references, meta["w"])
    cosines = reference_cosines(candidates, references)
    ours = {
        "candidate_tokens": clip.tokenize(texts),
        "candidate_features": candidates,
        "clipscore_per": scores,
        "clipscore_mean": scores.mean(),
        "refonly_per": cosines,
        "refonly_per_from_text": cosines,
        "refonly_mean": cosines.mean(),
        "refclipscore_per": with_references,
        "refclipscore_mean": with_references.mean(),
    }
    same_prompt = _exact("prompt_prefix is ours", meta["prompt_prefix"] == PROMPT)
    return [same_prompt, *(Quantity(name, ours.get(name), value, _tolerance(value)) for name, value in arrays.items())]


def metrics_quantities(golden: Golden) -> list[Quantity]:
    """PTB tokens, BLEU, METEOR, ROUGE-L and CIDEr, over all captions and per caption. Needs Java."""
    meta = golden.meta("F_metrics")
    candidates = {str(row): caption for row, caption in enumerate(meta["captions"])}
    references = {str(row): group for row, group in enumerate(meta["refs"])}
    columns, _ = coco_scores(candidates, references, [name for name in COCO_METRICS if name != "spice"])
    tokens = [line for [line] in ptb_tokenize({key: [caption] for key, caption in candidates.items()}).values()]
    same = (tokens, list(ptb_tokenize(references).values()))
    found = [
        _exact(f"ptb_tokenized/{name}", ours == meta["ptb_tokenized"][name])
        for name, ours in zip(("captions", "refs"), same, strict=True)
    ]
    names = {"bleu": "bleu", "meteor": "meteor", "rouge": "rouge_l", "cider": "cider"}
    for part, kind in enumerate(("overall", "per_caption")):
        for name, recorded in meta["metrics"][kind].items():
            ours = np.array([columns[column][part] for column in COCO_METRICS[names[name]]])
            recorded = np.asarray(recorded)
            found.append(Quantity(f"{kind}/{name}", ours.reshape(recorded.shape), recorded, SCORER_TOLERANCE))
    return found


def tokenizer_quantities(golden: Golden) -> list[Quantity]:
    """Token ids of awkward strings and cleaned captions.

    The retrieval tokenizer of the official code cuts a long text without putting the end token back; ours puts it back
    in every task. For cut texts its ids are therefore compared without the last one.
    """
    meta = golden.meta("T_tokenizer")
    name = min(golden.folder.glob("clip_*.safetensors")).stem.removeprefix("clip_")
    ids = golden.clip(name).tokenize(meta["texts"])  # [N, L]
    words = [SimpleTokenizer().encode(text) for text in meta["texts"]]
    cut = torch.tensor(meta["raises_without_truncate"])
    official = _padded(meta["lavis_tokenize"], ids.shape[1])
    cleaned = [clean_caption(text) for text in meta["blip_caption"]["texts"]]
    return [
        _exact("tpt_truncate", ids, _padded(meta["tpt_truncate"], ids.shape[1])),
        _exact("lavis_tokenize, whole texts", ids[~cut], official[~cut]),
        _exact("lavis_tokenize, cut texts without the last id", ids[cut, :-1], official[cut, :-1]),
        _exact("simple_tokenizer_encode", words == meta["simple_tokenizer_encode"]),
        _exact("raises_without_truncate", [len(w) + 2 > ids.shape[1] for w in words], cut),
        _exact("blip_caption", cleaned == meta["blip_caption"]["processed"]),
    ]


TRACES: dict[str, Callable[[Golden], list[Quantity]]] = {
    "F_clipscore": clipscore_quantities,
    "F_metrics": metrics_quantities,
    "T_tokenizer": tokenizer_quantities,
}


def _tolerance(recorded: np.ndarray) -> float:
    return EXACT if np.issubdtype(recorded.dtype, np.integer) else MODEL_TOLERANCE


def _exact(name: str, ours: Any, recorded: Any = True) -> Quantity:
    """Integers, or whether something holds."""
    return Quantity(name, np.asarray(ours).astype(np.int64), np.asarray(recorded).astype(np.int64), EXACT)


def _padded(rows: Sequence[Sequence[int]], length: int) -> torch.Tensor:
    return torch.tensor([[*row, *[0] * (length - len(row))] for row in rows])
