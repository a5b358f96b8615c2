"""What makes two runs the same run, and which numbers a record may hold."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from clipscore.config.fields import RunConfig

Values = dict[str, Any]
ABSENT = "absent"


def identity(config: Values, fingerprint: dict[str, str]) -> str:
    """Hash of all that a run's numbers depend on.

    Args:
        config: the configuration; fields in `RunConfig.NOT_IDENTITY` do not count.
        fingerprint: the task's hashes of weights and data.
    """
    parts = {"config": _identifying(config), "fingerprint": fingerprint}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def config_differences(recorded: Values, wanted: Values) -> list[str]:
    """`differences` of two configurations; fields in `RunConfig.NOT_IDENTITY` do not count."""
    return differences(_identifying(recorded), _identifying(wanted))


def differences(recorded: Values, wanted: Values) -> list[str]:
    """One phrase with both values for each key that differs."""
    old, new = _flatten(recorded), _flatten(wanted)
    pairs = {key: (old.get(key, ABSENT), new.get(key, ABSENT)) for key in {**old, **new}}
    return [f"{key} is {there!r} there and {here!r} here" for key, (there, here) in pairs.items() if there != here]


def check_finite(record: Values) -> None:
    """Refuse infinite numbers and NaN: JSON cannot hold them and no result is one.

    Raises:
        FloatingPointError: names the sample and the fields.
    """
    flat = _flatten(record)
    bad = [f"{key} is {value}" for key, value in flat.items() if isinstance(value, float) and not math.isfinite(value)]
    if bad:
        name = f"sample {record['id']}" if "id" in record else "the summary"
        raise FloatingPointError(f"{name} has a result that is not a finite number: {', '.join(bad)}")


def _identifying(config: Values) -> Values:
    return {key: value for key, value in config.items() if key not in RunConfig.NOT_IDENTITY}


def _flatten(value: Any, key: str = "") -> Values:
    """{"a": {"b": [1, 2]}} -> {"a.b[0]": 1, "a.b[1]": 2}; empty containers stay as they are."""
    if isinstance(value, dict) and value:
        pairs = [(f"{key}.{name}" if key else str(name), item) for name, item in value.items()]
    elif isinstance(value, list) and value:
        pairs = [(f"{key}[{index}]", item) for index, item in enumerate(value)]
    else:
        return {key: value}
    return {name: leaf for start, item in pairs for name, leaf in _flatten(item, start).items()}
