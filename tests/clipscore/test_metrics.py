"""Paired tests and calibration by hand, against scipy and scikit-learn; and the times of stages."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import brier_score_loss

from classification.task import answers
from clipscore.metrics import stage_times
from clipscore.metrics.significance import bootstrap_interval, changes, mcnemar_p_value, paired, percent, share_interval
from clipscore.metrics.stage_times import OTHER, StageTimes
from scripts.tables.figures import reliability_bins


def test_mcnemar_by_hand():
    assert changes([True, False, False, True], [False, True, True, True]) == (2, 1)
    assert mcnemar_p_value(6, 0) == pytest.approx(2 / 2**6)
    assert mcnemar_p_value(2, 1) == 1 and mcnemar_p_value(0, 0) == 1
    assert percent([True] * 2 + [False] * 45) == 100 * 2 / 47  # 4.2553, which is shown as 4.26; 4.255 would be as 4.25
    found = paired([True, False, False, True], [False, True, True, True])
    assert (found.difference, found.fixed, found.broken, found.p_value) == (0.25, 2, 1, 1)
    assert found.low <= 0.25 <= found.high


def test_bootstrap_agrees_with_scipy():
    pytest.importorskip("scipy", minversion="1.15")  # its `rng`
    rng = np.random.default_rng(1)
    before = rng.normal(size=80)
    after = before + rng.normal(0.3, 0.5, size=80)
    mean, low, high = bootstrap_interval(before.tolist(), after.tolist())
    expected = stats.bootstrap(
        (before, after), lambda b, a, axis: np.mean(a - b, axis=axis), paired=True, method="percentile",
        n_resamples=10_000, vectorized=True, rng=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    assert mean == pytest.approx((after - before).mean())
    assert (low, high) == pytest.approx(tuple(expected), abs=0.01)
    assert low < mean < high
    assert bootstrap_interval(before.tolist(), after.tolist()) == (mean, low, high)  # the same draws
    assert bootstrap_interval([1.0, 2.0], [2.0, 3.0]) == (1, 1, 1)
    with pytest.raises(ValueError, match="got 1 and 2"):
        bootstrap_interval([1.0], [1.0, 2.0])


def test_interval_of_a_difference_of_shares_agrees_with_the_bootstrap():
    fixed, broken, total = 40, 15, 300
    after = np.array([1] * fixed + [0] * broken + [1] * (total - fixed - broken))
    before = np.array([0] * fixed + [1] * broken + [1] * (total - fixed - broken))
    mean, *expected = bootstrap_interval(before.tolist(), after.tolist())
    low, high = share_interval(fixed, broken, total)
    assert mean == pytest.approx(25 / 300)
    assert (low, high) == pytest.approx(tuple(expected), abs=0.004)  # a draw more or less of 300
    assert share_interval(0, 0, 5) == (0, 0)
    with pytest.raises(ValueError, match="got 4 \\+ 2 of 5"):
        share_interval(4, 2, 5)


def test_brier_of_the_records_agrees_with_scikit_learn():
    pytest.importorskip("sklearn", minversion="1.7")  # of several classes
    logits = np.random.default_rng(0).normal(0, 2, size=(400, 7))
    labels = [n % 7 for n in range(400)]
    rows = [answers(torch.tensor(-row), torch.tensor(row), label) for row, label in zip(logits, labels, strict=True)]
    for key, given in (("brier", logits), ("brier_before", -logits)):
        shares = torch.tensor(given).softmax(1).numpy()
        expected = brier_score_loss(labels, shares, labels=range(7), scale_by_half=False)
        assert np.mean([row[key] for row in rows]) == pytest.approx(expected, abs=1e-5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"got shapes \(2,\) and \(1,\)"):
        reliability_bins([0.5, 0.5], [True])
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 0.5 to 1.5"):
        reliability_bins([0.5, 1.5], [True, True])


class Worker:
    def outer(self, fails: bool = False) -> str:
        self.inner(fails)
        return "done"

    def inner(self, fails: bool) -> None:
        if fails:
            raise ValueError("asked")


def test_nested_methods_count_for_themselves_and_a_failing_one_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.accumulate(2**n for n in itertools.count())  # so that a sum tells which looks at it were counted
    monkeypatch.setattr(stage_times, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    times, worker = StageTimes(torch.device("cpu")), Worker()
    times.watch(worker, "outer", "policy")
    times.watch(worker, "inner", "text")
    with pytest.raises(AttributeError, match="absent"):
        times.watch(worker, "absent", "reward")
    times.start()
    assert worker.outer() == "done"
    assert times.take() == {OTHER: 4 + 64, "policy": 8 + 32, "text": 16}
    assert set(times.take()) == {OTHER}, "what was taken is not counted again"
    with pytest.raises(ValueError, match="asked"):
        worker.outer(fails=True)
    times.start()
    assert set(times.take()) == {OTHER}
