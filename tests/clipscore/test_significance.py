"""Paired tests by hand and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from clipscore.significance import bootstrap_interval, changes, mcnemar_p_value, percent


def test_mcnemar_by_hand():
    assert changes([True, False, False, True], [False, True, True, True]) == (2, 1)
    assert mcnemar_p_value(6, 0) == pytest.approx(2 / 2**6)
    assert mcnemar_p_value(2, 1) == 1 and mcnemar_p_value(0, 0) == 1
    assert percent([True, False, False]) == 33.333


def test_bootstrap_agrees_with_scipy():
    rng = np.random.default_rng(1)
    before = rng.normal(size=80)
    after = before + rng.normal(0.3, 0.5, size=80)
    mean, low, high = bootstrap_interval(before.tolist(), after.tolist())
    expected = stats.bootstrap((after - before,), np.mean, method="percentile", n_resamples=10_000)
    assert mean == pytest.approx((after - before).mean())
    assert (low, high) == pytest.approx(tuple(expected.confidence_interval), abs=0.01)
    assert low < mean < high
    assert bootstrap_interval(before.tolist(), after.tolist()) == (mean, low, high)  # the same draws
    assert bootstrap_interval([1.0, 2.0], [2.0, 3.0]) == (1, 1, 1)
    with pytest.raises(ValueError, match="got 1 and 2"):
        bootstrap_interval([1.0], [1.0, 2.0])
