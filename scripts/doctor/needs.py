"""What the paper's tables need: data sets from their columns, weights from the configurations of their runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from clipscore.config.load import REPOSITORY, load_config
from scripts.tables.paper import paper_tables

TABLES = {
    key: tuple(dict.fromkeys(c.dataset for c in table.columns if c.dataset)) for key, table in paper_tables().items()
}
KINDS = ("clip", "prompt_start", "llm", "checkpoint")
_SHOWN_RUNS = 4


@dataclass
class Weights:
    """A weight file and the runs that need it.

    Attributes:
        kind: one of KINDS.
        name: as configurations write it.
        config: the values of one of them; the file has to fit the others.
        runs: names of the runs, by table.
    """

    kind: str
    name: str
    config: dict[str, Any]
    runs: dict[str, list[str]] = field(default_factory=dict)

    def title(self, all_runs: dict[str, list[str]]) -> str:
        """Its name, tables and runs in one line; `all_runs` are those of each table."""
        numbers = [table.removeprefix("table") for table in self.runs]
        names = list(dict.fromkeys(name for runs in self.runs.values() for name in runs))
        more = f", ... ({len(names)} runs)" if len(names) > _SHOWN_RUNS else ""
        is_all = all(runs == all_runs[table] for table, runs in self.runs.items())
        rows = "every row" if is_all else ", ".join(names[:_SHOWN_RUNS]) + more
        return f"{self.name}, for Table{'s' * (len(numbers) > 1)} {', '.join(numbers)} ({rows})"


def needed_weights() -> tuple[list[Weights], dict[str, list[str]]]:
    """All weights of the tables, kind by kind, and the names of each table's runs."""
    from scripts.run import config_class  # slow to import

    found: dict[tuple[str, str], Weights] = {}
    all_runs: dict[str, list[str]] = {}
    for table, paper in paper_tables().items():
        for run in {run.name: run for row in paper.rows for run in row.runs}.values():
            config = load_config(REPOSITORY / run.config, run.overrides, config_class, run.datasets[0]).model_dump()
            all_runs.setdefault(table, []).append(run.name)
            for kind, name in dict.fromkeys(_named(config)):
                weights = found.setdefault((kind, name), Weights(kind, name, config))
                weights.runs.setdefault(table, []).append(run.name)
    return sorted(found.values(), key=lambda weights: KINDS.index(weights.kind)), all_runs


def _named(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Kind and name of every weight file that a configuration names."""
    rewards = [model["name"] for model in (config["reward"] or {"models": []})["models"]]
    for name in (config["policy"], *rewards, *config.get("zero_shot_models", ()), config.get("metric_model")):
        if name:
            yield "clip", name
    for kind in KINDS[1:]:
        if config.get(kind):
            yield kind, config[kind]
