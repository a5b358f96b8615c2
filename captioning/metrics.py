"""Figures of a captioning run: the running one, and the caption metrics of the finished run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clipscore.clip_model import ClipModel
from clipscore.metrics.captions import score_captions

log = logging.getLogger(__name__)

Rows = Sequence[dict[str, Any]]


def non_empty(rows: Rows) -> float:
    """Share of the captions that hold anything, in %."""
    return 100 * sum(bool(row["caption"]) for row in rows) / len(rows)


def reward_gain(rows: Rows) -> float:
    """How much more reward the captions proposed in the last step have than those of the first, times 100.

    Args:
        rows: records with `rewards` of two steps or more. Mean over the K of a step, then over the rows.
    """
    gains = [_mean(row["rewards"][-1]) - _mean(row["rewards"][0]) for row in rows]
    return 100 * _mean(gains)


def summarize(
    rows: Rows, images: Mapping[str, Path], metrics: Sequence[str] | None, clip: ClipModel | None, on_error: str
) -> dict[str, float]:
    """Caption metrics of a run, times 100; of the captions before adaptation too where there are any.

    Args:
        rows: records with `id`, `caption` and `references`, and all or none of them with `caption_before`.
        images: image id -> file, for every row.
        metrics: names of `clipscore.metrics.captions.METRICS`; None: all that can run.
        clip: the model of CLIPScore, needed for clipscore and refclipscore.
        on_error: what an image that can no longer be read does, "stop" or "skip".

    Returns:
        Column -> figure, `_before` in its name for the captions before adaptation.

    Raises:
        ValueError, RuntimeError: see `score_captions`.
    """
    references = {row["id"]: row["references"] for row in rows}
    result: dict[str, float] = {}
    for key, ending in (("caption_before", "_before"), ("caption", "")):
        if key not in rows[0]:
            continue
        captions = {row["id"]: row[key] for row in rows}
        scores = score_captions(captions, references, metrics, clip, images, on_error)
        result |= {f"{column}{ending}": round(value, 3) for column, value in scores.means.items()}
        for note in scores.notes:
            log.warning("metrics of %s: %s", key, note)
    result["non_empty"] = round(non_empty(rows), 3)
    if all(len(row["rewards"]) > 1 for row in rows):
        result["reward_gain"] = round(reward_gain(rows), 4)
    return result


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
