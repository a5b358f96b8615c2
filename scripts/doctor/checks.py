"""What the doctor found, a tree of checks as text or JSON; and its look at the machine: packages, Java, disk, GPUs."""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from clipscore.config.load import REPOSITORY
from clipscore.data.checks import folder_fault
from clipscore.data.reading import ENOUGH_SHARED_MEMORY, free_shared_memory
from clipscore.metrics.coco import has_java, has_spice_models
from scripts.runs.process import PACKAGES

State = Literal["ok", "wrong", "note"]  # a note does not count
ENOUGH_BYTES = 5_000_000_000  # retrieval's features, momentum buffers and the records of every row of a table
TICKS: dict[State, str] = {"ok": "✓", "wrong": "✗", "note": "–"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `lines` say what is wrong and what to do, `parts` are what it consists of."""

    title: str
    state: State = "ok"
    lines: tuple[str, ...] = ()
    parts: tuple[Check, ...] = ()

    @property
    def passed(self) -> bool:
        """Nothing in it is wrong."""
        return self.shown != "wrong"

    @property
    def shown(self) -> State:
        """Its state, where a wrong part counts."""
        return self.state if all(part.passed for part in self.parts) else "wrong"

    def as_json(self) -> dict[str, Any]:
        """The same tree in JSON's types."""
        parts = [part.as_json() for part in self.parts]
        return {"title": self.title, "state": self.shown, "lines": list(self.lines), "parts": parts}

    def as_text(self, depth: int = 0) -> Iterator[str]:
        """Its lines, with ticks, indented."""
        margin = "    " * depth
        yield f"{margin}{TICKS[self.shown]} {self.title}"
        for line in self.lines:
            yield from (f"{margin}  {text}" for text in line.splitlines())
        for part in self.parts:
            yield from part.as_text(depth + 1)


def wrong(title: str, *lines: object) -> Check:
    """A fault, with what is said about it."""
    return Check(title, "wrong", tuple(map(str, lines)))


def as_note(check: Check) -> Check:
    """The same tree where no fault counts, for what was not asked for."""
    state: State = "note" if check.state == "wrong" else check.state
    return replace(check, state=state, parts=tuple(map(as_note, check.parts)))


def check_machine(tables: Sequence[str], output_root: Path) -> list[Check]:
    """Look at the machine; Table 3 needs Java, and results go under `output_root`."""
    return [_packages(), _java("table3" in tables), _disk(output_root), _shared_memory(), _cuda()]


def _packages() -> Check:
    needed = (REPOSITORY / "requirements.txt").read_text().partition("\n# optional")[0]
    faults = []
    for package in map(Requirement, re.findall(r"^\w.*", needed, re.MULTILINE)):
        try:
            if not package.specifier.contains(version := metadata.version(package.name), prereleases=True):
                faults.append(f"{package.name} is {version}, expected {package.specifier}")
        except metadata.PackageNotFoundError:
            faults.append(f"{package.name} is not installed")
    if faults:
        mend = f"python -m pip install -r {REPOSITORY / 'requirements.txt'} -c {REPOSITORY / 'constraints.txt'}"
        return wrong(f"packages: {'; '.join(faults)}", mend)
    versions = [f"{name} {metadata.version(name)}" for name in PACKAGES]
    return Check(f"packages: Python {platform.python_version()}, {', '.join(versions)}")


def _java(is_needed: bool) -> Check:
    if not has_java():
        title = "Java: no `java` runs, which BLEU, METEOR, ROUGE-L and CIDEr of Table 3 need"
        mend = "apt-get install default-jre-headless; without Java: metrics=[clipscore,refclipscore]"
        return Check(title, "wrong" if is_needed else "note", (mend,))
    spice = "there" if has_spice_models() else "not there; metrics=[spice] downloads them"
    return Check(f"Java: runs; SPICE's models: {spice}")


def _disk(output_root: Path) -> Check:
    """A run makes its output folder itself; what counts is the nearest folder that exists."""
    if fault := folder_fault(output_root):
        return wrong(f"disk: {fault}", "set output_root or RLCF_OUTPUT")
    place = next(path for path in (output_root, *output_root.parents) if path.exists())
    free = shutil.disk_usage(place).free
    title = f"disk: {free / 1e9:,.1f} GB free for {output_root}"
    if free < ENOUGH_BYTES:
        return wrong(f"{title}, expected {ENOUGH_BYTES / 1e9:.0f}", "make room, or set output_root or RLCF_OUTPUT")
    return Check(title)


def _shared_memory() -> Check:
    if (free := free_shared_memory()) >= ENOUGH_SHARED_MEMORY:
        return Check(f"shared memory: {free / 1e9:,.1f} GB free in /dev/shm")
    title = f"shared memory: {free / 1e6:,.0f} MB free in /dev/shm, so readers send through pipes, which is slower"
    return Check(title, "note", ("in Docker: --shm-size=2g",))


def _cuda() -> Check:
    import torch  # slow

    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Check(f"CUDA: {', '.join(names)}") if names else Check("CUDA: no device; runs go on the CPU", "note")
