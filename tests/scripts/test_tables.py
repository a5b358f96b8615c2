"""The paper's tables on records that have exactly the paper's numbers, and on records that have not."""

import csv
import io
import json
import statistics
from pathlib import Path

import pytest

from clipscore.config.load import REPOSITORY
from scripts.tables import figures, layout
from scripts.tables.__main__ import main
from scripts.tables.cells import Cell, fill_table
from scripts.tables.grid import Grid, latex
from scripts.tables.paper import PaperTable, Row, paper_tables
from tests.commands import bash
from tests.scripts import synthetic_runs
from tests.scripts.synthetic_runs import answers, captions, fill_column, fill_row, write_run

TABLES = paper_tables()


def row_of(table: PaperTable, label: str) -> Row:
    return next(row for row in table.rows if row.label == label)


def cell_of(table: PaperTable, root: Path, label: str, key: str, tolerance: float | None = None) -> Cell:
    rows = fill_table(table, root, tolerance)
    return next(cell for cells in rows for cell in cells if (cell.row, cell.column.key) == (label, key))


@pytest.fixture
def one_column(tmp_path):
    """Writes the run of RLCF (encoder) on ImageNet-V2, shifted by some points, and reads its cell."""
    table, row = TABLES["table1"], row_of(TABLES["table1"], "RLCF, encoder")

    def write(shift: float, *words: str) -> Cell:
        fill_column(tmp_path, table, row, row.runs[0], "imagenet_v2", shift=shift, words=words)
        return cell_of(table, tmp_path, row.label, "imagenet_v2")

    return write


@pytest.fixture
def small(monkeypatch):
    """Data sets of as few samples as make every figure of the tables a share of them."""
    for module in (figures, synthetic_runs):
        monkeypatch.setattr(module, "published_samples", lambda task, *_: 10_000 if task == "classification" else 1000)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("key", TABLES)
def test_the_papers_own_numbers_have_a_difference_of_0_in_every_cell(key, tmp_path):
    table = TABLES[key]
    for row in table.rows:
        fill_row(tmp_path, table, row)
    cells = [cell for cells in fill_table(table, tmp_path) for cell in cells]
    assert len(cells) == len(table.rows) * len(table.columns)
    with_runs = [cell for cell in cells if cell.command]
    assert len(with_runs) == {"table1": 17 * 6, "table2": 9 * 12, "table3": 6 * 13}[key]
    assert {(cell.difference, cell.verdict, cell.settings) for cell in with_runs} == {(0, "reproduced", ())}
    assert all(cell.ours == pytest.approx(cell.paper, abs=0.05) for cell in with_runs)
    assert {cell.ours for cell in cells if not cell.command} <= {None}  # MAGIC and DeCap


def test_the_readme_has_the_same_numbers():
    readme = "".join(path.read_text() for path in REPOSITORY.glob("[cr]*/README.md"))
    for table in TABLES.values():
        for row in table.rows:
            if row.runs:
                shown = (f"{row.paper[column.key]:.{table.decimals}f}" for column in table.columns)
                assert " | ".join(shown) in readme, row.label


def test_a_shifted_cell_is_flagged_beyond_the_tolerance_only(one_column, tmp_path):
    cell = one_column(-1.4)  # p = 0.6977, n = 10,000: 0.005 + 196 sqrt(0.6977 * 0.3023 / 10,000 * 2)
    assert cell.tolerance == pytest.approx(0.005 + 1.2730, abs=1e-3)
    assert (cell.difference, cell.verdict) == (-1.4, "off by -1.40")
    assert cell_of(TABLES["table1"], tmp_path, cell.row, "imagenet_v2", 1.5).verdict == "reproduced"
    shown = layout.compact(TABLES["table1"], fill_table(TABLES["table1"], tmp_path))
    assert shown.rows[-3][2:] == ["-", "-", "**-1.40**", "-", "-", "-"]
    assert "- RLCF, encoder, -V2: off by -1.40" in shown.notes


@pytest.mark.usefixtures("small")
def test_zero_shot_has_no_tolerance_for_chance(one_column, tmp_path):
    assert one_column(0.2).verdict == "reproduced"
    table, row = TABLES["table1"], row_of(TABLES["table1"], "CLIP-ViT-B/16, zero-shot")
    fill_row(tmp_path, table, row, shift=0.2)
    cells = next(cells for cells in fill_table(table, tmp_path) if cells[0].row == row.label)
    assert {cell.verdict for cell in cells if cell.column.key != "imagenet_a"} == {"off by +0.20"}


