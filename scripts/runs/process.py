"""The process a run lives in: its messages, its signals, torch's global settings, and what env.json tells about it."""

import hashlib
import logging
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from tqdm import tqdm

from clipscore.config.load import REPOSITORY
from scripts.runs.rows import explain_full_disk
from scripts.runs.shards import Rank

CODE_FOLDERS = ["clipscore", "classification", "retrieval", "captioning"]
ALONE = Rank()
CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
REPEAT_S = 5.0  # a signal so soon after another is the same one
PACKAGES = ["torch", "torchvision", "open_clip_torch", "transformers", "timm", "numpy", "pillow"]


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM came. A KeyboardInterrupt, because the reader processes of a DataLoader end quietly on that."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class _Console(logging.StreamHandler):
    """Messages on stderr, above the progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # stderr on a full disk: whatever failed before is said nowhere
            tqdm.write(self.format(record), file=sys.stderr)


class _LogFile(logging.FileHandler):
    """Messages in a file, as long as there is room; then one line on stderr in place of a traceback for each."""

    works = True

    def emit(self, record: logging.LogRecord) -> None:
        if self.works:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        self.works = False
        tqdm.write(f"{self.baseFilename} cannot be written ({sys.exc_info()[1]})", file=sys.stderr)

    def close(self) -> None:
        with suppress(OSError):  # what could not be written before cannot be now
            super().close()


@contextmanager
def messages(task_packages: Iterable[str], rank: Rank = ALONE) -> Iterator[None]:
    """Show messages of INFO and above on stderr; the project's own loggers pass everything on, for log.txt.

    Of torchrun's processes only the first shows all; the others show errors, with their number.
    """
    console = _Console()
    console.setLevel(logging.ERROR if rank.index else logging.INFO)
    if rank.index:
        console.setFormatter(logging.Formatter(f"process {rank.index} of {rank.count}: %(message)s"))
    for package in ("scripts", "clipscore", *task_packages):
        logging.getLogger(package).setLevel(logging.DEBUG)
    tqdm.get_lock()  # made at the first message otherwise, and a signal in the middle of that would be a traceback
    with _added(console):
        yield


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Append all messages to a file while this lasts."""
    with explain_full_disk(path.parent):
        handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    with closing(handler), _added(handler):
        yield


@contextmanager
def _added(handler: logging.Handler) -> Iterator[None]:
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


@contextmanager
def signals() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into an exception, so that folders are left and processes ended in order.

    One that follows at once is passed over: torchrun repeats a Ctrl-C that the terminal has already sent.
    """
    last = -REPEAT_S

    def stop(number: int, _frame: object) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= REPEAT_S:
            last = now
            raise Interrupted(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def prepare_torch(num_threads: int | None, device: str = "auto") -> None:
    """Set what is global in torch, before the models are built, so that a resumed run meets the same numbers.

    CPU kernels repeat themselves for a given number of threads; torch chooses it when None. A GPU given with its number
    becomes the process's own, so that nothing is put on the first one by habit.
    """
    import torch
    from torch.utils import deterministic

    from clipscore.models.devices import choose_device

    if num_threads is not None:
        torch.set_num_threads(num_threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False  # it picks kernels by their speed at the moment, so two starts may differ
    if choose_device(device).type == "cuda":
        if device.startswith("cuda:"):
            torch.cuda.set_device(device)
        torch.use_deterministic_algorithms(True)  # only to warn would choose attention kernels that vary
        # For finding bugs; it costs a pass over all memory. torch sets the attribute's type at run time only.
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        # Without CUBLAS_WORKSPACE_CONFIG torch refuses matrix products under deterministic algorithms. It looks once,
        # and gives cuBLAS a workspace of its own in any case. Left in place, the variable is parsed again by torch 2.11
        # at each product with a bias: on an H100, a third of the time of prompt tuning.
        if CUBLAS not in os.environ:
            os.environ[CUBLAS] = ":4096:8"
            torch.ones(1, 1, device="cuda") @ torch.ones(1, 1, device="cuda")
            del os.environ[CUBLAS]


def describe_environment(device: str = "auto") -> dict[str, Any]:
    """Commit, versions and hardware, for env.json."""
    import torch

    from clipscore.models.devices import choose_device

    versions: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "commit": _commit(),
        "code": code_digest(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "gpu": torch.cuda.get_device_name() if choose_device(device).type == "cuda" else None,
        "num_threads": torch.get_num_threads(),
    }


def code_digest() -> str:
    """sha256 of the Python files that decide a result: those of clipscore and of the task folders."""
    files = sorted(file for folder in CODE_FOLDERS for file in (REPOSITORY / folder).rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _commit() -> str | None:
    """The commit checked out, with "-dirty" when files differ from it; None outside of git."""
    command = ["git", "--no-optional-locks", "-C", str(REPOSITORY)]
    command += ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
