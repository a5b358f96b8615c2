"""Benchmark scripts as processes, one of each kind: their help names their overrides, they run on the demo's models.

What others give to `python` is in tests/test_scripts_and_configs.py, and each config runs in the tests of its task.
"""

import os
import subprocess
from pathlib import Path

import pytest

from clipscore.config.load import REPOSITORY
from scripts.demo.make_data import make_data
from tests.classification import test_runs as classification
from tests.commands import bash, roots
from tests.retrieval import test_runs as retrieval

TASKS = ("classification", "retrieval", "captioning")
SCRIPTS = [path for task in TASKS for path in sorted((REPOSITORY / "scripts" / task).rglob("*.sh"))]
SCRIPTS = [path for path in SCRIPTS if not path.stem.startswith(("train", "extract"))]  # those have tests of their own
CAPTIONER = ["policy=demo/policy.pt", "device=cpu", "num_workers=0", "llm=demo/opt", "prefix_length=7"]
CAPTIONER += ["mapper_layers=2", "decoding.max_new_tokens=8", "metrics=[clipscore]", "metric_model=demo/reward.pt"]
IMAGENET_C = {"classification/rlcf_imagenet_c": dict(classification.every_config())["rlcf_encoder"]}
WORDS = {  # script -> what makes a demo run of it
    **{f"classification/{name}": [*classification.QUICK, *words] for name, words in classification.every_config()},
    **{name: [*classification.QUICK, *words] for name, words in IMAGENET_C.items()},
    **{f"retrieval/{name}": [*retrieval.QUICK, *words] for name, words in retrieval.every_config()},
}
for path in SCRIPTS:
    if path.parent.name == "captioning":
        reward = [] if path.stem.startswith("eval") else retrieval.ENSEMBLE if "_s_" in path.stem else retrieval.REWARD
        kind = "capdec" if "capdec" in path.stem else "clipcap"
        WORDS[f"captioning/{path.stem}"] = [*CAPTIONER, *reward, f"checkpoint=demo/{kind}"]
KINDS = {"classification/rlcf_prompt", "retrieval/rlcf_coco", "captioning/eval_c2f", "captioning/tta_clipcap_c2f"}
DATASET = {"classification": "demo/noise", "retrieval": "demo_scenes/noise", "captioning": "demo_scenes/noise"}
KEYS = {
    "classification": ("views.num_views: int",),
    "captioning": ("num_candidates: int", "metrics: [str]"),
    "retrieval": ("num_candidates.image_to_text: int", "direction=image_to_text,text_to_image"),
}


def name_of(script: Path) -> str:
    return script.relative_to(REPOSITORY / "scripts").with_suffix("").as_posix()


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("scripts")
    make_data(root / "data")
    return roots(root, REPOSITORY / "pretrained")


def test_there_is_a_script_for_every_config():
    assert {name_of(script) for script in SCRIPTS} == set(WORDS)


@pytest.mark.parametrize("script", [path for path in SCRIPTS if name_of(path) in KINDS], ids=name_of)
def test_script(script, environment):
    task, name = name_of(script).split("/")[0], f"{name_of(script)}.sh"
    shown = bash(name, "--help", **environment).stdout
    for word in ("GPU", "dataset=", "policy: str", "limit: int", "lr: float", *KEYS[task]):
        assert word in shown
    done = bash(name, "cpu", f"dataset={DATASET[task]}", "limit=1", *WORDS[name_of(script)], **environment)
    assert done.returncode == 0, done.stderr
    columns = [f"{DATASET[task]}/{d}" for d in retrieval.DIRECTIONS] if task == "retrieval" else [DATASET[task]]
    table = ["dataset", *columns] * (2 if script.stem.startswith("eval") else 1)  # eval_*: CapDec, then ClipCap
    assert [line.split()[0] for line in done.stdout.splitlines()] == table


def test_dry_run_prints_the_command_and_touches_nothing(environment, tmp_path):
    (tmp_path / "python").write_text(f"#!/bin/sh\ntouch {tmp_path}/called\n")  # not even to look for packages
    (tmp_path / "python").chmod(0o755)
    folder = REPOSITORY / "scripts"
    for script in [*folder.glob("*.sh"), *(path for task in TASKS for path in (folder / task).glob("*.sh"))]:
        if script.name in {"environment.sh", "benchmark.sh"}:
            continue
        first = [] if script.parent == folder and script.name != "reproduce.sh" else ["cpu"]
        shown = bash(script, *first, "--dry-run", PATH=f"{tmp_path}:{os.environ['PATH']}", RLCF_USE_ACTIVE_ENV="0")
        assert shown.returncode == 0 and shown.stdout.startswith("python"), (script, shown.stderr)
        assert "--dry-run" not in shown.stdout and not (tmp_path / "called").exists()


def test_one_direction_by_itself(environment):
    words = ["cpu", f"dataset={DATASET['retrieval']}", "limit=2", *retrieval.QUICK, "direction=text_to_image"]
    lines = bash("retrieval/zero_shot.sh", *words, **environment).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["dataset", "demo_scenes/noise/text_to_image"]


def test_the_gpu_comes_first(environment):
    for words in ([], ["dataset=demo/noise"], ["cuda:0"]):
        refused = bash(f"{name_of(SCRIPTS[0])}.sh", *words, **environment)
        assert refused.returncode == 2
        assert "the first argument is the GPU's number" in refused.stderr and "GPU [key=value ...]" in refused.stderr


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
    words = ["bash", "-euc", f"source {tmp_path}/scripts/environment.sh"]
    if os.geteuid() == 0:  # who may write everywhere
        words = ["setpriv", "--reuid=65534", "--clear-groups", *words]
        for folder in tmp_path.parents:
            folder.chmod(folder.stat().st_mode | 0o055) if folder != Path("/") else None
    done = subprocess.run(words, cwd="/", capture_output=True, text=True)
    tmp_path.chmod(0o755)
    assert done.returncode != 0 and "cannot be written to, so no .venv can be made in it" in done.stderr
    assert "unbound variable" not in done.stderr
