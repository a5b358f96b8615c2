"""What a run folder tells those who stay outside: where it is, what it was made with, and whether it is finished."""

from __future__ import annotations

import json
from pathlib import Path

from clipscore.config.fields import RunConfig
from clipscore.config.yaml12 import parse_yaml
from scripts.runs.compare_configs import Values, config_differences, differences
from scripts.runs.rows import Row, record_files

SUMMARY_KEYS = ("limit", "metrics", "metric_model")  # no row depends on them, the summary does


def run_path(config: RunConfig) -> Path:
    """The folder of a run: `<output_root>/<name>__<column>__seed<seed>`, the column being the data set.

    Raises:
        ValueError: the name cannot be a part of a folder's name.
    """
    name = config.name or config.task
    if name.startswith(".") or set(name) & set("/\\\0"):
        raise ValueError(f"name must be a plain folder name without slashes or a leading dot, got {name!r}")
    return Path(config.output_root) / f"{name}__{config.column.replace('/', '-')}__seed{config.seed}"


def has_rows(path: Path) -> bool:
    """Whether a sample was finished in a folder."""
    return any(file.stat().st_size for file in record_files(path))


def read_config(path: Path) -> Row:
    """The configuration in a run folder.

    Raises:
        ValueError: it is damaged.
    """
    config, problems = parse_yaml((path / "config.yaml").read_text(encoding="utf-8"))
    if problems or not isinstance(config, dict):
        raise ValueError(f"{path / 'config.yaml'} is damaged: {'; '.join(problems) or 'no keys'}; move the folder away")
    return config


def read_environment(path: Path) -> Row:
    """env.json of a run folder: identity, fingerprint and environments; empty when there is none."""
    file = path / "env.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def summary_keys(config: Values) -> Values:
    """The part of a configuration that makes another summary of the same rows."""
    return {key: config.get(key) for key in SUMMARY_KEYS}


def summary_differences(recorded: Values, wanted: Values) -> list[str]:
    """`differences` of the `summary_keys` of two configurations."""
    return differences(summary_keys(recorded), summary_keys(wanted))


def recorded_summary(config: RunConfig) -> Row | None:
    """The summary that a run with this configuration and limit has in its folder; None when it has none."""
    path = run_path(config)
    try:
        recorded, text = read_config(path), (path / "summary.json").read_text(encoding="utf-8")
    except FileNotFoundError:  # or not there any more: another process takes the run up
        return None
    wanted = config.model_dump(mode="json")
    if config_differences(recorded, wanted) or summary_differences(recorded, wanted):
        return None
    return json.loads(text)


def finished_summary(config: RunConfig) -> Row | None:
    """The `recorded_summary` of a run without errors to try again; None otherwise.

    It spares building the models, so a change of the weights or the data since then is not noticed here.
    """
    summary = recorded_summary(config)
    return summary if summary is not None and summary["num_errors"] == 0 else None
