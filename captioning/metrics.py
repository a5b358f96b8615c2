"""Figures of a captioning run: the running one, and the caption metrics of the finished run."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from clipscore.clip_model import ClipModel
from clipscore.metrics.captions import score_captions

log = logging.getLogger(__name__)

Rows = Sequence[dict[str, Any]]


def non_empty(rows: Rows) -> float:
    """Share of the captions that hold anything, in %."""
    return 100 * sum(bool(row["caption"]) for row in rows) / len(rows)


def reward_gain(rows: Rows) -> float:
    """How much more reward the last captions of a row have than its first, times 100; 0 without two steps."""
    rewards = [row["rewards"] for row in rows if len(row["rewards"]) > 1]
    return 100 * fmean(fmean(steps[-1]) - fmean(steps[0]) for steps in rewards) if rewards else 0.0


def summarize(
    rows: Rows, images: Mapping[str, Path], metrics: Sequence[str] | None, clip: ClipModel | None, on_error: str
) -> dict[str, float]:
    """Caption metrics of a run, times 100; with `_before` in their names those of the captions before adaptation.

    The rows have `id`, `caption` and `references`, and all or none of them `caption_before`; `images` has the file of
    each id. The other arguments, and the errors, are those of `score_captions`.
    """
    references = {row["id"]: row["references"] for row in rows}
    result: dict[str, float] = {}
    for key, ending in (("caption_before", "_before"), ("caption", "")):
        if key not in rows[0]:
            continue
        captions = {row["id"]: row[key] for row in rows}
        scores = score_captions(captions, references, metrics, clip, images, on_error)
        result |= {f"{column}{ending}": value for column, value in scores.means.items()}
        for note in scores.notes:
            log.warning("metrics of %s: %s", key, note)
    result["non_empty"] = non_empty(rows)
    if any(len(row["rewards"]) > 1 for row in rows):
        result["reward_gain"] = reward_gain(rows)
    return result
