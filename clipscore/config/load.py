"""Typed run configurations: configs/paths.yaml + one YAML file + key=value words -> one frozen pydantic model.

Later sources win: paths.yaml, the chosen YAML, RLCF_DATA / RLCF_PRETRAINED / RLCF_OUTPUT, the command line. Values are
YAML 1.2 in files and on the command line alike.
"""

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clipscore.config.explain import explain, nearest, received
from clipscore.config.fields import RunConfig
from clipscore.config.yaml12 import parse_yaml
from clipscore.data.checks import read_text

REPOSITORY = Path(__file__).resolve().parents[2]
ROOT_VARIABLES = {"data_root": "RLCF_DATA", "pretrained_root": "RLCF_PRETRAINED", "output_root": "RLCF_OUTPUT"}
COMMAND_LINE = "command line"


class ConfigError(ValueError):
    """Everything that is wrong with a configuration, found in one go."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(dict.fromkeys(problems))
        super().__init__("\n".join(["the configuration does not fit:", *(f"  - {text}" for text in self.problems)]))


@dataclass
class Draft:
    """Values on their way into a config: what was given, by whom, and what was wrong with it."""

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)  # dotted key -> where it was given
    problems: list[str] = field(default_factory=list)

    def read_file(self, path: Path) -> None:
        """Take the top-level keys of a YAML file."""
        shown = str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else str(path)
        value, problems = parse_yaml(read_text(path))
        self.problems += [f"{shown}: {text}" for text in problems]
        if isinstance(value, dict):
            for key, item in value.items():
                self.put(str(key), item, shown)
        elif not problems and value is not None:
            self.problems.append(f"{shown}: expected `key: value` lines, received {received(value)}")

    def put(self, dotted: str, value: Any, source: str) -> None:
        """Set one value; `a.b` goes into the section `a`, which is created when it is missing or null."""
        *sections, last = dotted.split(".")
        here = self.values
        for depth, section in enumerate(sections, start=1):
            if here.get(section) is None:
                here[section] = {}
            here = here[section]
            if not isinstance(here, dict):
                path = ".".join(sections[:depth])
                self.problems.append(f"{dotted}: {path} is {received(here)}, not a section; give {path}=... as a whole")
                return
        here[last] = value
        self.sources[dotted] = source

    def read_environment(self) -> None:
        """Take the roots from the environment, where it has them."""
        for key, variable in ROOT_VARIABLES.items():
            if os.environ.get(variable):
                self.put(key, os.environ[variable], variable)

    def choose(self, dataset: str) -> bool:
        """Put the data set's own value in each `{by_dataset: ..., otherwise: ...}`'s place; False: one has none."""
        num_problems = len(self.problems)
        self.values = {key: self._chosen(value, dataset, key) for key, value in self.values.items()}
        return len(self.problems) == num_problems

    def _chosen(self, value: Any, dataset: str, key: str) -> Any:
        if not isinstance(value, dict):
            return value
        if "by_dataset" not in value:
            return {name: self._chosen(item, dataset, f"{key}.{name}") for name, item in value.items()}
        table = value["by_dataset"] if isinstance(value["by_dataset"], dict) else {}
        names = [name for name in (dataset, dataset.split("/")[0]) if name in table]
        found = table[names[0]] if names else value.get("otherwise")
        overrides = {name: item for name, item in value.items() if name not in {"by_dataset", "otherwise"}}
        if overrides:  # of single keys of the section that is chosen here
            return {**found, **overrides} if isinstance(found, dict) else overrides
        if not names and "otherwise" not in value:
            known = ", ".join(map(str, table))
            self.problems.append(f"{key}: no value for data set {dataset!r}, only for {known}; give {key}=...")
        return found

    def source(self, dotted: str) -> str:
        """Where a key, or the section it is in, was given: " [...]", or nothing."""
        parts = re.split(r"\.|(?=\[)", dotted)
        known = (self.sources.get(".".join(parts[:length])) for length in range(len(parts), 0, -1))
        return next((f" [{source}]" for source in known if source), "")


def load_config(
    path: str | Path, words: Sequence[str], config_class: Callable[[str], type[RunConfig]], dataset: str | None = None
) -> RunConfig:
    """Build the configuration of one run, with absolute roots and a name.

    Args:
        words: `key=value` overrides; a later one wins over an earlier one with the same key.
        config_class: finds a task's config class by the task's name; raises ValueError for an unknown one.
        dataset: overrides `dataset`, taken as it is.

    ConfigError: anything is missing, unknown, given twice or of the wrong type; all of it is listed.
    """
    draft = draft_config(path, words, dataset)
    task, source = draft.values.get("task"), draft.source("task")
    if not isinstance(task, str):
        raise ConfigError([*draft.problems, f"task: received {received(task)}, expected the name of a task{source}"])
    try:
        found = config_class(task)
    except ValueError as error:
        raise ConfigError([*draft.problems, f"task: {error}{source}"]) from error
    try:
        found = found.for_values(draft.values)
    except ValueError as error:
        raise ConfigError([*draft.problems, f"method: {error}{draft.source('method')}"]) from error
    if "name" not in draft.sources:
        draft.values["name"] = found.default_name(draft.values["name"], draft.values)
    if not draft.choose(found.canonical_dataset(str(draft.values.get("dataset")))):
        raise ConfigError(draft.problems)
    try:
        # Through JSON, because pydantic's strict mode takes a list for a tuple, or a string for a path, only there.
        config = found.model_validate_json(json.dumps(draft.values))
    except ValidationError as error:
        keys_and_texts = [explain(item, found) for item in error.errors()]
        told = [text + found.readers_of(key) + draft.source(key) for key, text in keys_and_texts]
        raise ConfigError([*draft.problems, *told]) from None
    if draft.problems:
        raise ConfigError(draft.problems)
    return config


def draft_config(path: str | Path, words: Sequence[str], dataset: str | None = None) -> Draft:
    """Gather the values of a run from all their sources without checking them; arguments as in `load_config`."""
    path = Path(path).expanduser().absolute()
    if not path.is_file():
        near = nearest(f"configs/{path.parent.name}/{path.name}", available_configs())
        raise ConfigError([f"no config file {path}; the nearest is {near}; `python -m scripts.run --help` lists all"])
    draft = Draft()
    for file in (REPOSITORY / "configs/paths.yaml", path):
        draft.read_file(file)
    draft.read_environment()
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            draft.problems.append(f"{word!r} is not an override; write key=value, for example lr=7e-3")
            continue
        value, problems = parse_yaml(text)
        mend = "quote the value if it is text" if word.isprintable() else "write it in UTF-8 (LC_ALL=C.UTF-8)"
        draft.problems += [f"{word!r}: {problem}; {mend}" for problem in problems]
        if not problems:
            draft.put(key, value, COMMAND_LINE)
    if dataset is not None:
        draft.put("dataset", dataset, COMMAND_LINE)
    for key in ROOT_VARIABLES:
        if isinstance(draft.values.get(key), str):
            draft.values[key] = _absolute(draft.values[key])
    if draft.values.get("name") is None:
        draft.values["name"] = path.stem
    return draft


def roots() -> dict[str, str]:
    """The three roots as absolute paths, for commands without a config: environment over configs/paths.yaml."""
    draft = Draft()
    draft.read_file(REPOSITORY / "configs/paths.yaml")
    if draft.problems:
        raise ConfigError(draft.problems)
    draft.read_environment()
    return {key: _absolute(draft.values[key]) for key in ROOT_VARIABLES}


def _absolute(root: str) -> str:
    return str(REPOSITORY / Path(root).expanduser())


def available_configs() -> list[str]:
    """The YAML files that --config may name, relative to the repository root."""
    files = sorted((REPOSITORY / "configs").rglob("*.yaml"))
    return [file.relative_to(REPOSITORY).as_posix() for file in files if file.name != "paths.yaml"]
