"""What the tests of whole runs share: read a run, kill a process at a point, and try the examples of the help."""

import itertools
import json
import os
import re
import shlex
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from clipscore.config.load import REPOSITORY
from tests.commands import here

REWARD = ["reward.models=demo/reward.pt"]
CAPTIONER = ["llm=demo/opt", "checkpoint=demo/clipcap", "prefix_length=7", "mapper_layers=2"]
CLIPSCORE = ["metrics=[clipscore]", "metric_model=demo/reward.pt"]
ENSEMBLE = ["reward.models=[{name: demo/reward.pt, weight: 10}, {name: demo/policy.pt, weight: 5}]"]


def configs(task: str) -> list[str]:
    """The names of a task's configs, but for those of trainings."""
    folder = REPOSITORY / "configs" / task
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in sorted(folder.rglob("*.yaml"))]
    return [name for name in names if not name.startswith("train_")]


def demo_models(task: str, name: str) -> list[str]:
    """Overrides that put the demo's models in the place of those that a config names beside the policy."""
    values = yaml.safe_load((REPOSITORY / f"configs/{task}/{name}.yaml").read_text())
    words = (REWARD if len(values["reward"]["models"]) == 1 else ENSEMBLE) if "reward" in values else []
    start = ["prompt_start=demo/" + values["prompt_start"].split("/")[0]] if "prompt_start" in values else []
    return [*words, *start, *["zero_shot_models=[demo/reward.pt]"] * ("zero_shot_models" in values)]


def plain(record: dict[str, Any]) -> dict[str, Any]:
    """A record or a summary without its times."""
    return {key: value for key, value in record.items() if not key.startswith(("seconds", "samples_per_second"))}


def results(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Summary and records of a run, without times."""
    rows = (folder / "rows.jsonl").read_text().splitlines()
    return plain(json.loads((folder / "summary.json").read_text())), [plain(json.loads(line)) for line in rows]


def fork(run: Callable[[], int]) -> int:
    """The id of a copy of this process that runs something, and ends with its result as exit code."""
    if not (child := os.fork()):
        try:
            os._exit(run())
        finally:
            os._exit(1)
    return child


def end_of(child: int) -> int:
    """The exit code of a fork; minus the number of a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_at(owner: Any, name: str, number: int, run: Callable[[], int]) -> None:
    """Run something in a fork, which SIGKILL ends in front of call `number` of one of an owner's functions."""
    count, plain = itertools.count(), getattr(owner, name)

    def call(*given: Any, **options: Any) -> Any:
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(*given, **options)

    def changed() -> int:
        setattr(owner, name, call)
        return run()

    assert end_of(fork(changed)) == -signal.SIGKILL


def write_own_data(folder: Path, scenes: Path, captions: Sequence[Sequence[str]]) -> list[str]:
    """Put as many of the demo's scenes into a folder as there are lists of captions; the overrides of a run on them."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    entries = [{"image": f"{number:05d}.png", "caption": texts} for number, texts in enumerate(captions)]
    for entry in entries:
        (folder / "pictures" / entry["image"]).write_bytes((scenes / "images" / entry["image"]).read_bytes())
    (folder / "mine.json").write_text(json.dumps(entries))
    files = {"annotations": folder / "mine.json", "images": folder / "pictures"}
    return ["dataset=mine", *(f"dataset_files.{key}={path}" for key, path in files.items())]


def screen_of_example(help: str, data_root: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Lines that the second command of a help's example prints, with the demo's data in another place."""
    example = help.partition("models:\n\n")[2]
    _, line = example.replace("\\\n", " ").replace("output/demo_data", str(data_root)).strip().splitlines()
    assert here(*shlex.split(line)[2:]) == 0
    return capsys.readouterr().out.splitlines()


def assert_one_sentence(caplog: pytest.LogCaptureFixture, message: str) -> None:
    """One error was logged, without a traceback, and the pattern is in it."""
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert re.search(message, record.getMessage()) and not record.exc_info
