"""The shape of the repository: imports go one way, the method is short, and rooms stay small."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TASKS = {"classification", "retrieval", "captioning"}
MAY_IMPORT = {"clipscore": set(), "scripts": TASKS | {"clipscore"}, **{task: {"clipscore"} for task in TASKS}}
METHOD = [
    "configs/classification/rlcf_prompt.yaml",
    "classification/methods/rlcf.py",
    "classification/adapt.py",
    "clipscore/objectives.py",
    "clipscore/reward.py",
    "clipscore/policy_gradient.py",
    "clipscore/episodic.py",
]
REWARD_ENGINE = {
    "__init__", "__main__", "cli", "clip_model", "episodic", "lean_blocks", "objectives", "policy_gradient", "reward",
    "shared_prefix", "task", "text_encoder", "updates",
}  # fmt: skip
FOLDERS = sorted({path.parent for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py")})


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


def num_lines(paths) -> int:
    return sum(len(path.read_text().splitlines()) for path in paths)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_a_method_is_one_short_file_and_no_other_names_it(task):
    files = [path for path in (ROOT / task / "methods").glob("*.py") if path.stem != "__init__"]
    assert all(num_lines([path]) < 120 for path in files)
    names = {path.stem for path in files}
    for path in set((ROOT / task).rglob("*.py")) - set(files):
        tree = ast.parse(path.read_text())
        texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not names & texts and not any(f"{task}.methods" in str(module) for module in modules), path


def test_the_method_is_short():
    assert num_lines(ROOT / path for path in METHOD) < 600


def test_the_reward_engine_is_small():
    modules = list((ROOT / "clipscore").glob("*.py"))
    assert {path.stem for path in modules} == REWARD_ENGINE
    assert num_lines(modules) <= 1700


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_rooms_are_small_and_say_what_they_hold(folder):
    files = list(folder.glob("*.py"))
    assert len(files) <= (8 if folder == ROOT / "scripts" else 20)
    init = folder / "__init__.py"
    assert init.is_file() and ast.get_docstring(ast.parse(init.read_text()))
