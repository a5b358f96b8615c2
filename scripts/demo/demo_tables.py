"""The demo's tables, made from the records of its runs.

`python -m scripts.demo.benchmark` makes the runs and prints the tables; `python -m scripts.tables demo` prints them.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

from clipscore.config.fields import RunConfig
from clipscore.metrics.captions import check_metrics, score_captions
from clipscore.metrics.coco import has_java
from clipscore.metrics.significance import bootstrap_interval, changes, mcnemar_p_value
from clipscore.models.load import load_clip
from scripts.demo.demo_runs import CAPTION_LINES, CAPTIONERS, JUDGE, TABLES, Runs, Table, demo_runs
from scripts.runs.folder import run_path
from scripts.runs.read import Row, open_run
from scripts.runs.samples import read_sample
from scripts.tables.grid import Grid, comma_separated, latex, markdown

CAPTION_COLUMNS = {"BLEU-4": ("bleu", "bleu_4"), "CIDEr": ("cider", "cider"), "CLIPScore": ("clipscore", "clipscore")}
P_LEGEND = "in brackets the p-value against zero-shot (exact McNemar test of the first answers to the same samples)"
CAPTION_LEGEND = (
    "before -> after RLCF, times 100 (BLEU-4 of all captions pooled); in brackets the mean difference per image, with "
    "its 95% bootstrap interval"
)


def read_rows(config: RunConfig) -> dict[str, Row]:
    """The good records of a run, by sample id; none when it has not begun."""
    path = run_path(config)
    return open_run(path).collect(lambda row: row) if (path / "config.yaml").is_file() else {}


def p_value(before: dict[str, Row], after: dict[str, Row]) -> float:
    """Whether the difference of two runs on the same samples is chance (exact McNemar test of the first answers)."""
    assert before.keys() == after.keys(), "the runs saw the same samples"
    was, now = ([read_sample(rows[key]).is_right for key in before] for rows in (before, after))
    return mcnemar_p_value(*changes(was, now))


def table_grid(table: Table, runs: Runs) -> Grid:
    """A table; the p-value against the first method in brackets, "-" for runs on other samples or none."""
    names = [method.name for method in table.methods]
    lines = []
    for line in table.lines:
        base, *others = (read_rows(runs[name, line]) for name in names)
        cells = [*line.cells, str(len(base)), table.show(list(base.values())) if base else "-"]
        for rows in others:
            same = base and rows.keys() == base.keys()
            cells.append(f"{table.show(list(rows.values()))} (p {p_value(base, rows):.1g})" if same else "-")
        lines.append(cells)
    return Grid([*table.heading, "n", *names], lines, len(table.heading), notes=[table.legend])


def caption_cells(rows: Sequence[Row], config: RunConfig, dataset: str, names: Sequence[str]) -> list[str]:
    """Each metric of a run's captions before and after, and the mean difference per image with its 95% interval."""
    metrics = check_metrics([CAPTION_COLUMNS[name][0] for name in names])
    references = {row["id"]: row["references"] for row in rows}
    paths = {row["id"]: Path(config.data_root) / dataset / row["id"] for row in rows}
    judge = load_clip(JUDGE, Path(config.pretrained_root))
    captions = ({row["id"]: row[key] for row in rows} for key in ("caption_before", "caption"))
    before, after = (score_captions(texts, references, metrics, judge, paths) for texts in captions)
    cells = []
    for _, column in map(CAPTION_COLUMNS.__getitem__, names):
        was, now = ([values[column] for values in scores.per_caption.values()] for scores in (before, after))
        difference, low, high = bootstrap_interval(was, now)
        means = f"{before.means[column]:.1f} -> {after.means[column]:.1f}"
        cells.append(f"{means} ({difference:+.1f}, {low:+.1f} to {high:+.1f})")
    return cells


def caption_grid(runs: Runs) -> Grid:
    """The captioning table: CapDec and ClipCap before and after RLCF. BLEU and CIDEr need Java."""
    names = [name for name in CAPTION_COLUMNS if name == "CLIPScore" or has_java()]
    lines = []
    for line, method in itertools.product(CAPTION_LINES, CAPTIONERS):
        config = runs[method.name, line]
        rows = list(read_rows(config).values())
        shown = caption_cells(rows, config, line.dataset, names) if rows else ["-"] * len(names)
        lines.append([*line.cells, method.name, str(len(rows)), *shown])
    return Grid(["scenes", "captioner", "n", *names], lines, 2, notes=[CAPTION_LEGEND])


def demo_tables(words: Sequence[str], form: str = "markdown") -> str:
    """The three tables, from the records that are there; FileNotFoundError: no run has begun.

    `words` are the overrides that the runs were made with; `form` is "markdown", "csv" or "latex".
    """
    runs = demo_runs(words)
    folders = list(map(run_path, runs.values()))
    if not any(map(Path.is_dir, folders)):
        raise FileNotFoundError(f"no run of the demo in {folders[0].parent}; `bash scripts/quickstart.sh` makes them")
    *grids, last = [*(table_grid(table, runs) for table in TABLES), caption_grid(runs)]
    if form == "csv":
        return "\n\n".join(comma_separated(grid.heading, grid.rows) for grid in (*grids, last))
    write = latex if form == "latex" else markdown
    return "\n\n".join(map(write, grids)) + f"\n{'% ' if form == 'latex' else ''}{P_LEGEND}\n\n{write(last)}"
