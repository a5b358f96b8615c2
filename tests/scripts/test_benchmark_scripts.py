"""Benchmark scripts: --dry-run tells what they run, which is there; one of each kind runs on the demo's models."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from clipscore.config.load import REPOSITORY, available_configs
from scripts import run
from scripts.runs.command_line import CommandLine
from tests.classification import test_runs as classification
from tests.commands import bash, here
from tests.commands import roots as folders_of
from tests.retrieval import test_runs as retrieval

TASKS = ("classification", "retrieval", "captioning")
SCRIPTS = [path for task in TASKS for path in sorted((REPOSITORY / "scripts" / task).rglob("*.sh"))]
RUNS = [path for path in SCRIPTS if not path.stem.startswith(("train", "extract"))]  # those have tests of their own
TRAINING = {"configs/captioning/train_capdec_coco.yaml", "configs/captioning/train_clipcap_coco.yaml"}
CAPTIONER = ["policy=demo/policy.pt", "device=cpu", "num_workers=0", "llm=demo/opt", "prefix_length=7"]
CAPTIONER += ["mapper_layers=2", "decoding.max_new_tokens=8", "metrics=[clipscore]", "metric_model=demo/reward.pt"]
CAPTIONER += ["checkpoint=demo/clipcap"]
DATASET = {"classification": "demo/noise", "retrieval": "demo_scenes/noise", "captioning": "demo_scenes/noise"}
KEYS = {
    "classification": ("views.num_views: int",),
    "captioning": ("num_candidates: int", "metrics: [str]"),
    "retrieval": ("num_candidates.image_to_text: int", "direction=image_to_text,text_to_image"),
}


@pytest.fixture(scope="module")
def commands(tmp_path_factory) -> dict[Path, list[list[str]]]:
    """What each script would do; to say so it does not even ask python for packages."""
    folder, found = tmp_path_factory.mktemp("bin"), {}
    (folder / "python").write_text(f"#!/bin/sh\ntouch {folder}/called\n")
    (folder / "python").chmod(0o755)
    plain = [path for path in (REPOSITORY / "scripts").glob("*.sh") if path.stem not in {"environment", "benchmark"}]
    for script in [*plain, *SCRIPTS]:
        gpu = ["cpu"] if script in SCRIPTS or script.stem == "reproduce" else []
        shown = bash(script, *gpu, "--dry-run", PATH=f"{folder}:{os.environ['PATH']}", RLCF_USE_ACTIVE_ENV="0")
        assert shown.returncode == 0 and shown.stdout.startswith("python"), (script, shown.stderr)
        assert "--dry-run" not in shown.stdout and not (folder / "called").exists()
        found[script] = [shlex.split(line) for line in shown.stdout.splitlines()]
    return found


def test_every_config_is_run_by_a_script(commands):
    used = {command[command.index("--config") + 1] for script in RUNS for command in commands[script]}
    assert used | TRAINING == set(available_configs())


@pytest.mark.parametrize("script", RUNS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_data_and_models_of_a_script_are_found(script, commands, miniature, tmp_path, monkeypatch):
    if script.parent.name == "captioning" and shutil.which("java") is None:
        pytest.skip("caption metrics need Java")
    for variable, folder in {**folders_of(miniature), "RLCF_OUTPUT": str(tmp_path)}.items():
        monkeypatch.setenv(variable, folder)
    for _, _, _, *words in commands[script]:  # python -m scripts.run
        configs = CommandLine([*words, "partial=true"]).configs(run.config_class)
        assert configs
        for config in configs:
            run.task_class(config).check(config)
    assert not list(tmp_path.iterdir()), "a check writes nothing"


@pytest.mark.parametrize(("name", "words"), [
    ("classification/rlcf_prompt", [*classification.QUICK, *classification.REWARD]),
    ("retrieval/rlcf_coco", [*retrieval.QUICK, *retrieval.REWARD]),
    ("captioning/eval_c2f", CAPTIONER),
])  # fmt: skip
def test_script(roots, name, words):
    task = name.partition("/")[0]
    shown = bash(f"{name}.sh", "--help").stdout
    for word in ("GPU", "dataset=", "policy: str", "limit: int", "lr: float", *KEYS[task]):
        assert word in shown
    done = bash(f"{name}.sh", "cpu", f"dataset={DATASET[task]}", "limit=1", *words)
    assert done.returncode == 0, done.stderr
    columns = [f"{DATASET[task]}/{d}" for d in retrieval.DIRECTIONS] if task == "retrieval" else [DATASET[task]]
    table = ["dataset", *columns] * (2 if "/eval" in name else 1)  # eval_*: CapDec, then ClipCap
    assert [line.split()[0] for line in done.stdout.splitlines()] == table


def test_the_gpu_comes_first():
    for words in ([], ["dataset=demo/noise"], ["cuda:0"]):
        refused = bash("classification/zero_shot.sh", *words)
        assert refused.returncode == 2
        assert "the first argument is the GPU's number" in refused.stderr and "GPU [key=value ...]" in refused.stderr
    refused = bash("classification/rlcf_s_m_encoder.sh", "cpu", NPROC="none")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "NPROC is the number of processes, 1 or more; got 'none'" in refused.stderr


@pytest.mark.parametrize(
    ("allocated", "asked", "seen"),
    [("", "0,1", "0,1"), ("5", "0", "5"), ("MIG-1/7/0,GPU-ab", "1", "GPU-ab"), ("5", "GPU-9", "GPU-9"), ("5", "1", "")],
)
def test_a_gpu_counts_inside_the_allocation(allocated, asked, seen):
    command = f"source scripts/benchmark.sh; [[ {asked} =~ $_gpu_form ]]; _see_gpus {asked}; echo $CUDA_VISIBLE_DEVICES"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": allocated}
    words = ["bash", "-euc", command]
    done = subprocess.run(words, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == seen and (done.returncode == 0) == bool(seen)
    assert bool(seen) or "GPU 1 was asked for, but CUDA_VISIBLE_DEVICES=5 leaves 1, counted from 0" in done.stderr


@pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="needs a git checkout")
def test_scripts_have_no_carriage_returns_wherever_they_are_cloned(tmp_path):
    clone = ["git", "clone", "-q", "-c", "core.autocrlf=true", str(REPOSITORY), str(tmp_path / "clone")]
    subprocess.run(clone, check=True)
    files = [*tmp_path.glob("clone/scripts/**/*.sh"), *tmp_path.glob("clone/configs/**/*.yaml")]
    assert len(files) > 50 and not [file for file in files if b"\r" in file.read_bytes()]


def test_a_clone_that_cannot_be_written_to(tmp_path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/environment.sh").write_bytes((REPOSITORY / "scripts/environment.sh").read_bytes())
    tmp_path.chmod(0o555)
    words = ["bash", "-euc", f"unset RLCF_USE_ACTIVE_ENV; source {tmp_path}/scripts/environment.sh"]
    if os.geteuid() == 0:  # who may write everywhere
        words = ["setpriv", "--reuid=65534", "--clear-groups", *words]
        for folder in tmp_path.parents:
            folder.chmod(folder.stat().st_mode | 0o055) if folder != Path("/") else None
    done = subprocess.run(words, cwd="/", capture_output=True, text=True)
    tmp_path.chmod(0o755)
    assert done.returncode != 0 and "cannot be written to, so no .venv can be made in it" in done.stderr
    assert "unbound variable" not in done.stderr


CONTAINER = REPOSITORY / "scripts/container"


def lines(file: str) -> list[str]:
    text = (REPOSITORY / file).read_text()
    return [line.partition("#")[0] for line in text.splitlines() if re.match(r"\w", line)]


def test_every_requirement_has_a_version_that_fits():
    def read(*files: str) -> dict:
        found = [Requirement(line) for file in files for line in lines(file)]
        return {canonicalize_name(one.name): one.specifier for one in found}

    pinned, lowest = read("constraints.txt"), read("tests/constraints-lowest.txt")
    needed = read("requirements.txt", "tests/requirements.txt")
    for name, specifier in needed.items():
        [version] = pinned[name]
        assert version.version in specifier, name
    assert {name: str(version) for name, version in lowest.items()} == {
        name: str(specifier).replace(">=", "==") for name, specifier in needed.items()
    }


def test_the_containers_name_files_that_are_there():
    packages = yaml.safe_load((CONTAINER / "environment.yml").read_text())["dependencies"][-1]["pip"]
    assert all((CONTAINER / line.split()[1]).is_file() for line in packages)
    text = (CONTAINER / "Dockerfile").read_text()
    copied = [name for names in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for name in names.split()]
    assert copied == ["requirements.txt", "constraints.txt", "."]
    assert all((REPOSITORY / name).exists() for name in copied)


def test_a_job_in_two_parts_under_a_stand_in(roots):
    """sbatch itself would set these variables, and srun start what it is given on the job's machine."""
    (roots / "srun").write_text('#!/bin/bash\necho "$@"\n')
    (roots / "srun").chmod(0o755)
    words = ["configs/classification/zero_shot.yaml", "dataset=demo/sketch", "limit=6"]
    words += ["policy=demo/policy.pt", "device=cpu", "num_workers=0", "num_threads=1"]
    slurm = {"SLURM_SUBMIT_DIR": str(REPOSITORY), "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_CPUS_PER_TASK": "1"}
    slurm["PATH"] = f"{roots}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    for part in "01":
        done = bash("slurm/run.sbatch", *words, folder=roots, SLURM_ARRAY_TASK_ID=part, **slurm)
        assert done.returncode == 0 and here(*shlex.split(done.stdout)[2:]) == 0, done.stderr
    [folder] = (roots / "output").iterdir()
    assert json.loads((folder / "summary.json").read_text())["num_samples"] == 6
    assert len(list(folder.glob("rows-*"))) == 2
    done = bash("slurm/run.sbatch", folder=roots, SLURM_ARRAY_TASK_ID="0", **slurm)
    assert done.returncode == 1 and "usage: sbatch scripts/slurm/run.sbatch CONFIG" in done.stderr
