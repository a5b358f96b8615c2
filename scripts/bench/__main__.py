"""What an episode costs, by the official schedule of work and by ours: `python -m scripts.bench [TASK] [options]`.

TASK is classification, retrieval or captioning; all three without it. Both forms have the same weights, see the same
samples in turn, and their answers are compared. `--size B16`, the default, has the models of the paper with random
weights, which change nothing about the cost; `--size demo` has the demo's models and takes seconds. On a CPU the plain
form of encoder tuning needs 13 GB.

`python -m scripts.bench TASK --help` lists the options of a task; `python -m scripts.bench table FILE.json ...` prints
the tables of what was measured before.
"""

import argparse
import datetime
import importlib
import json
import logging
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from clipscore.models.devices import autocast_dtype, choose_device
from scripts.bench.timing import Agreement, Bench, measure
from scripts.tables.grid import Grid, markdown

CPU_INFO = Path("/proc/cpuinfo")
TASKS = ("classification", "retrieval", "captioning")
STAGES = ("policy", "text", "reward", "update", "reset", "other")
FAR = 1.5  # times the floor, from which on it is said where the rest goes
# How far two answers may be apart and still count as equal: the forms round differently in half precision.
TOLERANCE = {None: 1e-3, torch.float16: 0.1, torch.bfloat16: 1.0}

Result = Mapping[str, Any]  # what `python -m scripts.bench --json` wrote


def main(words: Sequence[str]) -> int:
    """Measure, or print tables of what was measured; returns the exit code."""
    if words[:1] == ["table"]:
        print(tables([json.loads(Path(word).read_text(encoding="utf-8")) for word in words[1:]]))
        return 0
    if words[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    named = bool(words) and not words[0].startswith("-")
    chosen = words[:1] if named else TASKS
    if chosen[0] not in TASKS:
        print(f"unknown task {chosen[0]!r}; valid: {', '.join(TASKS)}, and table", file=sys.stderr)
        return 2
    options = {task: parse_options(task, words[1:] if named else words) for task in chosen}
    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr)
    logging.getLogger("scripts").setLevel(logging.INFO)
    first = options[chosen[0]]
    result = {"machine": read_machine(first.device), "size": first.size, "precision": first.precision, "cases": []}
    for task, of_task in options.items():
        bench = bench_class(task)(of_task)
        for case in bench.cases():
            result["cases"].append(measure(bench, case))
            if of_task.json:  # after each case: some take minutes
                Path(of_task.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(tables([result]))
    return 0


def bench_class(task: str) -> type[Bench]:
    """Imported when it is needed: libraries of other tasks would count as memory of this one."""
    return getattr(importlib.import_module(f"scripts.bench.{task}"), f"{task.title()}Bench")


def parse_options(task: str, words: Sequence[str]) -> argparse.Namespace:
    """The options of a task's bench, with the defaults of its size."""
    name = f"python -m scripts.bench {task}"
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(name, description=__doc__, formatter_class=raw, allow_abbrev=False)
    parser.add_argument("--size", choices=["demo", "B16"], default="B16")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--precision", default="auto", help="auto, fp32, fp16 or bf16; auto: fp16 on CUDA")
    memory = "peak memory, in processes of their own; on for B16"
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, help=memory)
    parser.add_argument("--cuda-graphs", action="store_true", help="the cases that have them, as cuda_graphs=true")
    parser.add_argument("--json", help="also write everything to this file")
    bench = bench_class(task)
    for name, value in bench.defaults.items():
        first, count = (value[0], "+") if isinstance(value, list) else (value, None)
        of_demo = f"; {bench.demo[name]} for demo" if name in bench.demo else ""
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(first), nargs=count, help=f"{value}{of_demo}")
    demo = parser.parse_args(words).size == "demo"
    parser.set_defaults(**{**bench.defaults, **(bench.demo if demo else {}), "memory": not demo})
    return parser.parse_args(words)


def read_machine(name: str) -> dict[str, Any]:
    """What the figures are of: the machine with the device of this name."""
    device = choose_device(name)
    model = re.search(r"model name\s*: (.+)", CPU_INFO.read_text(encoding="utf-8") if CPU_INFO.is_file() else "")
    return {
        "cpu": model[1].strip() if model else platform.processor() or platform.machine(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "threads": torch.get_num_threads(), "torch": torch.__version__, "date": datetime.date.today().isoformat(),
    }  # fmt: skip


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
