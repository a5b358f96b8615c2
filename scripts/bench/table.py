"""What the benchmarks measured, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scripts.bench.agreement import disagreements

STAGES = ("data", "views", "policy", "text", "reward", "update", "reset", "other")

Result = Mapping[str, Any]  # what `python -m scripts.bench --json` wrote


def tables(results: Sequence[Result]) -> str:
    """Times, stages and single steps of all results; one paragraph per machine says where they were measured."""
    rows = [(result, case) for result in results for case in result["cases"]]
    parts = [
        _table(
            ["episode", "plain", "fast", "ratio", "memory plain", "fast", "times the floor", "same answers"],
            [_times(result, case) for result, case in rows],
        ),
        _table(["share of the time, fast form, %", *STAGES], [_shares(result, case) for result, case in rows]),
        "\n".join(f"* {_name(result, case)}: {line}" for result, case in rows for line in step_lines(case)),
        "\n".join(dict.fromkeys(_machine(result) for result in results)),
    ]
    return "\n\n".join(part for part in parts if part)


def _times(result: Result, case: Result) -> list[str]:
    plain, fast = case["plain"], case["fast"]
    about = "about " if case["plain_estimated"] else ""
    return [
        _name(result, case), about + _seconds(plain["median"]), _seconds(fast["median"]), f"{about}{case['ratio']:.2f}",
        _gib(plain), _gib(fast), f"{case['floor']['times']:.2f}" if "floor" in case else "-", _answers(case),
    ]  # fmt: skip


def _shares(result: Result, case: Result) -> list[str]:
    stages = {**case["reading"], **case["fast"]["stages"]}
    total = sum(stages.values())
    return [_name(result, case), *(f"{100 * stages[s] / total:.1f}" if s in stages else "-" for s in STAGES)]


def step_lines(case: Result) -> list[str]:
    """What was measured of single steps, in a sentence each."""
    lines = []
    if step := case.get("text_step"):
        lines.append(
            f"the text tower takes {_seconds(step['fast_seconds'])} of a step, its plain forward and backward pass "
            f"{_seconds(step['plain_seconds'])}{_slice(step)}: 1/{step['ratio']:.1f}"
        )
    if step := case.get("tower_step"):
        operators = ", ".join(f"{name} {100 * share:.0f}%" for name, share in step["operators"].items())
        lines.append(
            f"forward and backward pass of {step['views']} views take {_seconds(step['seconds'])}, "
            f"{100 * step['share_of_rate']:.0f}% of the rate of large matrix products ({operators})"
        )
    return lines


def _slice(step: Result) -> str:
    whole = step["plain_classes"] == step["classes"]
    return "" if whole else f" (estimated from {step['plain_classes']} of {step['classes']} classes)"


def _machine(result: Result) -> str:
    machine = result["machine"]
    where = machine["gpu"] or f"{machine['cpu']}, {machine['threads']} threads"
    precision = "" if result["precision"] == "auto" else f", {result['precision']}"
    return f"{where}, torch {machine['torch']}{precision}, {machine['date']}"


def _name(result: Result, case: Result) -> str:
    device = " on CUDA" if result["machine"]["gpu"] else ""
    size = " (demo)" if result["size"] == "demo" else ""
    return f"{case['task']}: {case['case'].replace('_', ' ')}{size}{device}"


def _answers(case: Result) -> str:
    if not case["agreement"]:
        return "not compared"
    wrong = disagreements(case["agreement"])
    return f"{', '.join(wrong)} DIFFER" if wrong else "yes"


def _seconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _gib(form: Result) -> str:
    return f"{form['peak_gib']:.1f} GiB" if "peak_gib" in form else "-"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
