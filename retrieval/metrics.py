"""Ranks of the right answers, and recall. Source: paper Table 2; official retrieval/lavis/tasks/retrieval.py."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clipscore.metrics.significance import change_figures
from retrieval.config import RECALL_AT

CHUNK_SCORES = 1_000_000  # scores held at a time


def best_ranks(scores: Tensor, positives: Sequence[Sequence[int]]) -> Tensor:
    """Rank of each query's best positive, from 1; of equal scores the higher index ranks first. [Q, G] -> [Q]

    `positives` are the gallery indices of each query's right answers, at least one. The ranks are int64, on the CPU.
    """
    query = torch.tensor([row for row, indices in enumerate(positives) for _ in indices], device=scores.device)
    item = torch.tensor([index for indices in positives for index in indices], device=scores.device)
    right = torch.full_like(scores, -torch.inf)
    right[query, item] = scores[query, item]
    best = right.max(dim=1, keepdim=True).values  # [Q, G] -> [Q, 1]
    index = torch.arange(scores.shape[1], device=scores.device)
    first = torch.where(right == best, index, -1).max(dim=1, keepdim=True).values  # the highest index of the best
    ahead = (scores > best) | ((scores == best) & (index > first))
    return ahead.sum(dim=1).cpu() + 1


def feature_ranks(queries: Tensor, gallery: Tensor, positives: Sequence[Sequence[int]]) -> Tensor:
    """`best_ranks` of all queries by cosine, in chunks: the score matrix is never held. [Q, D], [G, D] -> [Q]"""
    chunk = max(1, CHUNK_SCORES // len(gallery))
    ranks = torch.empty(len(queries), dtype=torch.int64)  # small results among large ones would leave holes in memory
    for start in range(0, len(queries), chunk):
        part = slice(start, start + chunk)
        ranks[part] = best_ranks(queries[part] @ gallery.T, positives[part])
    return ranks


def top_items(scores: Tensor, count: int) -> list[list[int]]:
    """Gallery indices of the best items, best first; of equal scores the higher index first. [Q, G] -> Q lists"""
    flipped = scores.flip(dims=[1]).cpu()  # a stable sort of the flipped row keeps the higher index in front
    order = flipped.sort(dim=1, descending=True, stable=True).indices[:, :count]
    return (scores.shape[1] - 1 - order).tolist()


def recalls(ranks: Sequence[int]) -> dict[str, float]:
    """Recall at 1, 5 and 10 in %: the share of queries with a right answer among the first so many."""
    return {f"r{k}": 100 * sum(rank <= k for rank in ranks) / len(ranks) for k in RECALL_AT}


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, float | int]:
    """Figures of a run's records; empty for no rows.

    Recall at 1, 5 and 10 before and after adaptation in %; for how many queries adaptation brought a right answer to
    the first place (`fixed`) or took it away (`broken`), with the exact McNemar p-value of the two.
    """
    if not rows:
        return {}
    before, after = ([row[key] for row in rows] for key in ("rank_before", "rank"))
    figures = {f"{name}_before": value for name, value in recalls(before).items()} | recalls(after)
    return figures | change_figures([rank == 1 for rank in before], [rank == 1 for rank in after])
