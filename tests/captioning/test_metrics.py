"""Figures of captioning runs, worked out by hand."""

import pytest

from captioning import metrics
from clipscore.metrics.captions import CaptionScores

ROWS = [
    {"id": "a", "caption": "a dog", "references": ["one dog"], "rewards": [[0.25, 0.75], [0.5, 1.0], [0.75, 1.0]]},
    {"id": "b", "caption": "", "references": ["two", "2"], "rewards": [[0.5, 0.5], [0.0, 0.0], [0.25, 0.25]]},
]


@pytest.mark.parametrize(("rows", "gain", "non_empty"), [(ROWS[:1], 37.5, 100), (ROWS[1:], -25, 0), (ROWS, 6.25, 50)])
def test_the_gain_is_from_the_first_step_to_the_last_and_empty_captions_are_counted(rows, gain, non_empty):
    assert (metrics.reward_gain(rows), metrics.non_empty(rows)) == (pytest.approx(gain), non_empty)


@pytest.mark.parametrize("num_steps", [1, 3])
def test_the_summary_is_exact_and_has_a_gain_where_there_are_steps(monkeypatch, caplog, num_steps):
    monkeypatch.setattr(metrics, "score_captions", lambda *_: CaptionScores({"cider": 10.00049}, {}, ["a note"]))
    rows = [{**row, "rewards": row["rewards"][:num_steps]} for row in ROWS]
    summary = metrics.summarize(rows, {}, ["cider"], None, "stop")
    assert summary == {"cider": 10.00049, "non_empty": 50} | ({"reward_gain": 6.25} if num_steps > 1 else {})
    assert "metrics of caption: a note" in caplog.text
