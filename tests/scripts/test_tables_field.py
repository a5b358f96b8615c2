"""The field's tables: runs that exist, published figures with their source, and cells filled from records by hand."""

import json
import shlex
import statistics
from dataclasses import replace

import pytest

from clipscore.config.load import REPOSITORY, load_config
from scripts.run import config_class
from scripts.tables.__main__ import main
from scripts.tables.cells import fill_table
from scripts.tables.figures import published_samples
from scripts.tables.paper import FIELD_FILE, PaperRun, paper_tables
from tests import miniatures
from tests.commands import bash
from tests.scripts.synthetic_runs import answers, write_run

PAPER, TABLES = paper_tables(), paper_tables(FIELD_FILE)
LABELS = {  # of the row that a test fills, and the seed that it varies
    "peers": ("TDA", "order_seed"), "fine": ("BoostAdapter", "order_seed"), "rn50": ("ZERO", "seed"),
    "imagenet_c": ("MTA", "seed"), "same_information": ("RLCF, prototypes, ViT-B/16", "seed"),
}  # fmt: skip


def run_of(key: str, label: str) -> PaperRun:
    return next(row for row in TABLES[key].rows if row.label == label).runs[0]


def whole(dataset: str, share: float) -> list[str]:
    size = published_samples("classification", dataset, None) or 0
    return answers(size, round(share * size))


@pytest.mark.parametrize("key", [*PAPER, *TABLES])
def test_every_row_has_a_source_and_a_script_that_runs_it(key):
    assert (REPOSITORY / f"scripts/tables/{key}.sh").is_file()
    table, known = (PAPER | TABLES)[key], {}
    directions = ["direction=image_to_text,text_to_image"] if key == "table2" else []
    for row in table.rows:
        assert row.paper.keys() <= {column.key for column in table.columns}
        assert key in PAPER or bool(row.paper) == bool(row.source), row.label
        for run in row.runs:
            for dataset in run.datasets:
                assert key in TABLES or (run.name, dataset) not in known, "two rows of the paper share a run folder"
                assert known.setdefault((run.name, dataset), run) == run  # rows that share one have the same run
                config = load_config(run.config, run.overrides, config_class, dataset)
                assert (config.name, config.sequential) == (run.name, run.sequential)
            text = (REPOSITORY / run.script).read_text().replace("\\\n", "")
            first, *others = [line for line in text.splitlines() if line.startswith(f"benchmark {run.config} ")]
            words = shlex.split(first)
            assert key in TABLES or (words[2 : words.index("--")], others) == ([*run.datasets, *directions], [])
        for column in table.columns if key in PAPER and row.runs else []:
            assert not column.dataset or row.run_for(column.dataset)


def test_published_figures_that_stand_twice_are_the_same():
    papers = {row.label.removesuffix(", zero-shot"): row.paper for row in PAPER["table1"].rows}
    rows = [*TABLES["peers"].rows, *TABLES["same_information"].rows]
    ours = {row.label.removesuffix(", ViT-L/14"): row.paper for row in rows}
    for label in ("CLIP-ViT-B/16", "CLIP-ViT-L/14", "KD, encoder", "RLCF, prompt", "RLCF, encoder"):
        assert ours[label] == papers[label]
    for row in TABLES["fine"].rows:
        *parts, mean = (row.paper.get(column.key) for column in TABLES["fine"].columns)
        if mean is not None and None not in parts:
            assert statistics.fmean(parts) == pytest.approx(mean, abs=0.0051), row.label


@pytest.mark.parametrize("key", TABLES)
def test_a_value_a_mean_and_a_deviation_over_three_seeds(key, tmp_path, monkeypatch):
    miniatures.as_published(monkeypatch)
    label, word = LABELS[key]
    run = run_of(key, label)
    for dataset in run.datasets:
        for seed, share in enumerate((0.4, 0.5, 0.9)):
            write_run(tmp_path, run.config, [*run.overrides, f"{word}={seed}"], dataset, whole(dataset, share))
    cells = next(cells for cells in fill_table(TABLES[key], tmp_path) if cells[0].row == label)
    for cell in cells:
        assert (cell.ours, cell.deviation) == pytest.approx((60, statistics.stdev((40, 50, 90))), abs=2)
        assert cell.settings == () and len(cell.by_seed) == 3 and cell.num_samples == cell.published
    mean, parts = cells[-1], [cell.by_seed for cell in cells if cell.column.key in cells[-1].column.mean_of]
    means = [statistics.fmean(part[seeds] for part in parts) for seeds in mean.by_seed]
    assert (mean.ours, mean.deviation) == pytest.approx((statistics.fmean(means), statistics.stdev(means)))


