"""The demo's captioning table: CapDec and ClipCap before and after RLCF, with paired bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clipscore.metrics.captions import CaptionScores, check_metrics, score_captions
from clipscore.metrics.coco import has_java
from clipscore.metrics.significance import bootstrap_interval
from clipscore.models.load import load_clip

JUDGE = "demo/reward.pt"  # CLIPScore's model; there is no third CLIP that reads these scenes
COLUMNS = {"BLEU-4": ("bleu", "bleu_4"), "CIDEr": ("cider", "cider"), "CLIPScore": ("clipscore", "clipscore")}
HEADING = ("scenes", "captioner", "n")


def columns() -> list[str]:
    """The metrics that this machine can compute: BLEU and CIDEr need Java."""
    return [name for name, (metric, _) in COLUMNS.items() if metric == "clipscore" or has_java()]


def score(rows: Sequence[Mapping[str, Any]], images: Path, pretrained: Path) -> tuple[CaptionScores, CaptionScores]:
    """Scores of a run's captions before and after adaptation.

    Args:
        rows: its records.
        images: folder of the images that the ids name.
        pretrained: folder of weights.
    """
    metrics = check_metrics([COLUMNS[name][0] for name in columns()])
    references = {row["id"]: row["references"] for row in rows}
    paths = {row["id"]: images / row["id"] for row in rows}
    judge = load_clip(JUDGE, pretrained)
    before, after = (
        score_captions({row["id"]: row[key] for row in rows}, references, metrics, judge, paths)
        for key in ("caption_before", "caption")
    )
    return before, after


def cells(before: CaptionScores, after: CaptionScores) -> list[str]:
    """Each metric before and after, and the mean difference per image with its 95% interval."""
    found = []
    for name in columns():
        column = COLUMNS[name][1]
        was, now = ([values[column] for values in scores.per_caption.values()] for scores in (before, after))
        difference, low, high = bootstrap_interval(was, now)
        found.append(
            f"{before.means[column]:.1f} -> {after.means[column]:.1f} ({difference:+.1f}, {low:+.1f} to {high:+.1f})"
        )
    return found
