"""Time is counted once, for the innermost watched method."""

import time

import pytest
import torch

from clipscore.metrics.stage_times import OTHER, StageTimes


class Worker:
    def outer(self, fails: bool = False) -> str:
        time.sleep(0.02)
        self.inner(fails)
        return "done"

    def inner(self, fails: bool) -> None:
        time.sleep(0.05)
        if fails:
            raise ValueError("asked")


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def times(worker: Worker) -> StageTimes:
    times = StageTimes(torch.device("cpu"))
    times.watch(worker, "outer", "policy")
    times.watch(worker, "inner", "text")
    return times


def test_nested_methods_count_for_themselves(worker, times):
    with pytest.raises(AttributeError, match="absent"):
        times.watch(worker, "absent", "reward")
    times.start()
    assert worker.outer() == "done"
    time.sleep(0.03)
    seconds = times.take()
    assert set(seconds) == {OTHER, "policy", "text"}
    assert 0.02 <= seconds["policy"] < 0.05 <= seconds["text"] and seconds[OTHER] >= 0.03
    assert set(times.take()) == {OTHER}, "what was taken is not counted again"


def test_a_failing_method_ends_its_stage(worker, times):
    with pytest.raises(ValueError, match="asked"):
        worker.outer(fails=True)
    times.start()
    time.sleep(0.01)
    assert set(times.take()) == {OTHER}
