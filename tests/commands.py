"""The repository's commands, in this process or one of their own, and the folders that they are told to use."""

import importlib
import importlib.util
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from clipscore.config.load import REPOSITORY

Done = subprocess.CompletedProcess


def roots(root: Path, pretrained: Path | None = None) -> dict[str, str]:
    """The environment's names of data, pretrained and output under a folder; the weights may be elsewhere."""
    folders = {"RLCF_DATA": root / "data", "RLCF_PRETRAINED": pretrained or root / "pretrained"}
    return {name: str(path) for name, path in {**folders, "RLCF_OUTPUT": root / "output"}.items()}


def python(*words: object, folder: Path = REPOSITORY, **environment: str) -> Done[str]:
    """`python -m words...` in the repository or another folder, with changes to the environment."""
    return _run([sys.executable, "-m", *map(str, words)], folder, {"PYTHONPATH": str(REPOSITORY), **environment})


def bash(script: str | Path, *words: object, folder: Path = Path("/"), **environment: str) -> Done[str]:
    """A script of `scripts/` from another folder, in the active Python."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["bash", str(REPOSITORY / "scripts" / script), *map(str, words)]
    return _run(command, folder, {"RLCF_USE_ACTIVE_ENV": "1", "PATH": path, **environment})


def dry_run(script: str | Path, *words: object, **environment: str) -> list[list[str]]:
    """What a script would give to `python -m`."""
    shown = bash(script, *words, "--dry-run", **environment)
    assert shown.returncode == 0, (script, shown.stderr)
    return [shlex.split(line)[2:] for line in shown.stdout.splitlines()]


def here(module: str, *words: str) -> int:
    """The exit code of `python -m module words...`, in this process."""
    is_package = bool(importlib.util.find_spec(module).submodule_search_locations)
    return importlib.import_module(f"{module}.__main__" if is_package else module).main(list(words))


def _run(command: Sequence[str], folder: Path, environment: dict[str, str]) -> Done[str]:
    environment = {**os.environ, **environment}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)
