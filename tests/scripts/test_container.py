"""The container's files name what is there, versions fit each other, and a job of SLURM runs under a stand-in."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from clipscore.config.load import REPOSITORY

CONTAINER = REPOSITORY / "scripts/container"


def lines(file: str) -> list[str]:
    text = (REPOSITORY / file).read_text()
    return [line.partition("#")[0] for line in text.splitlines() if re.match(r"\w", line)]


def test_every_requirement_has_a_version_that_fits():
    def name(package):
        return re.sub("[-.]", "_", package.name.lower())

    pinned = {name(pin): pin.specifier for pin in map(Requirement, lines("constraints.txt"))}
    lowest = {name(pin): pin.specifier for pin in map(Requirement, lines("tests/constraints-lowest.txt"))}
    for needed in map(Requirement, [*lines("requirements.txt"), *lines("tests/requirements.txt")]):
        [version] = pinned[name(needed)]
        assert version.version in needed.specifier, needed
        assert str(lowest.pop(name(needed))) == str(needed.specifier).replace(">=", "=="), needed
    assert not lowest


def test_the_containers_name_files_that_are_there():
    packages = yaml.safe_load((CONTAINER / "environment.yml").read_text())["dependencies"][-1]["pip"]
    assert all((CONTAINER / line.split()[1]).is_file() for line in packages)
    text = (CONTAINER / "Dockerfile").read_text()
    copied = [name for names in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for name in names.split()]
    assert copied == ["requirements.txt", "constraints.txt", "."] and all(
        (REPOSITORY / name).exists() for name in copied
    )


@pytest.mark.parametrize("config", ["configs/classification/zero_shot.yaml", ""])
def test_a_job_in_two_parts_under_a_stand_in(config, demo_data, roots):
    """sbatch itself would set these variables, and srun start the command on the job's machine."""
    (roots / "srun").write_text('#!/bin/bash\nexec "$@"\n')
    (roots / "srun").chmod(0o755)
    words = ["dataset=demo/sketch", "policy=demo/policy.pt", "limit=6", "device=cpu", "num_workers=0", "num_threads=1"]
    path = f"{roots}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    slurm = {"SLURM_SUBMIT_DIR": str(REPOSITORY), "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_CPUS_PER_TASK": "1"}
    for part in "01":
        environment = {**os.environ, **slurm, "SLURM_ARRAY_TASK_ID": part, "RLCF_USE_ACTIVE_ENV": "1", "PATH": path}
        line = [
            "bash",
            str(REPOSITORY / "scripts/slurm/run.sbatch"),
            *([config, f"data_root={demo_data}", *words] if config else []),
        ]
        done = subprocess.run(line, cwd=roots, env=environment, capture_output=True, text=True)
        assert done.returncode == (0 if config else 1), done.stderr
    if not config:
        assert "usage: sbatch scripts/slurm/run.sbatch CONFIG" in done.stderr
        return
    [folder] = (roots / "output").iterdir()
    assert (
        json.loads((folder / "summary.json").read_text())["num_samples"] == 6 and len(list(folder.glob("rows-*"))) == 2
    )
