"""YAML 1.2 values for files and command lines: `7e-3` is a number, `no` is a word, a key may stand only once."""

import re
from pathlib import Path
from typing import Any

import yaml


class CoreLoader(yaml.SafeLoader):
    """PyYAML with YAML 1.2's core schema, collecting duplicate keys instead of letting the last one win."""

    yaml_implicit_resolvers: dict = {}  # not YAML 1.1's: they read 7e-3 as text and `no` as false

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.duplicates: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """A mapping; a key that was there before is noted with its line."""
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                self.duplicates.append(f"line {key.start_mark.line + 1}: key {key.value!r} is given twice; keep one")
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        """Decimal (010 is ten), 0o17 or 0x1f."""
        text = self.construct_scalar(node)
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


for _tag, _pattern, _first in [
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
]:
    CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)
CoreLoader.add_constructor("tag:yaml.org,2002:int", CoreLoader.construct_integer)


def parse_yaml(text: str) -> tuple[Any, list[str]]:
    """The value of a YAML 1.2 document, None when it cannot be read; and what is wrong with it."""
    try:
        loader = CoreLoader(text)
        return loader.get_single_data(), loader.duplicates
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        return None, [f"{where}not YAML: {getattr(error, 'problem', None) or error}"]


def read_table(path: Path) -> Any:
    """The content of a YAML file that holds no configuration; ValueError: it is not YAML."""
    content, problems = parse_yaml(path.read_text(encoding="utf-8"))
    if problems:
        raise ValueError(f"{path}: {'; '.join(problems)}")
    return content
