"""Ranks against a full sort, ties, recall, and the memory of the paper's size."""

import subprocess
import sys

import pytest
import torch

from clipscore.config.load import REPOSITORY
from retrieval import metrics

# Features of few bits, so that a dot product is the same number whatever the order of its sum.
COCO_SIZE = """
import resource, torch
from retrieval.metrics import feature_ranks, recalls, top_items
imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
texts, images, per_image = 25_010, 5_000, 5
generator = torch.Generator().manual_seed(0)
image = torch.randn(images, 512, generator=generator).mul(8).round().div(8)
owners = [min(number // per_image, images - 1) for number in range(texts)]
text = (image[owners] + 9 * torch.randn(texts, 512, generator=generator)).mul(8).round().div(8)
captions_of = [[] for _ in range(images)]
for number, owner in enumerate(owners):
    captions_of[owner].append(number)
for queries, gallery, positives in ((image, text, captions_of), (text, image, [[owner] for owner in owners])):
    ranks = feature_ranks(queries, gallery, positives)
    assert 10 < recalls(ranks.tolist())["r1"] < 95, recalls(ranks.tolist())
    for row in range(0, len(queries), 500):
        order = top_items(queries[row : row + 1] @ gallery.T, len(gallery))[0]
        assert ranks[row] == 1 + min(order.index(index) for index in positives[row])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - imported) / 2**20)
"""


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
    for size in (1, 100, 10_000):
        monkeypatch.setattr(metrics, "CHUNK_SCORES", size)
        assert metrics.feature_ranks(queries, gallery, positives).tolist() == expected


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


def test_cocos_size_fits_in_a_gigabyte():
    command = [sys.executable, "-c", COCO_SIZE]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    assert float(done.stdout) < 0.4  # GiB on top of the 0.6 to 0.8 that importing torch takes
