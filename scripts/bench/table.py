"""What the benchmarks measured, as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from clipscore.models.devices import autocast_dtype
from scripts.bench.timing import Agreement
from scripts.tables.grid import Grid, markdown

TASKS = ("classification", "retrieval", "captioning")
STAGES = ("policy", "text", "reward", "update", "reset", "other")
FAR = 1.5  # times the floor, from which on it is said where the rest goes
# How far two answers may be apart and still count as equal: the forms round differently in half precision.
TOLERANCE = {None: 1e-3, torch.float16: 0.1, torch.bfloat16: 1.0}

Result = Mapping[str, Any]  # what `python -m scripts.bench --json` wrote


def tables(results: Sequence[Result]) -> str:
    """Times and stages of all results, task by task; a line per machine says where they were measured."""
    rows = [(result, case) for result in results for case in result["cases"]]
    rows.sort(key=lambda row: TASKS.index(row[1]["task"]))
    times = ["episode", "plain", "fast", "ratio", "memory plain", "fast", "times the floor", "same answers"]
    shares = ["share of the time, fast form, %", *STAGES, "where the rest above the floor goes"]
    grids = Grid(times, [_times(*row) for row in rows]), Grid(shares, [_shares(*row) for row in rows])
    return "\n\n".join([*map(markdown, grids), "\n".join(dict.fromkeys(map(_machine, results)))])


def differences(agreement: Agreement, precision: str = "auto", device: str = "cpu") -> list[str]:
    """What is not equal, or further apart than the precision explains (NaN is); for example "logits DIFFER by 0.5"."""
    limit = TOLERANCE[autocast_dtype(precision, torch.device(device))]
    unlike = {name: v for name, v in agreement.items() if not (v if isinstance(v, bool) else v <= limit)}
    return [f"{name} DIFFER" + ("" if value is False else f" by {value:.2g}") for name, value in unlike.items()]


def _times(result: Result, case: Result) -> list[str]:
    plain, fast, about = case["plain"], case["fast"], "about " if case["plain_estimated"] else ""
    device = "cuda" if result["machine"]["gpu"] else "cpu"
    answers = ", ".join(differences(case["agreement"], result["precision"], device)) or "yes"
    return [
        _name(result, case), about + _seconds(plain["median"]), _seconds(fast["median"]), f"{about}{case['ratio']:.2f}",
        *(f"{form['peak_gib']:.1f} GiB" if "peak_gib" in form else "-" for form in (plain, fast)),
        f"{case['floor']['times']:.2f}", answers if case["agreement"] else "not compared",
    ]  # fmt: skip


def _shares(result: Result, case: Result) -> list[str]:
    stages, floor = case["fast"]["stages"], case["floor"]
    total = sum(stages.values())
    least = floor.get("stages", stages)  # a file without them has the floor of arithmetic alone
    rest = {stage: seconds - least.get(stage, 0) for stage, seconds in stages.items()}
    largest = sorted(rest, key=lambda stage: -rest[stage])[:2] if floor["times"] > FAR and any(rest.values()) else []
    shares = (f"{100 * stages[stage] / total:.1f}" if stage in stages else "-" for stage in STAGES)
    told = ", ".join(f"{stage} {100 * rest[stage] / (total - floor['seconds']):.0f}%" for stage in largest)
    return [_name(result, case), *shares, told]


def _machine(result: Result) -> str:
    machine, precision = result["machine"], "" if result["precision"] == "auto" else f", {result['precision']}"
    where = machine["gpu"] or f"{machine['cpu']}, {machine['threads']} threads"
    return f"{where}, torch {machine['torch']}{precision}, {machine['date']}"


def _name(result: Result, case: Result) -> str:
    device = " on CUDA" if result["machine"]["gpu"] else ""
    size = " (demo)" if result["size"] == "demo" else ""
    return f"{case['task']}: {case['case'].replace('_', ' ')}{size}{device}"


def _seconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
