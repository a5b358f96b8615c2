"""Replay of the caption metrics (kind F) and of the tokenizers (kind T).

F_metrics and T_tokenizer are json files without an npz, so each function here also says what was recorded, and how far
ours may be from it: quantity -> (ours or None where it is not replayed, recorded, tolerance).
`reference_example_overall` in F_metrics is left out: its captions are not part of the traces.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch.nn import functional as F

from clipscore.metrics.captions import PROMPT, clip_scores, reference_cosines
from clipscore.metrics.coco import COCO_METRICS, coco_scores, ptb_tokenize
from clipscore.text_encoder import encode_texts
from retrieval.captions import clean_caption
from tests.golden_files import Golden

MODEL_TOLERANCE = 1e-8  # float64
SCORER_TOLERANCE = 1e-4  # METEOR prints its figures

Quantities = dict[str, tuple[Any, np.ndarray, float]]


def clipscore_quantities(golden: Golden) -> Quantities:
    """CLIPScore, RefCLIPScore and what they are made of, from recorded image features."""
    meta, arrays = golden.meta("F_metrics"), golden.arrays("F_clipscore")
    clip = golden.clip(meta["model"].removeprefix("clip_").removesuffix(".safetensors"))
    texts = [meta["prompt_prefix"] + caption for caption in meta["captions"]]
    images = F.normalize(golden.tensor(arrays.pop("input/image_features")), dim=-1)
    candidates = encode_texts(clip, texts)
    references = [encode_texts(clip, [meta["prompt_prefix"] + text for text in group]) for group in meta["refs"]]
    scores, with_references = clip_scores(images, candidates, references, meta["w"])
    cosines = reference_cosines(candidates, references)
    ours = {"candidate_tokens": clip.tokenize(texts), "candidate_features": candidates}
    for name, values in {"clipscore": scores, "refonly": cosines, "refclipscore": with_references}.items():
        ours |= {f"{name}_per": values, f"{name}_mean": values.mean()}
    ours["refonly_per_from_text"] = cosines
    same_prompt = {"prompt_prefix is ours": _exact(meta["prompt_prefix"] == PROMPT)}
    return same_prompt | {name: (ours.get(name), recorded, MODEL_TOLERANCE) for name, recorded in arrays.items()}


def metrics_quantities(golden: Golden) -> Quantities:
    """PTB tokens, BLEU, METEOR, ROUGE-L and CIDEr, over all captions and per caption. Needs Java."""
    meta = golden.meta("F_metrics")
    candidates = {str(row): caption for row, caption in enumerate(meta["captions"])}
    references = {str(row): group for row, group in enumerate(meta["refs"])}
    columns, _ = coco_scores(candidates, references, [name for name in COCO_METRICS if name != "spice"])
    tokens = [line for [line] in ptb_tokenize({key: [caption] for key, caption in candidates.items()}).values()]
    found: Quantities = {
        "ptb_tokenized/captions": _exact(tokens == meta["ptb_tokenized"]["captions"]),
        "ptb_tokenized/refs": _exact(list(ptb_tokenize(references).values()) == meta["ptb_tokenized"]["refs"]),
    }
    names = {"bleu": "bleu", "meteor": "meteor", "rouge": "rouge_l", "cider": "cider"}
    for part, kind in enumerate(("overall", "per_caption")):
        for name, values in meta["metrics"][kind].items():
            ours, recorded = [columns[column][part] for column in COCO_METRICS[names[name]]], np.asarray(values)
            found[f"{kind}/{name}"] = np.reshape(ours, recorded.shape), recorded, SCORER_TOLERANCE
    return found


def tokenizer_quantities(golden: Golden) -> Quantities:
    """Token ids of awkward strings and cleaned captions.

    The retrieval tokenizer of the official code cuts a long text without putting the end token back; ours puts it back
    in every task. For cut texts its ids are therefore compared without the last one.
    """
    meta = golden.meta("T_tokenizer")
    name = min(golden.folder.glob("clip_*.safetensors")).stem.removeprefix("clip_")
    ids = golden.clip(name).tokenize(meta["texts"])  # [N, L]
    words = [SimpleTokenizer().encode(text) for text in meta["texts"]]
    cut = torch.tensor(meta["raises_without_truncate"])
    rows = [meta["tpt_truncate"], meta["lavis_tokenize"]]
    truncated, official = torch.tensor([[row + [0] * (ids.shape[1] - len(row)) for row in kind] for kind in rows])
    cleaned = [clean_caption(text) for text in meta["blip_caption"]["texts"]]
    return {
        "tpt_truncate": _exact(ids, truncated),
        "lavis_tokenize, whole texts": _exact(ids[~cut], official[~cut]),
        "lavis_tokenize, cut texts without the last id": _exact(ids[cut, :-1], official[cut, :-1]),
        "simple_tokenizer_encode": _exact(words == meta["simple_tokenizer_encode"]),
        "raises_without_truncate": _exact([len(w) + 2 > ids.shape[1] for w in words], cut),
        "blip_caption": _exact(cleaned == meta["blip_caption"]["processed"]),
    }


TRACES: dict[str, Callable[[Golden], Quantities]] = {
    "F_clipscore": clipscore_quantities,
    "F_metrics": metrics_quantities,
    "T_tokenizer": tokenizer_quantities,
}


def _exact(ours: Any, recorded: Any = True) -> tuple[np.ndarray, np.ndarray, float]:
    """Integers, or whether something holds."""
    return np.asarray(ours, np.int64), np.asarray(recorded, np.int64), 0.0
