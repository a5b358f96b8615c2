"""Every benchmark script names a config, data sets and models that exist: looked up on miniatures of all of them."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from clipscore.config.load import REPOSITORY, available_configs
from scripts import run
from scripts.runs.command_line import CommandLine
from tests.commands import bash, roots

TASK_FOLDERS = ("classification", "retrieval", "captioning")
SCRIPTS = sorted(path for task in TASK_FOLDERS for path in (REPOSITORY / "scripts" / task).rglob("*.sh"))
RUNS = [path for path in SCRIPTS if not path.stem.startswith(("extract", "train"))]  # those have tests of their own
TRAINING = {"configs/captioning/train_capdec_coco.yaml", "configs/captioning/train_clipcap_coco.yaml"}
STUB = """#!{python}
import json, os, sys
if sys.argv[1:3] == ["-m", "scripts.run"]:
    print(json.dumps(sys.argv[3:]))
else:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
"""


@pytest.fixture(scope="module")
def commands(tmp_path_factory) -> dict[Path, list[list[str]]]:
    """What each script gives to `python -m scripts.run`, taken down by a stand-in for python."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "python").write_text(STUB.format(python=sys.executable))
    (folder / "python").chmod(0o755)
    found = {}
    for script in RUNS:
        done = bash(script, "cpu", PATH=f"{folder}:{os.environ['PATH']}", NPROC="1")
        assert done.returncode == 0, done.stderr
        found[script] = [json.loads(line) for line in done.stdout.splitlines()]
    return found


def test_every_config_is_run_by_a_script(commands):
    used = {words[words.index("--config") + 1] for calls in commands.values() for words in calls}
    assert used | TRAINING == set(available_configs())


@pytest.mark.parametrize("script", RUNS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_data_and_models_of_a_script_are_found(script, commands, miniature, tmp_path, monkeypatch):
    if script.parent.name == "captioning" and shutil.which("java") is None:
        pytest.skip("caption metrics need Java")
    for variable, folder in {**roots(miniature), "RLCF_OUTPUT": str(tmp_path)}.items():
        monkeypatch.setenv(variable, folder)
    checked = []
    for words in commands[script]:
        for config in CommandLine([*words, "partial=true"]).configs(run.config_class):
            run.task_class(config).check(config)
            checked.append(config.column)
    assert checked
    assert not list(tmp_path.iterdir()), "a check writes nothing"
