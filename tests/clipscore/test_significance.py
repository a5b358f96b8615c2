"""Paired tests by hand and against scipy."""

import numpy as np
import pytest
from scipy import stats

from clipscore.metrics.significance import bootstrap_interval, changes, mcnemar_p_value, paired, percent, share_interval


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
