"""Accuracy before and after, and whether the difference is chance."""

from collections.abc import Sequence
from typing import Any

from clipscore.metrics.significance import change_figures, percent


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, float | int]:
    """Figures of a run's records; empty for no rows.

    Top-1 and top-5 accuracy before and after adaptation in %, how many answers adaptation made right (`fixed`) and
    wrong (`broken`), and the exact McNemar p-value of the two.
    """
    if not rows:
        return {}
    right_before = [row["top5_before"][0] == row["label"] for row in rows]
    right = [row["top5"][0] == row["label"] for row in rows]
    return {
        "accuracy_before": percent(right_before),
        "accuracy": percent(right),
        "accuracy_top5_before": percent([row["label"] in row["top5_before"] for row in rows]),
        "accuracy_top5": percent([row["label"] in row["top5"] for row in rows]),
        **change_figures(right_before, right),
    }
