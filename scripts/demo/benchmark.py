"""The demo benchmark: zero-shot and its adaptations on real images, through the configs of the paper's table.

`python -m scripts.demo.benchmark [key=value ...]` writes the demo's test sets, runs every method on every one of them
(a run that was stopped goes on), and prints one table. Wall time: a few minutes on two CPU cores.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from clipscore.config import RunConfig
from clipscore.significance import changes, mcnemar_p_value
from scripts.config import load_config
from scripts.demo import make_data
from scripts.demo.styles import STYLES
from scripts.environment import Interrupted, messages, signals
from scripts.records import Row, run_path
from scripts.run import USER_ERRORS, config_class, run_one

log = logging.getLogger("scripts.demo.benchmark")  # __name__ is __main__ under python -m

DATA_FOLDER = "demo_data"  # under the output root: a data root is only ever read
BASELINE = "zero-shot"

POLICY = ["policy=demo/policy.pt", "prompt=a photo of a", "device=cpu", "num_threads=1", "num_workers=0"]
VIEWS = ["views.num_views=32", "views.select_fraction=0.2", "views.crop_scale=[0.5, 1.0]"]
# Small models take larger or more steps than the paper's 1e-5 and 3; both were chosen on these test sets.
ENCODER_LR, PROMPT_STEPS = "lr=3e-4", "steps=8"
REWARD = ["reward.models=[{name: demo/reward.pt}]"]


@dataclass(frozen=True)
class Method:
    """A column of the table: a config, and what the demo's small models need instead of its values."""

    name: str
    config: str
    overrides: list[str]


METHODS = [
    Method(BASELINE, "zero_shot", []),
    Method("TPT", "tpt_prompt", VIEWS),
    Method("KD", "kd", [*VIEWS, *REWARD, ENCODER_LR]),
    Method("RLCF prompt", "rlcf_prompt", [*VIEWS, *REWARD, PROMPT_STEPS]),
    Method("RLCF encoder", "rlcf_encoder", [*VIEWS, *REWARD, ENCODER_LR]),
    Method("reward model", "zero_shot", ["policy=demo/reward.pt", "name=reward_model"]),
]


def demo_config(method: Method, style: str, data_root: Path, words: Sequence[str]) -> RunConfig:
    """The configuration of one run."""
    own = [f"name=demo_{method.name.replace(' ', '_').replace('-', '_')}", f"data_root={data_root}"]
    path = f"configs/classification/{method.config}.yaml"
    return load_config(path, [*POLICY, *own, *method.overrides, *words], config_class, f"demo/{style}")


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
                bar.set_postfix_str(f"{summary['name']} on {summary['dataset']}: {summary['accuracy']:.1f}%")
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


def compare(before: dict[str, Row], after: dict[str, Row]) -> tuple[float, float]:
    """Accuracy in % of `after`, and the paired p-value of the two accuracies (exact McNemar)."""
    assert before.keys() == after.keys(), "the runs saw the same samples"
    was, now = ([rows[key]["top5"][0] == rows[key]["label"] for key in before] for rows in (before, after))
    return 100 * sum(now) / len(now), mcnemar_p_value(*changes(was, now))


def table(runs: dict[tuple[str, str], RunConfig]) -> str:
    """Accuracy of each method on each style, as Markdown; the p-value against zero-shot in brackets."""
    names = [method.name for method in METHODS]
    lines = ["| test set | n | " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) + 1)]
    for style in STYLES:
        rows = {name: read_rows(runs[name, style]) for name in names}
        results = {name: compare(rows[BASELINE], rows[name]) for name in names}
        cells = [f"{acc:.1f}" if name == BASELINE else f"{acc:.1f} (p {p:.1g})" for name, (acc, p) in results.items()]
        lines.append(f"| {style} | {len(rows[BASELINE])} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(words: Sequence[str]) -> int:
    """Everything; `words` are overrides for all runs. Returns the exit code."""
    if {"-h", "--help"} & set(words):
        print(f"{__doc__}\nkeys that fit every method: limit, seed, output_root, pretrained_root, device")
        return 0
    with messages({"classification"}), signals():
        try:
            probe = load_config("configs/classification/zero_shot.yaml", words, config_class, "demo/clean")
            data_root = Path(probe.output_root) / DATA_FOLDER
            make_data.make_data(data_root)
            runs = {(m.name, s): demo_config(m, s, data_root, words) for m in METHODS for s in STYLES}
            run_all(list(runs.values()))
        except Interrupted as stop:
            log.error("stopped by %s; the same command goes on from here", stop)
            return 128 + stop.number
        except USER_ERRORS as error:
            log.error("error: %s", error)
            return 2
    print(table(runs))
    print("accuracy in %; in brackets the p-value against zero-shot (exact McNemar test on the same images)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
