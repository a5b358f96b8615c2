"""Figures of captioning runs, worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from captioning import metrics
from clipscore.metrics.captions import CaptionScores

ROWS = [
    {"id": "a", "caption": "a dog", "references": ["one dog"], "rewards": [[0.25, 0.75], [0.5, 1.0], [0.75, 1.0]]},
    {"id": "b", "caption": "", "references": ["two", "2"], "rewards": [[0.5, 0.5], [0.0, 0.0], [0.25, 0.25]]},
]


def test_the_gain_is_from_the_first_step_to_the_last():
    assert metrics.reward_gain(ROWS[:1]) == pytest.approx(37.5)
    assert metrics.reward_gain(ROWS[1:]) == pytest.approx(-25)
    assert metrics.reward_gain(ROWS) == pytest.approx(6.25)


def test_empty_captions_are_counted():
    assert metrics.non_empty(ROWS) == 50
    assert metrics.non_empty(ROWS[:1]) == 100


def test_both_captions_of_an_image_are_scored(monkeypatch, caplog):
    asked = []

    def score(captions, references, names, clip, images, on_error):
        asked.append((captions, references, names, images, on_error))
        return CaptionScores({"bleu_1": 10.00049 * len(asked)}, {}, ["a note"])

    monkeypatch.setattr(metrics, "score_captions", score)
    rows = [{**row, "caption_before": before} for row, before in zip(ROWS, ["a cat", "b"], strict=True)]
    images = {"a": Path("a.png"), "b": Path("b.png")}
    summary = metrics.summarize(rows, images, ["bleu"], None, "skip")
    assert summary == {"bleu_1_before": 10.0, "bleu_1": 20.001, "non_empty": 50, "reward_gain": 6.25}
    references = {"a": ["one dog"], "b": ["two", "2"]}
    assert asked == [
        ({"a": "a cat", "b": "b"}, references, ["bleu"], images, "skip"),
        ({"a": "a dog", "b": ""}, references, ["bleu"], images, "skip"),
    ]
    assert "metrics of caption_before: a note" in caplog.text


def test_without_steps_there_is_no_gain(monkeypatch):
    monkeypatch.setattr(metrics, "score_captions", lambda *_: CaptionScores({"cider": 1.0}, {}))
    rows = [{**row, "rewards": row["rewards"][:1]} for row in ROWS]
    assert metrics.summarize(rows, {}, ["cider"], None, "stop") == {"cider": 1.0, "non_empty": 50}
