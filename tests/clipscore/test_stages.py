"""Time is counted once, for the innermost watched method."""

from __future__ import annotations

import time

import pytest
import torch

from clipscore.metrics.stage_times import OTHER, StageTimes


class Worker:
    def outer(self) -> str:
        time.sleep(0.02)
        self.inner()
        return "done"

    def inner(self) -> None:
        time.sleep(0.05)
        raise_if_asked(self)


def raise_if_asked(worker: Worker) -> None:
    if getattr(worker, "fails", False):
        raise ValueError("asked")


def test_nested_methods_count_for_themselves():
    worker, times = Worker(), StageTimes(torch.device("cpu"))
    times.watch(worker, "outer", "policy")
    times.watch(worker, "inner", "text")
    with pytest.raises(AttributeError, match="absent"):
        times.watch(worker, "absent", "reward")
    times.start()
    assert worker.outer() == "done"
    time.sleep(0.03)
    seconds = times.take()
    assert set(seconds) == {OTHER, "policy", "text"}
    assert 0.02 <= seconds["policy"] < 0.05 <= seconds["text"] and seconds[OTHER] >= 0.03
    assert set(times.take()) == {OTHER}, "what was taken is not counted again"


def test_a_failing_method_ends_its_stage():
    worker, times = Worker(), StageTimes(torch.device("cpu"))
    worker.fails = True
    times.watch(worker, "outer", "policy")
    times.watch(worker, "inner", "text")
    with pytest.raises(ValueError, match="asked"):
        worker.outer()
    times.start()
    time.sleep(0.01)
    assert set(times.take()) == {OTHER}
