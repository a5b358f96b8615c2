"""Tiny models with recorded weights, as float64 CLIPs; tiny copies of all data and weights; the demo's data."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clipscore.clip_model import ClipModel
from clipscore.config.load import REPOSITORY
from scripts.demo.make_data import make_data
from tests import commands, miniatures
from tests.file_server import Server
from tests.golden_files import Golden

os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # scripts under test take this python

GOLDEN = Path(__file__).parent / "golden"
collect_ignore = ["cuda"]  # a process of its own: see scripts/test.sh


@pytest.fixture(scope="session")
def golden() -> Golden:
    """The traces of this repository."""
    return Golden(GOLDEN)


@pytest.fixture
def tiny_clip(golden: Golden) -> Callable[[str], ClipModel]:
    """A fresh float64 CLIP: P, R1, R2 (ViT) or RN (ResNet)."""
    return golden.clip


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data` and `pretrained` with all miniatures; only to be read."""
    return miniatures.build(tmp_path_factory.mktemp("miniature"))


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The demo's test sets, read-only."""
    root = tmp_path_factory.mktemp("data")
    make_data(root)
    paths = [root, *root.rglob("*")]
    for path in paths:
        path.chmod(path.stat().st_mode & ~0o222)
    yield root
    for path in paths:
        path.chmod(path.stat().st_mode | 0o200)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """tmp_path, with the three roots of the environment in it."""
    for variable, folder in commands.roots(tmp_path).items():
        monkeypatch.setenv(variable, folder)
    return tmp_path


@pytest.fixture
def roots(tmp_path: Path, demo_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Environment with the demo's data and weights; results go to tmp_path/output."""
    monkeypatch.setenv("RLCF_DATA", str(demo_data))
    monkeypatch.setenv("RLCF_PRETRAINED", str(REPOSITORY / "pretrained"))
    monkeypatch.setenv("RLCF_OUTPUT", str(tmp_path / "output"))
    return tmp_path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Files over HTTP."""
    monkeypatch.setenv("NO_PROXY", "*")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
