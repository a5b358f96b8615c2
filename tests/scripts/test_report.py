"""What the report says against numbers worked out by hand, and what it does with little, odd or hostile input."""

import base64
import io
import itertools
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from classification.views import make_views
from clipscore.clip_model import CLIP_MEAN, CLIP_STD
from clipscore.data.open_image import open_image
from clipscore.data.samples import sample_seed
from scripts.report.__main__ import main, write_report
from scripts.report.cards import choose
from scripts.report.charts import labels, number, p_value, seconds, ticks
from scripts.report.figures import Figures
from scripts.report.page import compare, paper_cells
from scripts.runs.samples import open_run, read_samples
from tests.scripts.report_runs import (
    CAPTION,
    HOSTILE,
    NEW_FIELDS,
    STAGES,
    VIEWS,
    captioning_run,
    classification_run,
    classified,
    retrieval_run,
    write_run,
)
from tests.scripts.synthetic_runs import peak_of


def data_of(page: str) -> dict[str, Any]:
    """The data that the page's script reads."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def cards_of(page: str) -> dict[str, dict[str, Any]]:
    """The cards of the first run, by their ids."""
    return {card["id"]: card for card in data_of(page)["runs"][0]["cards"]}


def page_of(*runs: Path) -> str:
    output = runs[0].parent / "report.html"
    write_report(runs, output, 60)
    return output.read_text(encoding="utf-8")


def metrics_of(figures: Figures) -> dict[str, tuple[float | None, float]]:
    return {metric.key: (metric.before, metric.after) for metric in figures.metrics}


def test_classification_by_hand(tmp_path: Path) -> None:
    figures = Figures(open_run(classification_run(tmp_path / "run")))
    found = metrics_of(figures)
    assert found["accuracy"] == pytest.approx((100 * 2 / 6, 100 * 3 / 6))
    assert found["accuracy_top5"] == pytest.approx((100 * 2 / 6, 100 * 3 / 6))
    assert found["ece"] == found["ece20"] == pytest.approx((100 * (0.5 - 2 / 6), 100 * (0.9 - 0.5)))
    assert found["brier"] == pytest.approx((0.4, 0.2))
    assert figures.outcomes == {"fixed": 2, "broken": 1, "unchanged": 3} and figures.moved == [0.25] * 6
    assert figures.p_value == pytest.approx(1.0)  # 2 of 3 of fair coins, two-sided
    assert figures.reward.mean == pytest.approx([0.675, 0.9]) and figures.loss.mean == [0.5, -0.5]
    assert figures.hits.mean == pytest.approx([100 * 2 / 6, 100 * 3 / 6])
    assert figures.stages == pytest.approx({**STAGES, "waiting": 0.05}) and figures.seconds == pytest.approx(0.1)


def test_retrieval_by_hand(tmp_path: Path) -> None:
    run = retrieval_run(tmp_path / "run")
    figures = Figures(open_run(run))
    assert metrics_of(figures)["r1"] == pytest.approx((100 * 2 / 3, 100 * 2 / 3))
    assert metrics_of(figures)["r5"] == (100, 100)
    assert figures.outcomes == {"fixed": 1, "broken": 1, "unchanged": 1}
    page = page_of(run)
    assert figures.nothing_moved and "nothing moved" in page
    first = cards_of(page)["0.png#0"]
    assert first["query"] == CAPTION
    before, after = first["sides"]
    assert [item["right"] for item in before["items"]] == [False, True, False]  # rank 2 of [0, 1, 2] is item 1
    assert [item["text"] for item in after["items"]] == ["1.png", "0.png", "2.png"]
    assert {candidate["text"]: candidate["steps"] for candidate in first["candidates"]} == {
        "0.png": [[0.5, -0.25, 1], None], "1.png": [[1, 0.25, 1], [1, 0.5, 1]], "2.png": [None, [0, -0.5, 1]],
    }  # fmt: skip


def test_captioning_by_hand(tmp_path: Path) -> None:
    run = captioning_run(tmp_path / "run")
    found = metrics_of(Figures(open_run(run)))
    assert found["clipscore"] == (70.0, 75.5) and found["cider"] == (None, 90.0)
    assert found["reward"] == pytest.approx((0.75, 0.75 + 0.25 / 3))
    page = page_of(run)
    assert "Captions changed</span><b>3</b>" in page
    cards = cards_of(page)
    badges = {"0.png": "reward rose", "1.png": "reward fell", "2.png": "unchanged"}
    assert {key: card["badge"] for key, card in cards.items()} == badges
    assert [side["items"][0]["text"] for side in cards["0.png"]["sides"]] == ["a cat", CAPTION]


def test_cards_of_classification(tmp_path: Path) -> None:
    card = cards_of(page_of(classification_run(tmp_path / "run")))["0.png"]
    assert card["facts"] == [["label", "cat"]]
    assert [(side["right"], side["items"][0]["text"]) for side in card["sides"]] == [(False, HOSTILE), (True, "cat")]
    assert [(view["number"], view["entropy"]) for view in card["views"]] == [(0, 0.25), (2, 0.75)]
    cells = {candidate["text"]: candidate["steps"] for candidate in card["candidates"]}
    # cat: proposed by both views at both steps; 1.0 and 0.8, then 1.2 and 0.8; means of the views 0.75, 0.6, 0.9, 0.9
    assert cells["cat"] == [[0.9, 0.225, 2], [1.0, 0.1, 2]]
    assert cells[HOSTILE] == [[0.5, -0.25, 1], [0.8, -0.1, 2]]


def test_views_are_those_that_the_run_saw(tmp_path: Path) -> None:
    run = classification_run(tmp_path / "run")
    page = page_of(run)
    data, card = data_of(page), cards_of(page)["5.png"]
    picture = open_image(tmp_path / "images/5.png")
    views = make_views(picture, VIEWS["num_views"], 72, sample_seed(3, "mine", "5.png"))
    for view in card["views"]:
        drawn = Image.open(io.BytesIO(base64.b64decode(data["pictures"][view["picture"]].partition(",")[2])))
        views_of_run = [other.permute(1, 2, 0).numpy() * CLIP_STD + CLIP_MEAN for other in views]
        distances = [np.abs(np.asarray(drawn) / 255 - other).mean() for other in views_of_run]
        assert np.argmin(distances) == view["number"] and min(distances) < 0.02


def test_texts_are_never_markup(tmp_path: Path) -> None:
    runs = [classification_run(tmp_path / "a<b>"), retrieval_run(tmp_path / "r"), captioning_run(tmp_path / "c")]
    page = page_of(*runs, classification_run(tmp_path / "d", about={"root": "/<i>", "class_names": [HOSTILE] * 4}))
    assert page.count("<script") == 2 and page.count("</script") == 2
    assert "<img" not in page and "<b>bone" not in page and "a<b>" not in page and "<i>" not in page
    assert HOSTILE in json.dumps(data_of(page)["runs"])


def test_later_records_count_and_errors_are_listed(tmp_path: Path) -> None:
    rows = [classified("0.png", 1, 1), {"id": "1.png", "error": "torn"}, {"id": "2.png", "error": "gone"}]
    rows += [classified("0.png", 1, 0), classified("2.png", 0, 0), classified("5.png", 0, 0)]
    rows += [{"id": "6.png", "error": "unread <able>"}]
    run = classification_run(tmp_path / "run", rows, summary=None)
    with open(run / "rows-0-of-2.jsonl", "w") as shard:  # the reader comes to it before rows.jsonl
        shard.write(json.dumps(classified("1.png", 0, 0)) + "\n")
    with open(run / "rows-1-of-2.jsonl", "w") as shard:
        shard.write(json.dumps({"id": "5.png", "error": "no memory"}) + "\n")
        shard.write(json.dumps(classified("3.png", 0, 0)) + '\n{"id": "4.p')
    figures = Figures(open_run(run))
    assert {key: sample.outcome for key, sample in figures.samples.items()} == {
        "0.png": "fixed", "1.png": "unchanged", "2.png": "unchanged", "3.png": "unchanged", "5.png": "unchanged",
    }  # fmt: skip
    assert figures.errors == {"6.png": "unread <able>"}
    page = page_of(run)
    assert "unfinished" in page and "1 error<" in page and "unread &lt;able&gt;" in page


def test_older_records_and_missing_pictures(tmp_path: Path) -> None:
    for make in (classification_run, retrieval_run, captioning_run):
        run = make(tmp_path / make.__name__ / "run")
        rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
        old = [{key: value for key, value in row.items() if key not in NEW_FIELDS} for row in rows]
        (run / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
        for picture in (run.parent / "images").iterdir():
            picture.unlink()
        page = page_of(run)
        assert "Reward by step" in page
        newer = {"Time by stage", "Accuracy by step", "Recall at 1 by step", "Brier"}
        assert not newer & set(re.findall("[^<>,]+", page))
        data = data_of(page)
        assert data["pictures"] == [] and data["runs"][0]["cards"][0]["picture"] is None


def test_a_run_that_is_not_whole(tmp_path: Path) -> None:
    page = page_of(classification_run(tmp_path / "run", summary={"partial": "6 of 7,500", "num_samples": 4}))
    assert "partial, 6 of 7,500" in page and "its summary is of 4 samples" in page
    assert "No sample has a record yet" in page_of(classification_run(tmp_path / "empty", [], summary=None))


def test_a_run_without_adaptation_has_one_value(tmp_path: Path) -> None:
    same = {"confidence_before": 0.9, "brier_before": 0.2}
    same |= {key: [] for key in ("loss", "selected", "entropy", "candidates", "rewards")}
    rows = [classified("0.png", 0, 0, **same), classified("1.png", 1, 1, **same)]
    rows = [{key: value for key, value in row.items() if key not in ("moved", "step_top1")} for row in rows]
    run = classification_run(tmp_path / "run", rows, method="zero_shot", tune="none")
    assert metrics_of(Figures(open_run(run)))["accuracy"] == (None, 50)
    assert data_of(page_of(run))["runs"][0]["outcomes"] == {"right": "right", "wrong": "wrong"}


def test_comparison_by_hand(tmp_path: Path) -> None:
    base = classification_run(tmp_path / "base", [classified(f"{i}.png", 1, 1 if i < 6 else 0) for i in range(8)])
    other = classification_run(tmp_path / "other", [classified(f"{i}.png", 1, 0) for i in range(1, 9)])
    count, found = compare(Figures(open_run(base)), Figures(open_run(other)))
    assert (count, found.fixed, found.broken) == (7, 5, 0)
    assert found.difference == pytest.approx(5 / 7)
    assert found.p_value == pytest.approx(2 / 2**5)
    assert found.low < 5 / 7 <= found.high <= 1
    page = page_of(base, other)
    assert "Side by side" in page and "5 / 0" in page and "0.062" in page
    assert "seeds" not in page
    seeds = [classification_run(tmp_path / f"s{i}/rlcf", [classified("0.png", 1, i)], seed=i) for i in (0, 1)]
    assert "rlcf: 50.00 ± 70.71 over 2 seeds" in page_of(*seeds)
    assert "Side by side" not in page_of(base, retrieval_run(tmp_path / "r"))


def test_beside_the_paper(tmp_path: Path) -> None:
    run = classification_run(tmp_path / "p/rlcf_prompt", dataset="imagenet_a", lr=0.1)
    page = page_of(run)
    beside = "<td>50.00</td><td>+16.67</td><td>65.45</td><td>−15.45</td><td>partial, 6 of 7,500</td>"
    assert beside in page and "row RLCF, prompt" in page and "lr is 0.1 (the row: 0.007)" in page
    run = open_run(write_run(tmp_path / "demo", "classification", [classified("0.png", 0, 0)], dataset="demo/blur"))
    assert paper_cells(run, read_samples(run)[0]) == (None, {})
    ranks = [1] * 2851 + [5] * 1099 + [10] * 50 + [11] * 1000  # 57.02%, 79% and 80%
    rows = [{"id": str(i), "rank_before": 1, "rank": rank} for i, rank in enumerate(ranks)]
    run = open_run(write_run(tmp_path / "kd", "retrieval", rows, dataset="coco", direction="image_to_text", seed=42))
    cells = paper_cells(run, read_samples(run)[0])[1]
    verdicts = {key: (cell.paper, cell.difference, cell.verdict) for key, cell in cells.items()}
    other = "reproduced with other settings"
    assert verdicts == {"r1": (57.0, 0, other), "r5": (79.0, 0, other), "r10": (86.3, -6.3, "off by -6.3")}


def test_selection_is_balanced_and_does_not_depend_on_the_order() -> None:
    outcomes = {f"{i}": "fixed" if i < 2 else "broken" if i < 50 else "unchanged" for i in range(1000)}
    chosen = choose(outcomes, 12)
    assert Counter(outcomes[key] for key in chosen) == {"fixed": 2, "broken": 5, "unchanged": 5}
    assert choose(dict(reversed(outcomes.items())), 12) == chosen
    assert sorted(choose(outcomes, 2000)) == sorted(outcomes) and choose(outcomes, 0) == []


def test_numbers_and_ticks() -> None:
    assert number(-1234.56, 1) == "−1,234.6" and number(0.04, 1, signed=True) == "0.0"
    assert p_value(1e-9) == "< 0.0001" and seconds(0.0379) == "37.9 ms"
    for low, high in [(200 / 3, 200 / 3 + 1e-14), (0.08, 0.0800001), (-1e9, -1e9 + 1), (0.0, 3e-9), (0, 0), (1.4, 1.6)]:
        marks = ticks(low, high)
        assert all(a < b for a, b in itertools.pairwise(marks)) and len(labels(marks)) == len(marks) > 1


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "is no folder; expected a folder that `python -m scripts.run` wrote" in capsys.readouterr().err
    run = classification_run(tmp_path / "run")
    assert main([str(run), "--samples", "-1"]) == 2
    assert main([str(run), "--output", str(tmp_path / "new/page.html"), "--samples", "2"]) == 0
    assert len(cards_of((tmp_path / "new/page.html").read_text())) == 2
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["page.html"]
    assert main([str(run)]) == 0 and (run / "report.html").is_file()


def test_no_more_is_kept_of_many_records_than_the_page_shows(tmp_path: Path) -> None:
    run = classification_run(tmp_path / "run", [])
    lines = {after: json.dumps(classified("ID", 1, after)) + "\n" for after in (0, 1)}
    with open(run / "rows.jsonl", "w") as file:
        file.writelines(lines[number % 2].replace("ID", f"{number}.png") for number in range(10_000))
    assert peak_of(lambda: page_of(run)) < 30e6  # 18 MB; the records as they are take 60 MB
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "10,000 samples" in page and len(cards_of(page)) == 60
