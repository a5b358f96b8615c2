"""Tests on the pretended device, in a process of their own: python -m pytest -m "" tests/cuda

They cover what a CUDA device would notice. A skip is told at the end, and is a failure where torch can pretend.
"""

from collections.abc import Iterator

import pytest
import torch

from tests.pretend_cuda import Device, pretend_cuda, why_not

SKIPPED_BECAUSE = why_not()  # asked before anything pretends
num_run = 0


@pytest.fixture(autouse=True)
def device() -> Iterator[Device]:
    """What is seen of the pretended device during one test."""
    if SKIPPED_BECAUSE:
        pytest.skip(SKIPPED_BECAUSE)
    torch.set_num_threads(1)
    with pretend_cuda() as device:
        yield device


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    global num_run
    num_run += report.when == "call" and not report.skipped


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not (num_run or SKIPPED_BECAUSE or session.exitstatus):
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reason = f": {SKIPPED_BECAUSE}" if SKIPPED_BECAUSE else ", although torch can pretend"
    terminalreporter.section(f"pretended GPU: {num_run} tests ran" if num_run else f"NO TEST RAN{reason}")
