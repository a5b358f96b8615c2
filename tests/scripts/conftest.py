"""The dummy task in the registry with a folder of its own; a stand-in for runs."""

import os
import sys
from pathlib import Path

import pytest

from scripts import run
from scripts.runs import loop
from tests.scripts import dummy

STAND_IN = """#!/usr/bin/env bash
case "$*" in
  *"scripts.run "*--help*) exit 0 ;;
  *"scripts.run "*) echo "$NPROC $*" >>"$CALLS"; [[ "$*" != *rlcf_s_flickr30k* ]] ;;
  *) exec "$REAL_PYTHON" "$@" ;;
esac
"""


@pytest.fixture
def workspace(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`root` with dummy.yaml; the dummy task is registered."""
    monkeypatch.setitem(run.TASKS, "dummy", "Dummy")
    monkeypatch.setattr(loop, "CARRY_INTERVAL", dummy.CARRY_INTERVAL)
    monkeypatch.setattr(dummy.DummyTask, "num_built", 0)
    (root / "data").mkdir()
    (root / "dummy.yaml").write_text("task: dummy\nlr: 7e-3\n")
    return root


@pytest.fixture
def stand_in(tmp_path: Path) -> dict[str, str]:
    """An environment in which `python -m scripts.run` only notes its words, and fails for one config."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text(STAND_IN)
    (tmp_path / "bin/python").chmod(0o755)
    own = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls"), "NPROC": "2"}
    return own | {"REAL_PYTHON": sys.executable, "RLCF_OUTPUT": str(tmp_path)}
