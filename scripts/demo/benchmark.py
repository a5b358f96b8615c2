"""The demo benchmark: zero-shot and its adaptations on real images, through the configs of the paper's tables.

`python -m scripts.demo.benchmark [key=value ...]` writes the demo's test sets, runs every method on every one of them
(a run that was stopped goes on), and prints a table for each task. Wall time: a few minutes on two CPU cores.
"""

from __future__ import annotations

import itertools
import json
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from clipscore.config import RunConfig
from clipscore.significance import changes, mcnemar_p_value
from retrieval import metrics
from scripts.config import load_config
from scripts.demo import caption_table, make_data
from scripts.demo.caption_table import JUDGE
from scripts.demo.styles import STYLES
from scripts.environment import Interrupted, messages, signals
from scripts.records import Row, run_path
from scripts.run import USER_ERRORS, config_class, run_one

log = logging.getLogger("scripts.demo.benchmark")  # __name__ is __main__ under python -m

DATA_FOLDER = "demo_data"  # under the output root: a data root is only ever read
BASELINE = "zero-shot"
CAPTION_STYLES = ("noise", "blur")
RETRIEVAL_STYLES = ("clean", "noise", "blur")  # of RETRIEVAL_SEVERITY; all six would take twice the time

POLICY = ["policy=demo/policy.pt", "device=cpu", "num_threads=1", "num_workers=0"]
REWARD_AS_POLICY = ["policy=demo/reward.pt", "name=reward_model"]
VIEWS = ["views.num_views=16", "views.select_fraction=0.375", "views.crop_scale=[0.5, 1.0]"]  # 6 kept, as in the paper
PROMPT = ["prompt=a photo of a"]
# Small models take larger or more steps than the paper's, a small gallery fewer candidates; chosen on these test sets.
TOWER_LR, PROMPT_STEPS, CANDIDATES = "lr=1e-4", "steps=4", "num_candidates=8"
REWARD = ["reward.models=[{name: demo/reward.pt}]"]


@dataclass(frozen=True)
class Method:
    """A column of a table: a config, and what the demo's small models need instead of its values."""

    name: str
    config: str
    overrides: list[str]


@dataclass(frozen=True)
class Line:
    """A line of a table: what is in its first cells, the data set, and the overrides that go with it."""

    cells: tuple[str, ...]
    dataset: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Every method on every line; the first method is what the others are compared with."""

    heading: tuple[str, ...]
    methods: list[Method]
    lines: list[Line]
    show: Callable[[Sequence[Row]], str]  # records -> cell
    legend: str


def accuracy(rows: Sequence[Row]) -> str:
    """Top-1 accuracy in %."""
    return f"{100 * sum(map(is_right, rows)) / len(rows):.1f}"


def recalls(rows: Sequence[Row]) -> str:
    """Recall at 1, 5 and 10 in %."""
    return " / ".join(f"{value:.1f}" for value in metrics.recalls([row["rank"] for row in rows]).values())


CLASSIFICATION = Table(
    ("test set",),
    [
        Method(BASELINE, "classification/zero_shot", PROMPT),
        Method("TPT", "classification/tpt_prompt", [*PROMPT, *VIEWS]),
        Method("KD", "classification/kd", [*PROMPT, *VIEWS, *REWARD, TOWER_LR]),
        Method("RLCF prompt", "classification/rlcf_prompt", [*PROMPT, *VIEWS, *REWARD, PROMPT_STEPS]),
        Method("RLCF encoder", "classification/rlcf_encoder", [*PROMPT, *VIEWS, *REWARD, TOWER_LR]),
        Method("reward model", "classification/zero_shot", [*PROMPT, *REWARD_AS_POLICY]),
    ],
    [Line((style,), f"demo/{style}") for style in STYLES],
    accuracy,
    "accuracy in %",
)
RETRIEVAL = Table(
    ("scenes", "query"),
    [
        Method(BASELINE, "retrieval/zero_shot", []),
        Method("KD", "retrieval/kd", [*REWARD, TOWER_LR]),
        Method("RLCF", "retrieval/rlcf_coco", [*REWARD, TOWER_LR, CANDIDATES]),
        Method("reward model", "retrieval/zero_shot", REWARD_AS_POLICY),
    ],
    [
        Line((style, direction.partition("_")[0]), f"demo_scenes/{style}", (f"direction={direction}",))
        for style in RETRIEVAL_STYLES
        for direction in ("image_to_text", "text_to_image")
    ],
    recalls,
    "recall at 1 / 5 / 10 in %",
)
TABLES = [CLASSIFICATION, RETRIEVAL]
# Each run writes the captions before adaptation too; the table is made from its records.
DEMO_LM = ["llm=demo/opt", "prefix_length=7", "mapper_layers=2", "decoding.max_new_tokens=24"]
CAPTIONING = [
    *DEMO_LM,
    *REWARD,
    "lr=3e-4",
    "num_candidates=6",
    "caption_before=true",
    "metrics=[clipscore]",
    f"metric_model={JUDGE}",
]
CAPTIONERS = [
    Method("CapDec", "captioning/capdec_c2f", [*CAPTIONING, "checkpoint=demo/capdec"]),
    Method("ClipCap", "captioning/clipcap_c2f", [*CAPTIONING, "checkpoint=demo/clipcap"]),
]
CAPTION_LINES = [Line((style,), f"demo_scenes/{style}") for style in CAPTION_STYLES]


def is_right(row: Row) -> bool:
    """Whether a record's first answer is right."""
    return row["rank"] == 1 if "rank" in row else row["top5"][0] == row["label"]


