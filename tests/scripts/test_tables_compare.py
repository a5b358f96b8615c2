"""Runs against each other, with every statistic by hand; and what reading 100,000 records costs."""

import json
from pathlib import Path

import pytest

from clipscore.metrics.coco import has_java
from scripts.runs.samples import open_run
from scripts.tables.__main__ import main
from scripts.tables.compare import compare, comparison
from tests.scripts.synthetic_runs import peak_of, write_run

ZERO_SHOT, RLCF = "configs/classification/zero_shot.yaml", "configs/classification/rlcf_encoder.yaml"


def answer(number: int, before: int, after: int, **more: object) -> str:
    """A record of a sample of class 0."""
    tops = {"top5_before": [before, 7], "top5": [after, 0 if number % 2 else 8]}
    return json.dumps({"id": str(number), "label": 0, **tops, **more})


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Zero-shot: samples 0 to 9, the first four right. RLCF: 1 to 10, of which 1 and 4 to 10 are right."""
    base = [answer(i, int(i > 3), int(i > 3)) for i in range(10)]
    more = {"confidence_before": 0.9, "confidence": 0.7, "brier_before": 0.4, "brier": 0.2, "moved": 0.0}
    right = {1, *range(4, 11)}
    other = [answer(i, int(i > 3), int(i not in right), **more, step_top1=[1, 0, i % 2]) for i in range(1, 11)]
    some = {"partial": "10 of 7,500", "num_errors": 2}
    return [
        write_run(tmp_path, ZERO_SHOT, [], "imagenet_a", base, {"num_samples": 10} | some),
        write_run(tmp_path, RLCF, [], "imagenet_a", other),
    ]


def test_classification_by_hand(runs):
    base, other = comparison([open_run(path) for path in runs])
    assert (base["accuracy"].value, base["samples"].text) == (40, "10 (partial: 10 of 7,500; 2 without a result)")
    assert base["top-5 accuracy"].value == pytest.approx(70)  # 0 to 3 at the first place, 5, 7 and 9 at the second
    expected = {
        "samples": 10, "accuracy before": 30, "accuracy": 80, "fixed by adaptation": 7, "broken by adaptation": 2,
        "accuracy of the confident views before each step": [0, 100, 50],
        "ECE before, 15 bins, %": pytest.approx(60), "ECE, 15 bins, %": pytest.approx(10),  # |0.3 - 0.9|, |0.8 - 0.7|
        "ECE before, 20 bins, %": pytest.approx(60), "ECE, 20 bins, %": pytest.approx(10),
        "Brier score before": pytest.approx(0.4), "Brier score": pytest.approx(0.2), "samples that moved nothing": 10,
        "samples in common": 9, "fixed against the first": 6, "broken against the first": 2,
    }  # fmt: skip
    assert {name: other[name].value for name in expected} == expected
    assert other["McNemar p against the first"].value == pytest.approx(2 * (1 + 8 + 28) / 2**8)
    difference, low, high = other["difference from the first"].value
    assert difference == pytest.approx(100 * 4 / 9) and low < 0 < difference < high


def test_formats(runs, tmp_path, capsys):
    names = [path.name for path in runs]
    assert main([*names, "--output-root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["|", "|", "zero_shot", "|", "rlcf_encoder", "|"]
    assert "accuracy,zero_shot,40.0" in compare(names, tmp_path, "csv", False).splitlines()
    assert json.loads(compare(names, tmp_path, "markdown", True))["rlcf_encoder"]["accuracy"] == 80
    assert r"\begin{tabular}{lrr}" in compare(names, tmp_path, "latex", False)


def test_runs_that_cannot_be_compared(runs, tmp_path, capsys):
    elsewhere = write_run(tmp_path, RLCF, [], "imagenet_r", [answer(1, 0, 0)])
    words = ["direction=image_to_text"]
    retrieval = write_run(tmp_path, "configs/retrieval/zero_shot.yaml", words, "coco", ['{"id": "1", "rank": 2}'])
    empty = write_run(tmp_path, RLCF, ["seed=3"], "imagenet_a", [])
    labels = write_run(tmp_path, RLCF, ["seed=4"], "imagenet_a", [answer(1, 0, 0), answer(2, 0, 0, label=5)])
    for other, message in [
        (elsewhere, "has no sample in common with zero_shot__imagenet_a__seed0"),
        (retrieval, "runs of one task expected, got classification and retrieval"),
        (empty, "has no records yet"),
        (labels, "have different labels for 1 of 2 samples, 2 for one"),
    ]:
        assert main([str(runs[0]), str(other)]) == 2
        assert message in capsys.readouterr().err


def test_retrieval_by_hand(tmp_path):
    rows = [{"id": str(i), "rank_before": 2, "rank": rank, "step_rank": [2, 1]} for i, rank in enumerate((1, 1, 6, 20))]
    config, words = "configs/retrieval/rlcf_coco.yaml", ["direction=text_to_image"]
    path = write_run(tmp_path, config, words, "coco", map(json.dumps, rows))
    (sheet,) = comparison([open_run(path)])
    found = [sheet[name].value for name in ("R@1 before", "R@1", "R@5", "R@10", "fixed by adaptation")]
    assert found == [0, 50, 50, 75, 2] and sheet["R@1 before each step"].value == [0, 100]


@pytest.mark.skipif(not has_java(), reason="needs Java")
def test_captioning_by_hand(tmp_path):
    references = ["a red dog runs on green grass", "a dog is running"]
    words = ["a red dog runs on green grass", "two cats", "a red dog runs on green grass", "cars"]

    def write(config: str, captions: list[str]) -> Path:
        rows = [
            {"id": str(i), "caption": text, "references": references if i % 2 == 0 else ["an old car", "a car"]}
            | {"rewards": [[0.5, 1.0], [1.0, 2.0]]}
            for i, text in enumerate(captions)
        ]
        summary = {"num_samples": 4, "bleu_4": 50.0}
        return write_run(tmp_path, config, [], "flickr30k", map(json.dumps, rows), summary)

    base = write("configs/captioning/capdec_c2f.yaml", ["nothing here", "two cats", "none at all", "cars"])
    other = write("configs/captioning/clipcap_c2f.yaml", words)
    first, second = comparison([open_run(base), open_run(other)])
    assert first["bleu_4"].value == 50 and first["mean reward by step"].value == [0.75, 1.5]
    difference, low, high = second["bleu_4 per image, difference from the first"].value
    assert difference == pytest.approx(50, abs=0.5)  # two of four captions went from no match to their reference
    assert 0 <= low < difference < high <= 100.1
    assert second["cider per image, difference from the first"].value[0] > 0


def test_no_more_is_kept_of_many_records_than_the_figures_need(tmp_path, capsys):
    numbers = {"confidence_before": 0.512345, "confidence": 0.61, "brier_before": 0.4, "brier": 0.3, "moved": 0.0123}
    lists = {"loss": [0.01, -0.2, 0], "candidates": [[[300, 301, 302]] * 6] * 3, "rewards": [[[0.5, 1.5, 2]] * 6] * 3}
    lines = [answer(i, int(i % 5 > 0), int(i % 5 > 0), step_top1=[1, 2, 3], **numbers, **lists) for i in range(5000)]
    for config in (RLCF, "configs/classification/kd.yaml"):
        write_run(tmp_path, config, [], "imagenet", lines, {"num_samples": 5000})
    runs = [str(path) for path in sorted(tmp_path.iterdir())]
    for words, shown in ((["table1"], "| ours "), (runs, "5,000")):
        peak = peak_of(lambda words=words: main([*words, "--output-root", str(tmp_path)]))
        out = capsys.readouterr().out
        assert "20.00" in out and shown in out and peak < 25e6  # 10 MB; the records as they are take 100 MB