def test_order_seeds_count_as_seeds_where_the_order_decides(tmp_path, one_column):
    table, label, shifts = TABLES["table1"], "RLCF-S-M, encoder", (0.0, 0.3, 0.9)
    row = row_of(table, label)
    for order, shift in enumerate(shifts):
        fill_column(tmp_path, table, row, row.runs[0], "imagenet_v2", shift=shift, words=[f"order_seed={order}"])
    cell = cell_of(table, tmp_path, label, "imagenet_v2")
    assert (tmp_path / "rlcf_s_m_encoder__imagenet_v2__seed0__order2").is_dir()
    assert list(cell.by_seed) == [(0, 0), (0, 1), (0, 2)] and cell.settings == ()
    assert (cell.ours, cell.deviation) == (pytest.approx(70.42 + 0.4), pytest.approx(statistics.stdev(shifts)))
    chance = 196 * (2 * 0.7042 * 0.2958 / 10_000) ** 0.5 * ((1 + 1 / 3) / 2) ** 0.5  # of the paper's run and our mean
    assert cell.tolerance == pytest.approx(0.005 + chance, abs=1e-3)
    assert layout.record(table, cell)["seeds"] == "0 0/order1 0/order2"
    assert layout.compact(table, fill_table(table, tmp_path)).rows[-2][4] == "70.82 ± 0.46"
    one_column(0.0)  # without momentum the order moves nothing: the same run once more
    assert list(one_column(0.3, "order_seed=1").by_seed) == [(0, 0)]
    for order in range(3):  # but decides what a limit takes
        words = ["limit=200", f"order_seed={order}", "seed=7"]
        write_run(tmp_path, row_of(table, "KD, encoder").runs[0].config, words, "imagenet_a", answers(200, 100 + order))
    cell = cell_of(table, tmp_path, "KD, encoder", "imagenet_a")
    assert (cell.verdict, cell.ours, cell.deviation) == ("partial, 200 of 7,500", 50.5, 0.5)


def test_partial_runs_are_said_to_be_partial(tmp_path):
    table = TABLES["table1"]
    rlcf = "configs/classification/rlcf_encoder.yaml"
    error = json.dumps({"id": "x", "error": "cannot be read"})
    write_run(tmp_path, rlcf, ["limit=200"], "imagenet_a", [*answers(200, 100), error], {"num_samples": 200})
    write_run(tmp_path, rlcf, [], "imagenet_r", [])
    rows = fill_table(table, tmp_path)
    cells = {cell.column.key: cell for cell in rows[14]}
    assert cells["imagenet_a"].verdict == "partial, 200 of 7,500"
    assert (cells["imagenet_a"].ours, cells["imagenet_a"].difference) == (50, -23.71)
    assert cells["imagenet_r"].verdict == cells["imagenet"].verdict == "no run"
    assert cells["ood"].verdict == "without -V2, -R, -Sketch" and cells["ood"].ours is None
    assert "-23.71 of 200" in layout.compact(table, rows).rows[-3]
    write_run(tmp_path, rlcf, ["seed=1"], "imagenet_a", answers(7500, 5528), {"num_samples": 7500})
    cell = cell_of(table, tmp_path, "RLCF, encoder", "imagenet_a")
    assert (cell.verdict, list(cell.by_seed)) == ("reproduced", [(1, 0)])  # the whole run alone counts


def test_caption_metrics_are_taken_only_for_the_captions_that_are_there(tmp_path):
    table, config = TABLES["table3"], "configs/captioning/capdec_c2f.yaml"
    summary = {"bleu_4": 20.3, "cider": 41.9, "spice": 12.7}
    path = write_run(tmp_path, config, [], "flickr30k", captions(1000), {"num_samples": 1000} | summary)

    def verdict(metric: str) -> str:
        return cell_of(table, tmp_path, "CapDec + RLCF", f"flickr30k_{metric}").verdict

    assert verdict("cider") == "reproduced" and verdict("refclipscore") == "no refclipscore in the summary"
    (path / "summary.json").write_text(json.dumps({"num_samples": 400} | summary))
    assert verdict("cider") == "the caption metrics are of 400 captions, the records of 1000"
    (path / "summary.json").unlink()
    (path / "rows.jsonl").write_text("\n".join(captions(30)) + "\n")
    assert verdict("cider") == "partial, 30 of 1,000; caption metrics come with the last caption"


def test_other_settings_are_named(one_column, tmp_path):
    cell = one_column(0.0, "lr=1e-4", "views.num_views=32", "num_workers=1")
    assert cell.settings == ("lr is 0.0001 (the row: 1e-05)", "views.num_views is 32 (the row: 64)")
    shown = layout.compact(TABLES["table1"], fill_table(TABLES["table1"], tmp_path))
    assert "0.00*" in shown.rows[-3] and any("lr is 0.0001" in note for note in shown.notes)
    cell = one_column(0.0, "seed=1")  # a seed with other settings is no seed of the row
    assert (cell.verdict, list(cell.by_seed), cell.settings) == ("reproduced", [(1, 0)], ())


