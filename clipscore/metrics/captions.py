"""How good are captions? CLIPScore and RefCLIPScore against the image, BLEU and the others against references.

Source: CLIPScore, Hessel et al. 2021 (arXiv 2104.08718); official clipscore/clipscore.py.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from clipscore.clip_model import ClipModel
from clipscore.data.checks import list_some
from clipscore.data.images import Pictures, encode_pictures, progress
from clipscore.data.open_image import UnreadableImage
from clipscore.metrics.coco import COCO_METRICS, Column, check_programs, coco_scores, has_spice_models, one_line
from clipscore.reward import clip_score
from clipscore.text_encoder import encode_texts

PROMPT = "A photo depicts "  # in front of candidates and references; the reward has no such prompt
CLIP_METRICS = {"clipscore": ("clipscore",), "refclipscore": ("refclipscore",)}
METRICS = {**COCO_METRICS, **CLIP_METRICS}  # metric -> its columns
NEED_REFERENCES = tuple(name for name in METRICS if name != "clipscore")


@dataclass(frozen=True)
class CaptionScores:
    """Scores of captions, all times 100."""

    means: dict[str, float]  # column -> score over all; BLEU and METEOR pool their counts, the others are plain means
    per_caption: dict[str, dict[str, float]]  # image id -> column -> score
    notes: list[str] = field(default_factory=list)  # one sentence each: what was ignored or left out


def reference_cosines(candidate_features: Tensor, reference_features: Sequence[Tensor]) -> Tensor:
    """Cosine of each candidate with the nearest of its references, not clipped. [N, D], N x [R, D] -> [N]"""
    pairs = zip(candidate_features, reference_features, strict=True)
    return torch.stack([(references @ candidate).max() for candidate, references in pairs])


def clip_scores(
    image_features: Tensor, candidate_features: Tensor, reference_features: Sequence[Tensor], scale: float = 2.5
) -> tuple[Tensor, Tensor]:
    """CLIPScore, in [0, scale], and RefCLIPScore of each image's caption, as fractions. -> 2 x [N]

    RefCLIPScore is the harmonic mean 2ab / (a + b) of CLIPScore a, scale included, and the largest cosine b with a
    reference, without the scale; 0 where CLIPScore is 0. As in the official code b is not clipped at 0 (the paper's
    formula clips it), so a candidate that is opposed to all its references has a negative RefCLIPScore.

    All features are of unit length: images [N, D], "A photo depicts " + caption [N, D], each image's references
    likewise, N x [R, D]; ValueError: R is 0.
    """
    n = len(image_features)
    if len(reference_features) != n or not all(len(references) for references in reference_features):
        raise ValueError(f"one reference or more for each of {n} images expected, got {len(reference_features)} groups")
    scores = clip_score(image_features, candidate_features.unsqueeze(1), scale).squeeze(1)  # [N, 1] -> [N]
    cosines = reference_cosines(candidate_features, reference_features)
    total = scores + cosines
    undefined = (scores == 0) | (total == 0)
    return scores, torch.where(undefined, 0.0, 2 * scores * cosines / total.masked_fill(undefined, 1.0))


def check_metrics(names: Sequence[str]) -> list[str]:
    """Metrics in the order of METRICS, once each; `ROUGE-L` is understood.

    ValueError for an unknown name, or none; RuntimeError when one needs Java or pycocoevalcap and there is none.
    """
    plain = [name.strip().lower().replace("-", "_") for name in names]
    for name, given in zip(plain, names, strict=True):
        if name not in METRICS:
            near = difflib.get_close_matches(name, METRICS, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"unknown caption metric {given!r}; there are {', '.join(METRICS)}{hint}")
    if not plain:
        raise ValueError(f"no caption metric is named; there are {', '.join(METRICS)}")
    chosen = [name for name in METRICS if name in plain]
    if coco := [name for name in chosen if name in COCO_METRICS]:
        check_programs(coco)
    return chosen


def default_metrics(has_references: bool) -> list[str]:
    """All metrics that the input allows; SPICE, a large download, only where its models are there already."""
    without = set() if has_spice_models() else {"spice"}
    return [name for name in METRICS if name not in without and (has_references or name not in NEED_REFERENCES)]


def check_captions(
    candidates: Mapping[str, str], references: Mapping[str, Sequence[str]] | None, metrics: Sequence[str]
) -> tuple[dict[str, list[str]], list[str]]:
    """The references of each candidate, without blank ones, and notes on what was ignored.

    ValueError for no candidates, values of another type, or a metric that needs references that are not there.
    """
    for name, given in (("candidates", candidates), ("references", references or {})):
        if not isinstance(given, Mapping):
            raise ValueError(f"{name} must be a mapping from image names, got a {type(given).__name__}")
    if not candidates:
        raise ValueError("there are no candidates: nothing to score")
    if wrong := [key for key, caption in candidates.items() if not isinstance(caption, str)]:
        raise ValueError(f"a candidate must be one string, got {candidates[wrong[0]]!r}{list_some(wrong)}")
    needing = [name for name in metrics if name in NEED_REFERENCES]
    if not needing:
        return {}, []
    if references is None:
        mend = "give them, or use metrics=[clipscore] (--metrics clipscore)"
        raise ValueError(f"{', '.join(needing)} need references; {mend}")
    references = {key: [group] if isinstance(group, str) else group for key, group in references.items()}
    for key, group in references.items():
        if not isinstance(group, list | tuple) or not all(isinstance(text, str) for text in group):
            raise ValueError(f"the references of {key} must be a string or a list of them, got {group!r}")
    kept = {key: [text for text in references.get(key, []) if any(map(str.isalnum, text))] for key in candidates}
    if missing := [key for key, group in kept.items() if not group]:
        counts = f"{len(missing)} of {len(candidates)} candidates have no reference{list_some(missing)}"
        raise ValueError(f"{counts}; add them, or use metrics=[clipscore] (--metrics clipscore)")
    blank = sum(len(references[key]) - len(group) for key, group in kept.items())
    unknown = len(references.keys() - candidates.keys())
    notes = [f"{blank} references without a letter or digit are ignored"] if blank else []
    return kept, notes + ([f"references of {unknown} images without a candidate are ignored"] if unknown else [])


def encode_image_files(
    clip: ClipModel, images: Mapping[str, Path], on_error: str = "stop", batch_size: int = 32
) -> tuple[dict[str, Tensor], list[str]]:
    """Unit-length features of image files: name -> [D] on the CPU, and a note per file left out.

    UnreadableImage for one that cannot be read, with "stop"; or when none of all can.
    """
    pictures, stop = Pictures(list(images.values()), clip.form, as_rgb=False), None if on_error == "skip" else ""
    with progress("images", len(images)) as advance:
        encode = ClipModel.encode_images
        [found], faults, _ = encode_pictures([clip], pictures, encode, batch_size, 0, stop, advance)
    if len(faults) == len(images):
        raise UnreadableImage(f"none of {len(images)} images can be read; the first: {faults[0]}")
    features = zip(images, found.cpu(), strict=True)
    kept = dict(pair for number, pair in enumerate(features) if number not in faults)
    return kept, [f"left out: {reason}" for reason in faults.values()]


def score_captions(
    candidates: Mapping[str, str],
    references: Mapping[str, Sequence[str]] | None = None,
    metrics: Sequence[str] | None = None,
    clip: ClipModel | None = None,
    images: Mapping[str, Path] | None = None,
    on_error: str = "stop",
) -> CaptionScores:
    """Score one caption per image.

    Args:
        candidates: image name -> caption; an empty caption scores 0 against references.
        references: image name -> captions; None allows clipscore alone.
        metrics: names of METRICS; None stands for `default_metrics`, of which SPICE may turn out not to run.
        clip: the model of clipscore and refclipscore (ViT-B/32 in the paper), which also need `images`, name -> file.
        on_error: "stop" at an image that cannot be read, or "skip": its caption is left out of every metric.

    ValueError: see `check_metrics` and `check_captions`; clip or images are missing; an unreadable image. RuntimeError:
    no Java, or a Java program failed.
    """
    names = check_metrics(default_metrics(references is not None) if metrics is None else metrics)
    groups, notes = check_captions(candidates, references, names)
    captions = dict(candidates)
    columns: dict[str, Column] = {}
    if any(name in CLIP_METRICS for name in names):
        if clip is None or images is None or any(name not in images for name in candidates):
            raise ValueError("clipscore and refclipscore need a clip model and an image file for every candidate")
        features, unread = encode_image_files(clip, {name: images[name] for name in candidates}, on_error)
        captions = {name: candidates[name] for name in features}
        columns = _clip_columns(clip, features, captions, groups if "refclipscore" in names else {})
        notes += unread
    coco = [name for name in names if name in COCO_METRICS]
    if coco:
        found, left_out = coco_scores(captions, groups, coco)
        if metrics is not None and left_out:  # asked for by name
            raise RuntimeError(f"{'; '.join(left_out)}; leave spice out of the metrics to go without it")
        columns, notes = columns | found, notes + left_out
    if "cider" in names and len(captions) == 1:
        notes.append("CIDEr of a single image is 0: it weighs a word by how few of the images have it")
    order = [column for name in names for column in METRICS[name] if column in columns]
    means = {column: 100 * columns[column][0] for column in order}
    each = {name: {column: 100 * columns[column][1][row] for column in order} for row, name in enumerate(captions)}
    return CaptionScores(means, each, notes)


def _clip_columns(
    clip: ClipModel, features: Mapping[str, Tensor], captions: Mapping[str, str], groups: Mapping[str, Sequence[str]]
) -> dict[str, Column]:
    """The columns of both CLIP metrics, of clipscore alone when there are no references."""
    images = torch.stack(list(features.values()))  # [N, D]
    texts = encode_texts(clip, [PROMPT + one_line(caption) for caption in captions.values()]).cpu()  # [N, D]
    if not groups:
        columns = {"clipscore": clip_score(images, texts.unsqueeze(1)).squeeze(1)}  # [N, 1] -> [N]
    else:
        flat = [PROMPT + one_line(text) for name in captions for text in groups[name]]
        references = encode_texts(clip, flat).cpu().split([len(groups[name]) for name in captions])  # N x [R, D]
        columns = dict(zip(CLIP_METRICS, clip_scores(images, texts, references), strict=True))
    return {name: (float(values.mean()), values.tolist()) for name, values in columns.items()}
