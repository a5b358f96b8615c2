"""What a config class accepts, in the user's words: its keys with types and values, and pydantic's errors explained."""

import difflib
import functools
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from clipscore.config.yaml12 import read_table


@functools.cache
def official_names() -> dict[str, str]:
    """What the official code, and habit, call the settings -> the key here."""
    keys = read_table(Path(__file__).with_name("official_names.yaml"))
    return {name: key for key, names in keys.items() for name in names}


def nearest(name: str, valid: Sequence[str]) -> str:
    """The valid name that looks most like `name`; for dotted names their last part counts too."""

    def similarity(candidate: str) -> float:
        ends = (name, candidate), (name.rpartition(".")[2], candidate.rpartition(".")[2])
        return max(difflib.SequenceMatcher(None, *pair).ratio() for pair in ends)

    return max(valid, key=similarity)


def describe_fields(
    config_class: type[BaseModel], values: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, str, Any, str]]:
    """Every key that can be overridden: dotted key, type, current value ("required" when there is none), description.

    `values` are what was given for a config class or a section of it; the class's defaults fill the rest. `prefix` is
    put before each key, "reward." for example.
    """
    for name, info in config_class.model_fields.items():
        value = values[name] if name in values else info.get_default(call_default_factory=True)
        if info.is_required() and name not in values:
            value = "required"
        if isinstance(value, BaseModel):
            value = value.model_dump()
        section = _section(info.annotation)
        if section is None:
            yield prefix + name, type_name(info.annotation), value, info.description or ""
        else:
            optional = section is not info.annotation
            shown = "(below)" if isinstance(value, dict) else value
            yield prefix + name, "section | null" if optional else "section", shown, info.description or ""
            yield from describe_fields(section, value if isinstance(value, dict) else {}, f"{prefix}{name}.")


def type_name(annotation: Any) -> str:
    """A type as a user would write it: `int | null`, `'stop' | 'skip'`, `[{name: str, weight: float}]`."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is type(None):
        return "null"
    if origin is typing.Literal:
        return " | ".join(repr(choice) for choice in inner)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(type_name(choice) for choice in inner)
    if origin is typing.Annotated:
        return type_name(inner[0])
    if origin in (list, tuple):
        return f"[{', '.join(type_name(item) for item in inner if item is not ...)}]"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.items()
        return "{" + ", ".join(f"{name}: {type_name(info.annotation)}" for name, info in fields) + "}"
    return getattr(annotation, "__name__", str(annotation))


def _section(annotation: Any) -> type[BaseModel] | None:
    """The config section that a field holds, possibly or null; None for a plain value or a list."""
    choices = typing.get_args(annotation) if typing.get_origin(annotation) in (typing.Union, types.UnionType) else ()
    found = (kind for kind in (annotation, *choices) if isinstance(kind, type) and issubclass(kind, BaseModel))
    return next(found, None)


def _locate(location: Sequence[str | int], config_class: type[BaseModel]) -> tuple[str, Any]:
    """Pydantic's error location -> (dotted key, the type declared there); names of union members are left out."""
    key = ""
    here: Any = config_class
    for element in location:
        section = _section(here)
        if isinstance(element, int):
            key += f"[{element}]"
            here = next(iter(typing.get_args(here)), Any)
        elif section and element in section.model_fields:
            key += f".{element}" if key else element
            here = section.model_fields[element].annotation
    return key, here


def explain(error: Mapping[str, Any], config_class: type[BaseModel]) -> tuple[str, str]:
    """One of pydantic's `ValidationError.errors()` in words: the dotted key, and what was received and expected."""
    kind, location = error["type"], error["loc"]
    key, declared = _locate(location, config_class)
    if kind == "extra_forbidden":
        prefix = f"{key}." if key else ""
        item = _section(declared) if "[" in key else None  # inside a list: only that item's own keys
        valid = [name for name, *_ in describe_fields(item or config_class, {}, prefix if item else "")]
        unknown = f"{prefix}{location[-1]}"
        official = {name: key for name, key in official_names().items() if key in valid and key.startswith(prefix)}
        if known := official.get(str(location[-1]).lower().replace("-", "_")):
            return unknown, f"{unknown}: unknown key; here it is called {known}"
        found = nearest(unknown, [*valid, *official])
        return unknown, f"{unknown}: unknown key; the nearest valid key is {official.get(found, found)}"
    if kind == "missing":
        return key, f"{key}: missing, expected {type_name(declared)}"
    if kind == "value_error":
        return key, f"{key + ': ' if key else ''}{error['ctx']['error']}"
    wrong_type = kind.endswith(("_type", "_parsing", "_error", "_from_float"))
    reason = "" if wrong_type else f" ({error['msg'][0].lower()}{error['msg'][1:]})"
    return key, f"{key}: received {received(error['input'])}, expected {type_name(declared)}{reason}"


def received(value: Any) -> str:
    """A value and its type, for a message."""
    return "null" if value is None else f"{value!r} ({type(value).__name__})"
