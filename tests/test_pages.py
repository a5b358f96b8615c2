"""The pages: their links lead somewhere, their commands are understood, and the switches that they name are there."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from clipscore.config.load import REPOSITORY, ConfigError, available_configs, load_config
from scripts import run
from scripts.runs.command_line import CommandLine
from tests.commands import bash

PAGES = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("[a-z]*/*.md"), *REPOSITORY.glob("[a-z]*/[a-z]*/*.md")]
PAGES = [page for page in PAGES if page.relative_to(REPOSITORY).parts[0] not in ("output", "data", "tests")]
TASKS = ("classification", "retrieval", "captioning")
RUN_SCRIPT = re.compile(r"scripts/(classification|retrieval|captioning)/(?!extract|train)\w+\.sh")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    titles = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(page: Path) -> list[str]:
    """The lines of the blocks of commands, whole, without comments and assignments in front."""
    blocks = re.findall(r"```bash\n(.*?)```", text_of(page), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [part for line in lines for part in re.sub(r"\s#.*", "", line).split("&&")]
    return [re.sub(r"^(\s*[A-Z_]+=\S+)+ ", "", line).strip() for line in found if line.strip()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_relative_link_and_anchor_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if not target.startswith(("http", "mailto")):
            path, _, anchor = target.partition("#")
            place = (page.parent / path).resolve() if path else page
            assert place.exists(), target
            assert not anchor or anchor in anchors(place), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_command_is_understood(page: Path) -> None:
    """Scripts and modules are there, and the configurations that run commands ask for are valid."""
    for line in commands(page):
        first, *words = shlex.split(re.sub(r"[<>]", "", line.replace("RUN ...", "RUN")))
        if first == "bash" and words[0] != "..." and not words[0].startswith("RLCF/"):
            assert (REPOSITORY / words[0]).is_file(), line
            if RUN_SCRIPT.fullmatch(words[0]):
                dry = bash(REPOSITORY / words[0], *words[1:], "--dry-run")
                assert dry.returncode == 0, (line, dry.stderr)
                for command in map(shlex.split, dry.stdout.splitlines()):
                    start = command.index("scripts.run") + 1
                    assert CommandLine(command[start:]).configs(run.config_class), line
        elif first == "python" and words[0] == "-m":
            assert importlib.util.find_spec(words[1]) is not None, line
            if words[1] == "scripts.run" and "--help" not in words:
                assert CommandLine(words[2:]).configs(run.config_class), line


@pytest.mark.parametrize("task", [*TASKS, "clipscore"])
def test_every_switch_of_a_deviation_is_one(task: str) -> None:
    told = text_of(REPOSITORY / task / "README.md").partition("## Deviations")[2]
    switches = set(re.findall(r"`([a-z_.]+=[^`]*)`", told))
    files = [file for file in available_configs() if "/train_" not in file and (task in file or task not in TASKS)]
    for switch in switches:
        found = []
        for file in files:
            try:
                found.append(load_config(file, [switch], run.config_class))
            except ConfigError:
                continue
        assert found, f"no configuration takes {switch}"


def test_the_readme_is_one_that_one_reads() -> None:
    text = text_of(REPOSITORY / "README.md")
    assert len(text.splitlines()) <= 220 and len(text.encode()) <= 16_384
