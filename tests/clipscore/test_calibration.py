"""Calibration by hand, and against torchmetrics and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss
from torchmetrics.classification import MulticlassCalibrationError

from classification.task import answers
from clipscore.config.load import REPOSITORY
from scripts.tables.calibration import ECE_BINS, calibration_error, reliability_bins


@pytest.fixture(scope="module")
def predictions() -> tuple[np.ndarray, np.ndarray]:
    """Logits of 400 samples over 7 classes, and labels that they know something of."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, size=(400, 7))
    return logits, (logits + rng.normal(0, 2, size=logits.shape)).argmax(1)


def probabilities(logits: np.ndarray) -> np.ndarray:
    return torch.tensor(logits).softmax(1).numpy()


def test_reliability_bins_by_hand():
    bins = reliability_bins([0.0, 0.25, 0.3, 0.9, 1.0], [False, True, True, False, True], num_bins=4)
    assert [(b.low, b.high, b.count) for b in bins] == [(0, 0.25, 1), (0.25, 0.5, 1), (0.75, 1, 2)]
    assert [b.accuracy for b in bins] == [1, 1, 0.5]
    assert [b.confidence for b in bins] == [0.25, 0.3, 0.95]
    assert calibration_error(bins, 5) == pytest.approx((1 * 0.75 + 1 * 0.7 + 2 * 0.45) / 5)


@pytest.mark.parametrize("num_bins", ECE_BINS.values())
def test_calibration_error_agrees_with_the_trace_of_ctpt(num_bins):
    trace = np.load(REPOSITORY / "tests/golden/peers/ece.npz")
    right = trace["input/prediction"] == trace["input/label"]
    bins = reliability_bins(trace["input/confidence"], right, num_bins)
    filled = trace[f"bins{num_bins}/count"] > 0
    for name in ("accuracy", "confidence", "count"):
        expected = trace[f"bins{num_bins}/{name}"][filled]
        np.testing.assert_allclose([getattr(each, name) for each in bins], expected, rtol=0, atol=1e-9)
    assert calibration_error(bins, len(right)) == pytest.approx(float(trace[f"bins{num_bins}/ece"]), abs=1e-9)


def test_calibration_error_agrees_with_torchmetrics(predictions):
    logits, labels = predictions
    given = probabilities(logits)
    bins = reliability_bins(given.max(1), given.argmax(1) == labels)
    expected = MulticlassCalibrationError(num_classes=7, n_bins=15, norm="l1")(
        torch.tensor(given), torch.tensor(labels)
    )
    assert 2 < len(bins) <= 15 and sum(b.count for b in bins) == 400
    assert calibration_error(bins, 400) == pytest.approx(float(expected), abs=1e-6)
    assert calibration_error(bins, 400) > 0.05  # not zero on both sides


def test_brier_of_the_records_agrees_with_scikit_learn(predictions):
    pytest.importorskip("sklearn", minversion="1.7")  # of several classes
    logits, labels = predictions
    rows = [answers(torch.tensor(-logits[i]), torch.tensor(logits[i]), int(labels[i])) for i in range(len(labels))]
    for key, given in (("brier", logits), ("brier_before", -logits)):
        expected = brier_score_loss(labels, probabilities(given), labels=range(7), scale_by_half=False)
        assert np.mean([row[key] for row in rows]) == pytest.approx(expected, abs=1e-5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"got shapes \(2,\) and \(1,\)"):
        reliability_bins([0.5, 0.5], [True])
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 0.5 to 1.5"):
        reliability_bins([0.5, 1.5], [True, True])