def demo_config(method: Method, line: Line, data_root: Path, words: Sequence[str]) -> RunConfig:
    """The configuration of one run."""
    own = [f"name=demo_{method.name.replace(' ', '_').replace('-', '_')}", f"data_root={data_root}"]
    overrides = [*POLICY, *own, *method.overrides, *line.overrides, *words]
    return load_config(f"configs/{method.config}.yaml", overrides, config_class, line.dataset)


def run_all(configs: Sequence[RunConfig]) -> None:
    """Finish every run, as many at a time as there are cores."""
    spawn = multiprocessing.get_context("spawn")
    num_processes = min(os.cpu_count() or 1, len(configs))
    with (
        ProcessPoolExecutor(num_processes, mp_context=spawn, initializer=_leave_signals_to_the_parent) as pool,
        tqdm(total=len(configs), unit="run", desc="demo benchmark", dynamic_ncols=True) as bar,
    ):
        try:
            for future in as_completed([pool.submit(run_one, config) for config in configs]):
                summary = future.result()
                shown = next(f"{key} {summary[key]:.1f}" for key in ("accuracy", "r1", "clipscore") if key in summary)
                bar.set_postfix_str(f"{summary['name']} on {summary['dataset']}: {shown}")
                bar.update()
        except BaseException:
            for process in multiprocessing.active_children():  # every record so far is on the disk
                process.kill()
            raise


def _leave_signals_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def read_rows(config: RunConfig) -> dict[str, Row]:
    """The records of a finished run, by sample id."""
    lines = (run_path(config) / "rows.jsonl").read_text().splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def p_value(before: dict[str, Row], after: dict[str, Row]) -> float:
    """Whether the difference of two runs on the same samples is chance (exact McNemar test of the first answers)."""
    assert before.keys() == after.keys(), "the runs saw the same samples"
    was, now = ([is_right(rows[key]) for key in before] for rows in (before, after))
    return mcnemar_p_value(*changes(was, now))


def render(table: Table, runs: dict[tuple[str, Line], RunConfig]) -> str:
    """A table as Markdown; the p-value against the first method in brackets."""
    names = [method.name for method in table.methods]
    heading = [*table.heading, "n", *names]
    lines = ["| " + " | ".join(heading) + " |", "|---" * len(table.heading) + "|" + "---:|" * (len(names) + 1)]
    for line in table.lines:
        base, *others = (read_rows(runs[method.name, line]) for method in table.methods)
        cells = [*line.cells, str(len(base)), table.show(list(base.values()))]
        cells += [f"{table.show(list(rows.values()))} (p {p_value(base, rows):.1g})" for rows in others]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, table.legend])


def render_captions(runs: dict[tuple[str, Line], RunConfig], data_root: Path) -> str:
    """The captioning table as Markdown; see `caption_table`."""
    names = caption_table.columns()
    heading = [*caption_table.HEADING, *names]
    lines = ["| " + " | ".join(heading) + " |", "|---|---|" + "---:|" * (len(names) + 1)]
    for line in CAPTION_LINES:
        for method in CAPTIONERS:
            config = runs[method.name, line]
            rows = list(read_rows(config).values())
            scores = caption_table.score(rows, data_root / line.dataset, Path(config.pretrained_root))
            cells = [*line.cells, method.name, str(len(rows)), *caption_table.cells(*scores)]
            lines.append("| " + " | ".join(cells) + " |")
    legend = "before -> after RLCF, times 100 (BLEU-4 of all captions pooled);"
    legend += " in brackets the mean difference per image, with its 95% bootstrap interval"
    return "\n".join([*lines, legend])


def main(words: Sequence[str]) -> int:
    """Everything; `words` are overrides for all runs. Returns the exit code."""
    if {"-h", "--help"} & set(words):
        print(f"{__doc__}\nkeys that fit every method: limit, seed, output_root, pretrained_root, device")
        return 0
    with messages({"classification", "retrieval", "captioning"}), signals():
        try:
            probe = load_config("configs/classification/zero_shot.yaml", words, config_class, "demo/clean")
            data_root = Path(probe.output_root) / DATA_FOLDER
            make_data.make_data(data_root)
            every = [(CAPTIONERS, CAPTION_LINES), *((table.methods, table.lines) for table in TABLES)]
            pairs = [pair for methods, lines in every for pair in itertools.product(methods, lines)]
            runs = {(method.name, line): demo_config(method, line, data_root, words) for method, line in pairs}
            run_all(list(runs.values()))
            captions = render_captions(runs, data_root)
        except Interrupted as stop:
            log.error("stopped by %s; the same command goes on from here", stop)
            return 128 + stop.number
        except USER_ERRORS as error:
            log.error("error: %s", error)
            return 2
    print("\n\n".join(render(table, runs) for table in TABLES))
    print("in brackets the p-value against zero-shot (exact McNemar test of the first answers to the same samples)")
    print(f"\n{captions}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
