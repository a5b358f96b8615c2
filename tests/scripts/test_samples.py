"""What is read of a record: the rank of the right answer, mean rewards, and what adaptation did."""

from __future__ import annotations

import pytest

from scripts.runs.samples import BEYOND, by_step, read_sample


@pytest.mark.parametrize(
    ("before", "after", "loss", "outcome"),
    [(2, 1, [1], "fixed"), (1, 3, [1], "broken"), (4, 2, [1], "unchanged"), (1, 1, [], "right"), (1, 2, [], "wrong")],
)
def test_outcomes_of_answers(before, after, loss, outcome):
    ranked = read_sample({"rank_before": before, "rank": after, "loss": loss, "step_rank": [before, 1]})
    assert (ranked.outcome, ranked.step_hits) == (outcome, (before == 1, True))
    top5 = {"top5_before": [7] * (before - 1) + [5], "top5": [7] * (after - 1) + [5]}
    assert read_sample({"label": 5, "loss": loss, **top5}).outcome == outcome


def test_what_a_record_lacks():
    rewards = [[[1.0, 0.0], [0.5, 0.5]], [[1.0, 1.0], [1.0, 1.0]]]
    sample = read_sample({"label": 5, "top5": [1, 2, 3, 4, 6], "rewards": rewards})
    assert (sample.rank_before, sample.rank, sample.rewards, sample.moved) == (None, BEYOND, (0.5, 1.0), None)
    assert read_sample({"caption": "a cat", "loss": [0.1], "rewards": [[1.0, 0.5], [1.0, 0.6]]}).outcome == "rose"
    assert read_sample({"caption": "a cat"}).outcome == "plain"
    assert by_step([(1, 2), (3,)]) is None and by_step([]) is None
    assert by_step([(1, 2), (3, 4)]).tolist() == [[1, 2], [3, 4]]
