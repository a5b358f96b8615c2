"""The shape of the repository: imports go one way, and the method is five short files."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TASKS = {"classification", "retrieval", "captioning"}
MAY_IMPORT = {"clipscore": set(), "scripts": TASKS | {"clipscore"}, **{task: {"clipscore"} for task in TASKS}}
METHOD = [
    "configs/classification/rlcf_prompt.yaml",
    "classification/adapt.py",
    "clipscore/reward.py",
    "clipscore/policy_gradient.py",
    "clipscore/episodic.py",
]


def imported_packages(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", sorted(p for p in MAY_IMPORT if (ROOT / p).is_dir()))
def test_imports_go_one_way(package):
    ours = set(MAY_IMPORT) | {"tests"}
    for path in (ROOT / package).rglob("*.py"):
        assert imported_packages(path) & ours <= MAY_IMPORT[package] | {package}, path


def test_the_method_is_five_files_under_600_lines():
    assert sum(len((ROOT / path).read_text().splitlines()) for path in METHOD) < 600
