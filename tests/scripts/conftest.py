"""The dummy task in the registry, and a folder for its config, data and results."""

from pathlib import Path

import pytest

from scripts import run
from scripts.runs import loop
from tests.scripts import dummy


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """tmp_path with dummy.yaml; the dummy task is registered, and the three roots point into tmp_path."""
    monkeypatch.setitem(run.TASKS, "dummy", "Dummy")
    monkeypatch.setattr(loop, "CARRY_INTERVAL", dummy.CARRY_INTERVAL)
    monkeypatch.setattr(dummy.DummyTask, "num_built", 0)
    for variable, folder in [("RLCF_DATA", "data"), ("RLCF_PRETRAINED", "weights"), ("RLCF_OUTPUT", "output")]:
        monkeypatch.setenv(variable, str(tmp_path / folder))
    (tmp_path / "data").mkdir()
    (tmp_path / "dummy.yaml").write_text("task: dummy\nlr: 7e-3\n")
    return tmp_path
