"""Ranks against a full sort, ties, and recall."""

import pytest
import torch

from retrieval import metrics


def test_chunks_agree_with_a_full_sort(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    queries, gallery = (torch.randint(-2, 3, (n, 6), generator=generator).float() for n in (40, 30))  # many ties
    positives = [[n % 30, (7 * n) % 30] for n in range(40)]
    scores = queries @ gallery.T
    expected = []
    for row, indices in enumerate(positives):
        order = sorted(range(30), key=lambda item: (-scores[row, item].item(), -item))
        assert metrics.top_items(scores[row : row + 1], 30) == [order]
        expected.append(1 + min(order.index(index) for index in indices))
    sizes, best_ranks = [], metrics.best_ranks
    monkeypatch.setattr(metrics, "best_ranks", lambda s, right: sizes.append(s.numel()) or best_ranks(s, right))
    for size in (1, 100, 10_000):
        monkeypatch.setattr(metrics, "CHUNK_SCORES", size)
        assert metrics.feature_ranks(queries, gallery, positives).tolist() == expected
    assert sizes == [30] * 40 + [90] * 13 + [30, 40 * 30]  # COCO's 25,010 x 5,000 scores are never held


def test_summary_by_hand():
    rows = [{"rank_before": before, "rank": after} for before, after in [(1, 2), (2, 1), (7, 1), (11, 6), (30, 1)]]
    summary = metrics.summarize(rows)
    assert (summary["r1_before"], summary["r5_before"], summary["r10_before"]) == (20, 40, 60)
    assert (summary["r1"], summary["r5"], summary["r10"]) == (60, 80, 100)
    assert (summary["fixed"], summary["broken"]) == (3, 1)
    assert summary["p_value"] == pytest.approx(10 / 16)  # 2 * (1 + 4) / 2^4
    assert metrics.summarize([]) == {}
    rows = [{"rank_before": 1 + (n > 1), "rank": 1 + (n > 1)} for n in range(47)]
    assert metrics.summarize(rows)["r1"] == metrics.summarize(rows)["r1_before"] == 100 * 2 / 47  # rounded when shown