@pytest.mark.usefixtures("small")
def test_fewer_reward_models_and_another_metric_model_are_other_settings(tmp_path):
    table, label = TABLES["table1"], "RLCF-S, encoder"
    words = ["reward.models=[{name: ViT-L/14@336px, weight: 10}]"]  # the first of the row's three
    fill_row(tmp_path, table, row_of(table, label), words=words)
    for key in ("imagenet_v2", "ood"):
        cell = cell_of(table, tmp_path, label, key)
        assert cell.verdict == "reproduced with other settings"
        assert "reward.models[1].name is 'absent' (the row: 'RN50x64')" in cell.settings
    table, label = TABLES["table3"], "CapDec + RLCF"
    fill_row(tmp_path, table, row_of(table, label), words=["metric_model=ViT-L/14"])
    cell = cell_of(table, tmp_path, label, "flickr30k_refclipscore")
    assert cell.verdict == "reproduced with other settings"
    assert cell.settings == ("metric_model is 'ViT-L/14' (the row: 'ViT-B/32')",)
    assert cell_of(table, tmp_path, label, "flickr30k_cider").verdict == "reproduced"  # has nothing to do with it


def test_damaged_files_are_named(one_column, tmp_path, capsys):
    one_column(0.0)
    (path,) = tmp_path.iterdir()
    for name, content, message in [
        ("rows.jsonl", "[1]\n", "rows.jsonl, line 1 is damaged"),
        ("summary.json", "{", "summary.json is damaged"),
        ("config.yaml", "task: classification\n", "config.yaml has no dataset and no seed"),
    ]:
        (path / name).write_text(content)
        assert main(["table1", "--output-root", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err


def test_csv_json_and_latex_can_be_parsed(one_column, tmp_path, capsys):
    one_column(-3.0)

    def shown(*words: str) -> str:
        assert main(["table1", "--output-root", str(tmp_path), *words]) == 0
        return capsys.readouterr().out

    lines = list(csv.DictReader(io.StringIO(shown("--format", "csv"))))
    (found,) = [line for line in lines if line["samples"] == "10000"]
    assert len(lines) == 17 * 6 == len(records := json.loads(shown("--json")))
    assert (found["row"], found["dataset"], found["ours"]) == ("RLCF, encoder", "imagenet_v2", "66.77")
    assert records[14 * 6 + 2]["difference"] == -3
    out = shown("--format", "latex")
    body = [line for line in out.splitlines() if line.endswith(r" \\")]
    assert {line.count(" & ") for line in body} == {7} and r"\textbf{-3.00}" in out
    text = latex(Grid(["a_b"], [["100% & #1 ~ ^ {x} \\ $"], ["**1 -> 2 ±**"]]))
    assert r"a\_b \\" in text and r"\textbf{1 $\to$ 2 $\pm$} \\" in text
    assert r"100\% \& \#1 \textasciitilde{} \textasciicircum{} \{x\} \textbackslash{} \$ \\" in text


def test_bad_input_and_nothing_found(tmp_path, capsys):
    assert main(["table2", "--output-root", str(tmp_path)]) == 0
    errors = capsys.readouterr().err
    assert f"no run of table2 in {tmp_path}" in errors and "bash scripts/tables/table2.sh 0" in errors
    for words, message in [
        (["table1", "--output-root", str(tmp_path / "no")], "is no folder"),
        (["table1", "table2"], "one table at a time"),
        (["some_run", "--output-root", str(tmp_path)], "some_run is no folder"),
        (["demo", "--output-root", str(tmp_path)], "no run of the demo in"),
        (["demo", "--json", "--output-root", str(tmp_path)], "the demo's tables have --format csv"),
    ]:
        assert main(words) == 2
        assert message in capsys.readouterr().err


def test_the_script_of_a_table_goes_on_after_a_failure_and_prints_the_table(stand_in, tmp_path):
    done = bash("tables/table2.sh", "cpu", "limit=3", f"output_root={tmp_path}", **stand_in)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 6 + 3 * 2 and all("limit=3" in call and "device=cpu" in call for call in calls)
    assert any("policy=ViT-L/14@336px name=zero_shot_l14_336" in call for call in calls)
    assert all(call.startswith("1 " if "rlcf_s_m" in call else "2 ") for call in calls)  # NPROC
    assert done.returncode == 1 and "| RLCF-S-M " in done.stdout
    errors = done.stderr[done.stderr.index("error: 1 of 12 rows failed") :]
    assert errors.splitlines()[1] == f"  bash scripts/retrieval/rlcf_s_flickr30k.sh cpu limit=3 output_root={tmp_path}"


def test_the_script_of_a_table_lists_its_commands(stand_in, tmp_path):
    listed = [bash(f"tables/table{n}.sh", "1", "--list", "seed=2", **stand_in).stdout.splitlines() for n in (1, 2, 3)]
    assert [len(lines) for lines in listed] == [17, 12, 10]  # eval_*.sh is for CapDec and ClipCap alike
    assert listed[0][1] == "bash scripts/classification/zero_shot.sh 1 policy=ViT-L/14 name=zero_shot_l14 seed=2"
    assert "usage: [NPROC=N] bash " in bash("tables/table1.sh", "--help", **stand_in).stdout
    refusals = {("7b",): "got '7b'", ("1,",): "got '1,'", ("1", "lr"): "got 'lr'", ("1", "name=x"): "by their names"}
    for words, message in refusals.items():
        refused = bash("tables/table1.sh", *words, **stand_in)
        assert refused.returncode == 2 and message in refused.stderr
    assert not (tmp_path / "calls").exists()
