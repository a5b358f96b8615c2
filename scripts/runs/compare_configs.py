"""What makes two runs the same run, and which numbers a record may hold."""

import hashlib
import json
import math
from typing import Any

from clipscore.config.fields import RunConfig
from scripts.runs.rows import Row

ABSENT = "absent"
# Keys that runs of every method had, before each method brought its own, and their defaults: part of their hashes.
FORMER: dict[str, Row] = {"classification": {"dkd_alpha": 1.0, "dkd_beta": 0.5, "atkd_fixed": False}}


def identity(config: RunConfig, fingerprint: dict[str, str]) -> str:
    """Hash of all that a run's numbers depend on: its configuration, and the task's hashes of weights and data."""
    parts = {"config": identifying(config.model_dump(mode="json"), type(config)), "fingerprint": fingerprint}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def identifying(values: Row, config_class: type[RunConfig]) -> Row:
    """The part of a configuration that a run's numbers depend on: without `NOT_IDENTITY`, and `ADDED` as it says."""
    is_sequential = bool(values.get("momentum")) or getattr(getattr(config_class, "METHOD", None), "sequential", False)
    others = config_class.NOT_IDENTITY | (frozenset() if is_sequential else config_class.ORDER)
    own = {key: value for key, value in values.items() if key not in others}
    if "method" in own:
        own["method"] = str(own["method"]).rpartition("/")[2]  # of a user's file the digest counts, not the folder
    kept: Any = FORMER.get(values.get("task", ""), {}) | own
    for key, before in config_class.ADDED.items():
        kept = _drop(kept, key.split("."), before)
    return kept


def summary_terms(values: Row) -> Row:
    """What no row depends on, but the summary does: which samples there are, and the metrics of captions."""
    terms = {key: values.get(key) for key in ("limit", "metrics", "metric_model")}
    order = {"order": values.get("order", "listed"), "order_seed": values.get("order_seed", 0)}
    return terms if terms["limit"] is None else terms | order


def _drop(section: Any, path: list[str], before: Any) -> Any:
    """A section, or a list of them, without the key at `path` where its value is `before`."""
    if isinstance(section, list):
        return [_drop(item, path, before) for item in section]
    name, *rest = path
    if not isinstance(section, dict) or name not in section:
        return section
    if rest:
        return section | {name: _drop(section[name], rest, before)}
    return {key: value for key, value in section.items() if key != name or value != before}


def config_differences(recorded: Row, wanted: Row, config_class: type[RunConfig]) -> list[str]:
    """`differences` of the `identifying` parts of two configurations of a class."""
    parts = [identifying(values, config_class) for values in (recorded, wanted)]
    before = {key: value for key, value in config_class.ADDED.items() if any(key in part for part in parts)}
    return differences(*(before | part for part in parts))


def differences(recorded: Row, wanted: Row) -> list[str]:
    """One phrase with both values for each key that differs."""
    old, new = _flatten(recorded), _flatten(wanted)
    pairs = {key: (old.get(key, ABSENT), new.get(key, ABSENT)) for key in {**old, **new}}
    return [f"{key} is {there!r} there and {here!r} here" for key, (there, here) in pairs.items() if there != here]


def check_finite(record: Row) -> None:
    """Refuse infinite numbers and NaN by a FloatingPointError with the sample and the fields: no result is one."""
    flat = _flatten(record)
    bad = [f"{key} is {value}" for key, value in flat.items() if isinstance(value, float) and not math.isfinite(value)]
    if bad:
        name = f"sample {record['id']}" if "id" in record else "the summary"
        raise FloatingPointError(f"{name} has a result that is not a finite number: {', '.join(bad)}")


def _flatten(value: Any, key: str = "") -> Row:
    """{"a": {"b": [1, 2]}} -> {"a.b[0]": 1, "a.b[1]": 2}; empty containers stay as they are."""
    if isinstance(value, dict) and value:
        pairs = [(f"{key}.{name}" if key else str(name), item) for name, item in value.items()]
    elif isinstance(value, list) and value:
        pairs = [(f"{key}[{index}]", item) for index, item in enumerate(value)]
    else:
        return {key: value}
    return {name: leaf for start, item in pairs for name, leaf in _flatten(item, start).items()}
