"""Run folders whose records have exactly the figures asked for."""

import json
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from clipscore.config.fields import RunConfig
from clipscore.config.load import load_config
from scripts.run import config_class
from scripts.runs.folder import run_path
from scripts.tables.figures import published_samples
from scripts.tables.paper import PaperRun, PaperTable, Row


def write_run(
    root: Path, config: str, words: Sequence[str], dataset: str, lines: Iterable[str], summary: dict | None = None
) -> Path:
    """A run folder as the launcher writes it, as far as its readers look; `lines` are records as JSON."""
    made = load_config(config, [*words, f"output_root={root}"], config_class, dataset)
    return write_folder(made, lines, summary)


def write_folder(config: RunConfig, lines: Iterable[str], summary: dict | None = None) -> Path:
    """The same of a configuration."""
    environment: dict[str, Any] = {"fingerprint": {}, "environments": []}
    return write_files(run_path(config), config.model_dump(mode="json"), environment, lines, summary)


def write_files(
    path: Path, config: dict, environment: dict, lines: Iterable[str], summary: dict | None, about: dict | None = None
) -> Path:
    """The same of the files' contents."""
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (path / "rows.jsonl").write_text("".join(f"{line}\n" for line in lines))
    for name, content in {"env": environment, "about": about, "summary": summary}.items():
        if content is not None:
            (path / f"{name}.json").write_text(json.dumps(content))
    return path


def peak_of(run: Callable[[], Any]) -> int:
    """Bytes that Python's objects take at most while something runs."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def answers(num_samples: int, num_right: int) -> list[str]:
    """Classification records, of which the first so many are right."""
    right = [number < num_right for number in range(num_samples)]
    return [f'{{"id": "{i}", "label": 0, "top5": [{int(not hit)}]}}' for i, hit in enumerate(right)]


def ranks(num_samples: int, recall: Sequence[float]) -> list[str]:
    """Retrieval records with this recall at 1, 5 and 10 in %, as near as so many queries come to it."""
    at_1, at_5, at_10 = (round(value * num_samples / 100) for value in recall)
    found = [1] * at_1 + [5] * (at_5 - at_1) + [10] * (at_10 - at_5) + [11] * (num_samples - at_10)
    return [f'{{"id": "{i}", "rank": {rank}}}' for i, rank in enumerate(found)]


def captions(num_samples: int) -> list[str]:
    """Captioning records."""
    return [f'{{"id": "{i}", "caption": "a dog", "references": ["a dog"]}}' for i in range(num_samples)]


def fill_row(root: Path, table: PaperTable, row: Row, shift: float = 0.0, words: Sequence[str] = ()) -> None:
    """All runs of a row, with the paper's figures; each of them shifted by so many points."""
    for run in row.runs:
        for dataset in run.datasets:
            for direction in dict.fromkeys(column.direction for column in table.columns if column.dataset == dataset):
                fill_column(root, table, row, run, dataset, direction, shift, words)


def fill_column(
    root: Path, table: PaperTable, row: Row, run: PaperRun, dataset: str, direction: str | None = None,
    shift: float = 0.0, words: Sequence[str] = (),
) -> Path:  # fmt: skip
    """The run of the columns of one data set and direction."""
    found = [column for column in table.columns if (column.dataset, column.direction) == (dataset, direction)]
    figures: dict[str, Any] = {str(column.metric): row.paper[column.key] + shift for column in found}
    num_samples = published_samples(table.task, dataset, direction)
    if table.task == "classification":
        lines = answers(num_samples, round(figures["accuracy"] * num_samples / 100))
    else:
        lines = ranks(num_samples, list(figures.values())) if table.task == "retrieval" else captions(num_samples)
    summary = {"num_samples": num_samples, "num_errors": 0} | (figures if table.task == "captioning" else {})
    words = [*run.overrides, *([f"direction={direction}"] if direction else []), *words]
    return write_run(root, run.config, words, dataset, lines, summary)
