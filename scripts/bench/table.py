"""What the benchmarks measured, as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from scripts.bench.agreement import disagreements, tolerance
from scripts.tables.grid import Grid, markdown

STAGES = ("data", "views", "policy", "text", "reward", "update", "reset", "other")

Result = Mapping[str, Any]  # what `python -m scripts.bench --json` wrote


def tables(results: Sequence[Result]) -> str:
    """Times and stages of all results, task by task; a line per machine says where they were measured."""
    rows = [(result, case) for result in results for case in result["cases"]]
    rows.sort(key=lambda row: ("classification", "retrieval", "captioning").index(row[1]["task"]))
    heading = ["episode", "plain", "fast", "ratio", "memory plain", "fast", "times the floor", "same answers"]
    times = markdown(Grid(heading, [_times(*row) for row in rows]))
    shares = markdown(Grid(["share of the time, fast form, %", *STAGES], [_shares(*row) for row in rows]))
    return "\n\n".join([times, shares, "\n".join(dict.fromkeys(map(_machine, results)))])


def _times(result: Result, case: Result) -> list[str]:
    plain, fast = case["plain"], case["fast"]
    about = "about " if case["plain_estimated"] else ""
    return [
        _name(result, case), about + _seconds(plain["median"]), _seconds(fast["median"]), f"{about}{case['ratio']:.2f}",
        _gib(plain), _gib(fast), f"{case['floor']['times']:.2f}" if "floor" in case else "-", _answers(result, case),
    ]  # fmt: skip


def _shares(result: Result, case: Result) -> list[str]:
    stages = {**case["reading"], **case["fast"]["stages"]}
    total = sum(stages.values())
    return [_name(result, case), *(f"{100 * stages[s] / total:.1f}" if s in stages else "-" for s in STAGES)]


def _machine(result: Result) -> str:
    machine, precision = result["machine"], "" if result["precision"] == "auto" else f", {result['precision']}"
    where = machine["gpu"] or f"{machine['cpu']}, {machine['threads']} threads"
    return f"{where}, torch {machine['torch']}{precision}, {machine['date']}"


def _name(result: Result, case: Result) -> str:
    device = " on CUDA" if result["machine"]["gpu"] else ""
    size = " (demo)" if result["size"] == "demo" else ""
    return f"{case['task']}: {case['case'].replace('_', ' ')}{size}{device}"


def _answers(result: Result, case: Result) -> str:
    if not case["agreement"]:
        return "not compared"
    device = torch.device("cuda" if result["machine"]["gpu"] else "cpu")
    wrong = disagreements(case["agreement"], tolerance(result["precision"], device))
    return f"{', '.join(wrong)} DIFFER" if wrong else "yes"


def _seconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _gib(form: Result) -> str:
    return f"{form['peak_gib']:.1f} GiB" if "peak_gib" in form else "-"
