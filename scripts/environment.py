"""The process a run lives in: its messages, its signals, torch's global settings, and what env.json tells about it."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from tqdm import tqdm

from scripts.config import REPOSITORY

CODE_FOLDERS = ["clipscore", "classification", "retrieval", "captioning"]
PACKAGES = ["torch", "torchvision", "open_clip_torch", "transformers", "timm", "numpy", "pillow"]


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM came. A KeyboardInterrupt, because the reader processes of a DataLoader end quietly on that."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class _Console(logging.StreamHandler):
    """Messages on stderr, above the progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


@contextmanager
def messages(task_packages: Iterable[str]) -> Iterator[None]:
    """Show messages of INFO and above on stderr; the project's own loggers pass everything on, for log.txt."""
    console = _Console()
    console.setLevel(logging.INFO)
    for package in ("scripts", "clipscore", *task_packages):
        logging.getLogger(package).setLevel(logging.DEBUG)
    logging.getLogger().addHandler(console)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(console)


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Append all messages to a file while this lasts."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


@contextmanager
def signals() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into an exception, so that folders are left and processes ended in order."""

    def stop(number: int, _frame: object) -> None:
        raise Interrupted(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def prepare_torch(num_threads: int | None) -> None:
    """Set what is global in torch, before the task builds its models.

    A resumed run should meet the same numbers. CPU kernels repeat themselves for a given number of threads. On CUDA the
    deterministic kernels are asked for, which here concern a few scattered sums of the backward pass; an operation that
    has none only warns. fp32 means fp32: TF32 is off. Autocast is the task's matter.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS when CUDA starts; else it may vary
    import torch

    if num_threads is not None:
        torch.set_num_threads(num_threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False  # it picks kernels by their speed at the moment, so two starts may differ
    if torch.cuda.is_available():
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # for finding bugs; it costs a pass over all memory


def describe_environment() -> dict[str, Any]:
    """Commit, versions and hardware, for env.json."""
    import torch

    return {
        "commit": _commit(),
        "code": code_digest(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "num_threads": torch.get_num_threads(),
    }


def code_digest() -> str:
    """sha256 of the Python files that decide a result: those of clipscore and of the task folders."""
    files = sorted(file for folder in CODE_FOLDERS for file in (REPOSITORY / folder).glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit checked out, with "-dirty" when files differ from it; None outside of git."""
    command = ["git", "--no-optional-locks", "-C", str(REPOSITORY)]
    command += ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
