"""Every benchmark script: its help names its overrides, and it runs on the demo with the demo's models."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from scripts.config import REPOSITORY
from scripts.demo.make_data import make_data
from tests.classification.test_runs import QUICK, every_config

SCRIPTS = sorted((REPOSITORY / "scripts/classification").glob("*.sh"))
MODELS = dict(every_config()) | {"rlcf_imagenet_c": dict(every_config())["rlcf_encoder"]}


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("scripts")
    make_data(root / "data")
    roots = {"RLCF_DATA": root / "data", "RLCF_PRETRAINED": REPOSITORY / "pretrained", "RLCF_OUTPUT": root / "output"}
    return {**os.environ, **{key: str(value) for key, value in roots.items()}, "RLCF_USE_ACTIVE_ENV": "1"}


def bash(script: Path, environment: dict[str, str], *words: str) -> subprocess.CompletedProcess:
    command = ["bash", str(script), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, cwd="/")


def test_there_is_a_script_for_every_config():
    assert {script.stem for script in SCRIPTS} == set(MODELS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script(script, environment):
    shown = bash(script, environment, "--help").stdout
    for word in ("GPU", "dataset=", "policy: str", "views.num_views: int", "limit: int", "lr: float"):
        assert word in shown
    done = bash(script, environment, "cpu", "dataset=demo/noise", "limit=1", *QUICK, *MODELS[script.stem])
    assert done.returncode == 0, done.stderr
    assert "demo/noise" in done.stdout


def test_the_gpu_comes_first(environment):
    for words in ([], ["dataset=demo/noise"], ["cuda:0"]):
        refused = bash(SCRIPTS[0], environment, *words)
        assert refused.returncode == 2
        assert "the first argument is the GPU's number" in refused.stderr and "GPU [key=value ...]" in refused.stderr
