"""What the records of one run say about itself, and about another run of the same samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clipscore.metrics.significance import bootstrap_interval, changes, mcnemar_p_value, share_interval
from retrieval.metrics import recalls
from scripts.runs.read import Row, Run
from scripts.tables.calibration import accuracy_by_step, calibration_error, mean_brier, reliability_bins
from scripts.tables.figures import caption_metrics, is_right

Sheet = dict[str, "Quantity"]
MORE_FIELDS = ("confidence_before", "confidence", "brier_before", "brier", "step_top1", "step_rank", "moved")


@dataclass(frozen=True)
class Quantity:
    """A number of a run, or several that belong together, and how it is shown."""

    value: Any
    text: str


def keep(row: Row) -> Row:
    """What comparisons read of a classification or retrieval record."""
    kept = {name: row[name] for name in MORE_FIELDS if name in row}
    if "rank" in row:
        return kept | {"right_before": row["rank_before"] == 1, "right": is_right(row), "rank": row["rank"]}
    before, label = row["top5_before"][0], row["label"]
    return kept | {
        "right_before": before == label, "right": is_right(row), "label": label, "in_top5": label in row["top5"]
    }  # fmt: skip


def answer_sheet(rows: Mapping[str, Row]) -> Sheet:
    """Figures of a classification or retrieval run: before and after adaptation, calibration, by step."""
    kept = list(rows.values())
    before, after = ([row[key] for row in kept] for key in ("right_before", "right"))
    name = "R@1" if "rank" in kept[0] else "accuracy"
    sheet = {
        f"{name} before": _percent(_share(before)),
        name: _percent(_share(after)),
    }
    if name == "R@1":
        found = recalls([row["rank"] for row in kept])
        sheet |= {"R@5": _percent(found["r5"]), "R@10": _percent(found["r10"])}
    else:
        sheet["top-5 accuracy"] = _percent(_share([row["in_top5"] for row in kept]))
    sheet |= {f"{key} by adaptation": value for key, value in paired(before, after).items() if "difference" not in key}
    for key, title in (("step_top1", "accuracy of the confident views"), ("step_rank", "R@1")):
        if all(row.get(key) for row in kept):
            shares = accuracy_by_step([row.get("label", 1) for row in kept], [row[key] for row in kept])
            steps = [100 * share for share in shares]
            sheet[f"{title} before each step"] = Quantity(steps, " ".join(f"{share:.1f}" for share in steps))
    for ending in ("_before", ""):
        sheet |= _calibration(kept, ending)
    if all("moved" in row for row in kept):
        sheet["samples that moved nothing"] = _count(sum(row["moved"] == 0 for row in kept))
    return sheet


def _calibration(rows: Sequence[Row], ending: str) -> Sheet:
    """ECE and Brier score before or after adaptation; nothing for records that do not have what they need."""
    sheet: Sheet = {}
    words = " before" if ending else ""
    if all(f"confidence{ending}" in row for row in rows):
        bins = reliability_bins([row[f"confidence{ending}"] for row in rows], [row[f"right{ending}"] for row in rows])
        sheet[f"ECE{words}, 15 bins, %"] = _percent(100 * calibration_error(bins))
    if all(f"brier{ending}" in row for row in rows):
        value = mean_brier([row[f"brier{ending}"] for row in rows])
        sheet[f"Brier score{words}"] = Quantity(value, f"{value:.4f}")
    return sheet


def paired(before: Sequence[bool], after: Sequence[bool]) -> Sheet:
    """Two answers to the same samples: the difference, what was fixed and broken, and whether that is chance."""
    fixed, broken = changes(before, after)
    low, high = share_interval(fixed, broken, len(before))
    p_value = mcnemar_p_value(fixed, broken)
    return {
        "difference": _interval(100 * (fixed - broken) / len(before), 100 * low, 100 * high),
        "fixed": _count(fixed),
        "broken": _count(broken),
        "McNemar p": Quantity(p_value, f"{p_value:.2g}"),
    }


def caption_sheet(run: Run, rows: Mapping[str, Row]) -> Sheet:
    """Figures of a captioning run: the metrics of its summary, and the reward of its proposals by step."""
    metrics, missing = caption_metrics(run, len(rows))
    sheet = {name: _percent(value) for name, value in metrics.items()}
    if missing:
        sheet["caption metrics"] = Quantity(None, missing)
    rewards = [row["rewards"] for row in rows.values() if row.get("rewards")]
    if len(rewards) == len(rows):
        steps = [sum(sum(step) / len(step) for step in at) / len(at) for at in zip(*rewards, strict=True)]
        sheet["mean reward by step"] = Quantity(steps, " ".join(f"{value:.3f}" for value in steps))
    return sheet


def caption_differences(
    score: Callable[[Mapping[str, Row]], dict[str, dict[str, float]]], base: Mapping[str, Row], rows: Mapping[str, Row]
) -> Sheet:
    """Mean difference per image with its bootstrap interval, for each column that `score` gives of each image."""
    was, now = score(base), score(rows)
    columns = next(iter(now.values()))
    pairs = {name: ([was[key][name] for key in base], [now[key][name] for key in base]) for name in columns}
    return {name: _interval(*bootstrap_interval(*pair)) for name, pair in pairs.items()}


def _share(hits: Sequence[bool]) -> float:
    return 100 * sum(hits) / len(hits)


def _percent(value: float) -> Quantity:
    return Quantity(value, f"{value:.2f}")


def _count(value: int) -> Quantity:
    return Quantity(value, f"{value:,}")


def _interval(value: float, low: float, high: float) -> Quantity:
    return Quantity([value, low, high], f"{value:+.2f} ({low:+.2f} to {high:+.2f})")
