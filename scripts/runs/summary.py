"""What a run comes to: the figures of summary.json, made from its records, and the table of several runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clipscore.config.fields import RunConfig
from scripts.runs.rows import Row

if TYPE_CHECKING:
    from clipscore.task import Task

NUM_LISTED_ERRORS = 10
COUNTED = ("unadapted", "truncated")  # marks of records with a result
NUM_COLUMNS = ("num_errors", *(f"num_{key}" for key in COUNTED))
NOT_METRICS = {"dataset", "name", "num_samples", "partial", "errors", "moved_mean", "samples_per_second"}
NOT_METRICS |= {"repeated_steps", *NUM_COLUMNS}

log = logging.getLogger(__name__)


class SampleError(Exception):
    """A sample has no result, and the run is told to stop then."""


def summarize(task: Task, config: RunConfig, rows: Sequence[Row]) -> Row:
    """The summary of a run whose rows are all there, in the data set's order; SampleError: none has a result."""
    good = [row for row in rows if "error" not in row]
    errors = [row for row in rows if "error" in row]
    if not good:
        raise SampleError(f"none of the {len(rows)} samples has a result; the first: {errors[0]['error']}")
    count, seconds = len(good), sum(row["seconds"] for row in good)
    summary: Row = {"dataset": config.column, "name": config.name, "num_samples": count}
    published, faults = getattr(task, "published", None), task.about.get("faults")
    if published is not None and (count != published or faults):
        summary["partial"] = f"{count} of {published}" + (", data not as published" if faults else "")
    summary |= {"num_errors": len(errors), "errors": [row["id"] for row in errors[:NUM_LISTED_ERRORS]]}
    summary |= {f"num_{key}": num for key in COUNTED if (num := sum(key in row for row in good))}
    summary |= task.summarize(good)
    if moved := [row["moved"] for row in good if "moved" in row]:
        summary["moved_mean"] = float(f"{sum(moved) / len(moved):.6g}")
        if (steps := getattr(config, "steps", 0)) and not any(moved):
            text = "nothing moved: after %d step(s) the tuned parameters are what they were, for each of the samples"
            log.warning(text + "; look at lr, and at the rewards in the records", steps)
    if repeated := [row["repeated_steps"] for row in good if "repeated_steps" in row]:
        summary["repeated_steps"] = sum(repeated)
    return summary | {
        "seconds": round(seconds, 3),
        "seconds_per_sample": round(seconds / count, 6),
        "seconds_waiting": round(sum(row.get("seconds_waiting", 0.0) for row in rows), 3),
        "samples_per_second": round(count / seconds, 3) if seconds else 0.0,
    }


def summary_table(summaries: Sequence[Row]) -> str:
    """Data set, number of samples and metrics of each summary, in aligned columns."""
    keys = dict.fromkeys(key for summary in summaries for key in summary)
    columns = ["dataset", "num_samples"]
    columns += [key for key in ("partial", *NUM_COLUMNS) if any(summary.get(key) for summary in summaries)]
    columns += [key for key in keys if key not in NOT_METRICS and not key.startswith("seconds")]
    rows = [columns, *([_cell(summary.get(key)) for key in columns] for summary in summaries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return "-" if value is None else str(value)
    return f"{value:.2f}" if value == 0 or abs(value) >= 0.01 else f"{value:.1e}"
