"""Tiny models with recorded weights, as float64 CLIPs; and tiny copies of all data and weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clipscore.clip_model import ClipModel
from tests import miniatures
from tests.golden_files import Golden

GOLDEN = Path(__file__).parent / "golden"


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