def test_a_mean_that_alone_is_published_is_judged_by_our_figures_of_its_parts(tmp_path, monkeypatch):
    miniatures.as_published(monkeypatch)
    row = next(row for row in TABLES["fine"].rows if row.label == "MTA")
    for dataset in row.runs[0].datasets:
        write_run(tmp_path, row.runs[0].config, [], dataset, whole(dataset, 0.4))
    (cells,) = fill_table(replace(TABLES["fine"], rows=[replace(row, paper={"mean": 20.0})]), tmp_path)
    variance = sum(2 * cell.ours * (100 - cell.ours) / cell.num_samples for cell in cells[:-1])
    assert cells[-1].tolerance == pytest.approx(0.005 + 1.96 * variance**0.5 / 10)
    assert cells[-1].verdict.startswith("off by") and cells[0].verdict == "no published figure"


def test_imagenet_c_at_another_severity(stand_in, tmp_path, capsys):
    done = bash("tables/imagenet_c.sh", "cpu", "severity=3", "seed=1", f"output_root={tmp_path}", **stand_in)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == len(TABLES["imagenet_c"].rows) and all("imagenet_c/fog/3," in call for call in calls)
    assert all("seed=1" in call and "severity" not in call for call in calls)
    assert done.returncode == 0 and done.stdout.startswith("ImageNet-C at severity 3: ")
    refused = bash("tables/imagenet_c.sh", "cpu", "severity=9", **stand_in)
    assert refused.returncode == 2 and "error: severity=9: ImageNet-C has the severities 1 to 5" in refused.stderr
    for key, message in {"imagenet_c": "severity=x: ", "fine": "one table at a time"}.items():
        assert main([key, "severity=x"]) == 2 and message in capsys.readouterr().err


def test_the_gradient_against_asking_by_hand(tmp_path, capsys):
    def write(label: str, right: set[int], samples: range, *words: str) -> None:
        run = run_of("same_information", label)
        lines = [json.dumps({"id": str(i), "label": 0, "top5": [int(i not in right)]}) for i in samples]
        write_run(tmp_path, run.config, [*run.overrides, *words], "imagenet_a", lines)

    def shown(*words: str) -> str:
        assert main(["same_information", "--output-root", str(tmp_path), *words]) == 0
        return capsys.readouterr().out

    write("Best of K, ViT-B/16", {0, 1, 2, 3}, range(10))
    write("RLCF, prompt, ViT-B/16", {1, *range(4, 11)}, range(1, 11))  # of 9 in common 6 fixed, 2 broken
    write("Best of K, ViT-L/14", set(range(10)), range(10))
    write("RLCF, prompt, ViT-L/14", set(), range(10), "lr=1e-3")
    cells = {cells[0].row: cells[1] for cells in fill_table(TABLES["same_information"], tmp_path)}
    cell, other = cells["RLCF, prompt, ViT-B/16"], cells["RLCF, prompt, ViT-L/14"]
    assert (cell.baseline, cell.gain, cell.num_common) == ("Best of K, ViT-B/16", pytest.approx(100 * 4 / 9), 9)
    assert cell.p_value == pytest.approx(2 * (1 + 8 + 28) / 2**8) and (other.gain, other.p_value) == (-100, 2 / 2**10)
    assert (cells["KD, encoder, ViT-B/16"].gain, cells["Best of K, ViT-B/16"].baseline) == (None, "")
    text = shown()
    for words in ("| to Best of K, ViT-L/14 ", " +44.44 of 9 (p 0.29) |", "-100.00 of 10* (p 0.002)"):
        assert words in text
    write("Best of K, ViT-B/16", {0}, range(10), "seed=1")
    write("RLCF, prompt, ViT-B/16", {0, 1}, range(10), "seed=1")  # 1 fixed
    found = next(one for one in json.loads(shown("--json")) if one["gain"] and one["row"] == cell.row)
    assert (found["seeds"], found["p_value"], found["common"]) == ("0 1", 1, 9)
    assert found["gain"] == pytest.approx((100 * 4 / 9 + 10) / 2, abs=1e-4)
