"""The process a run lives in: its messages, its signals, and what env.json tells about it."""

import argparse
import atexit
import gc
import hashlib
import importlib
import logging
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from tqdm import tqdm
from tqdm.contrib import DummyTqdmFile

from clipscore.cli import DONE, REFUSED, USER_ERRORS
from clipscore.config.load import REPOSITORY
from scripts.runs.shards import Rank

CODE_FOLDERS = ["clipscore", "classification", "retrieval", "captioning"]
REPEAT_S = 5.0  # a signal so soon after another is the same one
PACKAGES = ["torch", "torchvision", "open_clip_torch", "transformers", "timm", "numpy", "pillow"]

log = logging.getLogger(__name__)


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM came. A KeyboardInterrupt, because the reader processes of a DataLoader end quietly on that."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def messages() -> Iterator[None]:
    """Show messages of INFO and above on stderr; the project's own loggers pass everything on, for log.txt.

    Of torchrun's processes only the first shows all; the others show errors, with their number.
    """
    rank = Rank.of_this_process()
    console = logging.StreamHandler(DummyTqdmFile(sys.stderr))  # above the progress bar instead of through it
    console.setLevel(logging.ERROR if rank.index else logging.INFO)
    if rank.index:
        console.setFormatter(logging.Formatter(f"process {rank.index} of {rank.count}: %(message)s"))
    for package in ("scripts", *CODE_FOLDERS):
        logging.getLogger(package).setLevel(logging.DEBUG)
    tqdm.get_lock()  # made at the first message otherwise, and a signal in the middle of that would be a traceback
    with _added(console):
        yield


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """One line on stderr, and no traceback for this and each message after it."""
        self.setLevel(sys.maxsize)
        tqdm.write(f"{self.baseFilename} cannot be written ({sys.exc_info()[1]})", file=sys.stderr)


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Append all messages to a file while this lasts, and the traceback of what ends it."""
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    with _added(handler):
        yield


@contextmanager
def _added(handler: logging.Handler) -> Iterator[None]:
    logging.getLogger().addHandler(handler)
    try:
        yield
    except BaseException:
        log.debug("ended by", exc_info=True)
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        with suppress(OSError):  # what could not be written before cannot be now
            handler.close()


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


@contextmanager
def lasting_imports() -> Iterator[None]:
    """Look for no garbage while modules are imported, nor later among what they hold: a fifth of a run's start."""
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # another time there are models, which must not stay for ever
            gc.freeze()
            atexit.register(gc.unfreeze)  # libraries count what is left of them at the end
        gc.enable()


def command(run: Callable[[], int | None], goes_on: str = "from here") -> int:
    """The exit code of `run`, with its messages; a signal, and what the user can mend, become one sentence."""
    with messages(), signals():
        try:
            return run() or DONE
        except Interrupted as stop:
            log.error("stopped by %s; the same command goes on %s", stop, goes_on)
            return 128 + stop.number
        except USER_ERRORS as error:
            log.error("error: %s", error)
            return REFUSED


def script_parser(name: str, text: str | None) -> argparse.ArgumentParser:
    """A parser for `python -m scripts.NAME`, whose help shows the text line by line."""
    raw = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(f"python -m scripts.{name}", description=text, formatter_class=raw)


def optional(module: str, package: str, purpose: str) -> Any:
    """A module of a package that is not among the requirements; RuntimeError: what to install for what purpose."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RuntimeError(f"{purpose} needs a package more: python -m pip install {package}") from error


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
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    with suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=30)
        return found.stdout.strip() or None
    return None
