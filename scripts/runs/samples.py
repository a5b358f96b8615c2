"""A run as its readers see it: tables, comparisons, the report and the demo look at `Sample`, never into a row."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clipscore.config.yaml12 import parse_yaml
from scripts.runs.rows import Row, T, read_rows, record_files, results

NEEDED = ("task", "dataset", "seed")  # of a run's configuration
FIXED, BROKEN, UNCHANGED = "fixed", "broken", "unchanged"
RIGHT, WRONG, ROSE, FELL, NOT_ADAPTED = "right", "wrong", "rose", "fell", "plain"
BEYOND = 1_000_000  # rank of a right class that is not among the five that a record holds
SAME_REWARD = 5e-4  # a smaller change of the mean reward than this is none
KEYS = {"losses": "loss", "waiting": "seconds_waiting", "stages": "seconds_stages"}  # of fields with another name


class Sample(NamedTuple):
    """A record without its long lists: a hundred thousand of them fit in memory. What it has not is None or empty."""

    label: int | None = None  # the right class, in classification
    rank_before: int | None = None  # place of the best right answer, from 1, or BEYOND; captions have none
    rank: int | None = None
    confidence_before: float | None = None  # probability of the first answer
    confidence: float | None = None
    brier_before: float | None = None  # Brier score
    brier: float | None = None
    caption_before: str | None = None
    caption: str | None = None
    references: Sequence[str] = ()  # captions
    rewards: Sequence[float] = ()  # mean of each step, over its candidates and views
    losses: Sequence[float] = ()  # of each step; empty without steps
    adapted: bool = False  # without steps
    step_hits: Sequence[bool] = ()  # whether the answer before each update is right
    moved: float | None = None  # L2 norm of the change of the tuned parameters
    seconds: float = 0.0
    waiting: float | None = None  # s for the data
    stages: Mapping[str, float] = {}  # s in each

    @property
    def was_right(self) -> bool:
        """Whether the first answer before adaptation is right; false for captions."""
        return self.rank_before == 1

    @property
    def is_right(self) -> bool:
        """Whether the first answer is right; false for captions."""
        return self.rank == 1

    @property
    def outcome(self) -> str:
        """What adaptation did to the answer, or to the mean reward of captions; without it, whether it is right."""
        if self.rank is None:
            gain = self.rewards[-1] - self.rewards[0] if self.rewards else 0.0
            if not self.losses:
                return NOT_ADAPTED
            return UNCHANGED if abs(gain) < SAME_REWARD else ROSE if gain > 0 else FELL
        if not self.losses and not self.adapted:
            return RIGHT if self.is_right else WRONG
        if self.was_right == self.is_right:
            return UNCHANGED
        return FIXED if self.is_right else BROKEN


def read_sample(row: Row) -> Sample:
    """A good record as a `Sample`."""
    found = {name: row[key] for name in Sample._fields if (key := KEYS.get(name, name)) in row}
    found["rewards"] = list(map(_mean_reward, row.get("rewards", [])))
    found["step_hits"] = [rank == 1 for rank in row.get("step_rank", [])]
    if "label" in row:
        label = row["label"]
        found["step_hits"] = [answer == label for answer in row.get("step_top1", [])]
        for name, top in {"rank_before": row.get("top5_before"), "rank": row.get("top5")}.items():
            if top is not None:
                found[name] = top.index(label) + 1 if label in top else BEYOND
    return Sample(**found)


@dataclass(frozen=True)
class Run:
    """A run folder, finished or not."""

    path: Path
    config: dict[str, Any]  # the resolved configuration
    about: dict[str, Any]  # what a reader of the records needs to know: root of the images, class names, gallery, ...
    environments: list[dict[str, Any]]  # versions and hardware of each process that wrote to it
    fingerprint: dict[str, str]  # hashes of weights and data
    summary: dict[str, Any] | None  # the figures of a finished run; None as long as samples are missing

    @property
    def name(self) -> str:
        """Its config's name, or the `name=...` it was given."""
        return str(self.config.get("name") or self.config["task"])

    @property
    def column(self) -> str:
        """The column of the paper's table: the data set, in retrieval with the direction."""
        dataset, direction = str(self.config["dataset"]), self.config.get("direction")
        return f"{dataset}/{direction}" if direction else dataset

    def records(self) -> Iterator[Row]:
        """Every record as it was written, errors and superseded ones included; ValueError: a line is damaged."""
        return (row for file in record_files(self.path) for row in read_rows(file))

    def collect(self, project: Callable[[Row], T]) -> dict[str, T]:
        """What `project` keeps of each sample's result, by id, whatever the order of the run; see `results`."""
        return dict(sorted(results(self.records(), project).items()))


def open_run(path: str | Path) -> Run:
    """A run folder; FileNotFoundError: there is no run in it, ValueError: one of its files is damaged."""
    path = Path(path).expanduser()
    if (config := read_file(path / "config.yaml")) is None:
        what = "holds no run (no config.yaml)" if path.is_dir() else "is no folder"
        raise FileNotFoundError(f"{path} {what}; expected a folder that `python -m scripts.run` wrote")
    if absent := [key for key in NEEDED if key not in config]:
        raise ValueError(f"{path}/config.yaml has no {' and no '.join(absent)}: it is not the configuration of a run")
    env, about = (read_file(path / name) or {} for name in ("env.json", "about.json"))
    summary = read_file(path / "summary.json")
    return Run(path, config, about, env.get("environments", []), env.get("fingerprint", {}), summary)


def find_runs(output_root: str | Path) -> list[Run]:
    """All run folders directly under an output root, by name; folders that hold no run are passed over."""
    folders = sorted(file.parent for file in Path(output_root).expanduser().glob("*/config.yaml"))
    return [open_run(folder) for folder in folders if (folder / "env.json").is_file()]


def read_file(file: Path) -> Row | None:
    """config.yaml, env.json, about.json or summary.json, None when it is not there; ValueError: it is damaged."""
    try:
        text = file.read_text(encoding="utf-8")
        found, problems = parse_yaml(text) if file.suffix == ".yaml" else (json.loads(text), [])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        found, problems = None, [str(error)]
    if problems or not isinstance(found, dict):
        why = "; ".join(problems) or "no keys"
        raise ValueError(f"{file} is damaged: {why}; move the folder away (summary.json alone may be deleted instead)")
    return found


def read_samples(run: Run) -> tuple[dict[str, Sample], dict[str, str]]:
    """The samples of a run by id, and the messages of those that failed; records count as in `Run.collect`."""
    samples: dict[str, Sample] = {}
    errors: dict[str, str] = {}
    for row in run.records():
        if "error" in row:
            errors[row["id"]] = str(row["error"])
        else:
            samples[row["id"]] = read_sample(row)
    return samples, {key: message for key, message in errors.items() if key not in samples}


def by_step(values: Iterable[Sequence[float]]) -> np.ndarray | None:
    """A quantity of each sample with steps at each step, [n, steps]; None unless all have the same number of them."""
    rows = [value for value in values if value]  # a sample that was answered without adaptation has none
    return np.asarray(rows, dtype=float) if len(set(map(len, rows))) == 1 else None


def _mean_reward(step: Sequence[Any]) -> float:
    """Over candidates and views: [K] or [S, K] -> one number."""
    flat = [value for view in step for value in view] if step and isinstance(step[0], list) else step
    return sum(flat) / len(flat)
