"""Runs on the same samples side by side; the first is what the others are compared with, sample by sample."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from clipscore.metrics.captions import score_captions
from clipscore.metrics.coco import has_java
from scripts.runs.read import Row, Run, open_run
from scripts.tables.grid import Grid, comma_separated, latex, markdown
from scripts.tables.statistics import Quantity, Sheet, answer_sheet, caption_differences, caption_sheet, keep, paired

PER_IMAGE = ("bleu", "cider")  # metrics that need neither models nor much time
NOTE = "in brackets 95% bootstrap intervals, percentiles of 10,000 draws; McNemar: exact, two-sided, of first answers"


def compare(names: Sequence[str], root: Path, form: str, as_json: bool) -> str:
    """The comparison as text.

    Args:
        names: run folders, or their names under the output root.
        root: the output root.
        form: "markdown", "csv" or "latex".
        as_json: JSON instead, with every number in full.

    Raises:
        FileNotFoundError, ValueError: no run of that name, a damaged one, or runs that cannot be compared.
    """
    runs = [open_run(name if Path(name).is_dir() else root / name) for name in names]
    sheets = comparison(runs)
    titles = _titles(runs)
    if as_json:
        values = [{name: quantity.value for name, quantity in sheet.items()} for sheet in sheets]
        return json.dumps(dict(zip(titles, values, strict=True)), indent=1, ensure_ascii=False)
    quantities = list(dict.fromkeys(name for sheet in sheets for name in sheet))
    if form == "csv":
        pairs = [(name, title, sheet) for name in quantities for title, sheet in zip(titles, sheets, strict=True)]
        rows = [[name, title, json.dumps(sheet[name].value)] for name, title, sheet in pairs if name in sheet]
        return comma_separated(["quantity", "run", "value"], rows)
    lines = [[name, *(sheet[name].text if name in sheet else "-" for sheet in sheets)] for name in quantities]
    grid = Grid(["", *titles], lines, notes=["", NOTE])
    return latex(grid) if form == "latex" else markdown(grid, aligned=True)


def comparison(runs: Sequence[Run]) -> list[Sheet]:
    """For each run what it is, its figures, and those of its differences from the first run.

    Raises:
        ValueError: not the same task, no records, no sample in common with the first run, or another label for one.
    """
    tasks = {str(run.config["task"]) for run in runs}
    if len(tasks) > 1:
        raise ValueError(f"runs of one task expected, got {' and '.join(sorted(tasks))}")
    captions = tasks == {"captioning"}
    all_rows = [run.collect(_keep_captions if captions else keep) for run in runs]
    sheets = []
    for run, rows in zip(runs, all_rows, strict=True):
        if not rows:
            raise ValueError(f"{run.path} has no records yet")
        sheet = {
            "data set": Quantity(run.column, run.column),
            "seed": Quantity(run.config["seed"], str(run.config["seed"])),
            "samples": _samples(run, len(rows)),
        }
        sheet |= caption_sheet(run, rows) | _by_adaptation(rows) if captions else answer_sheet(rows)
        if rows is not all_rows[0]:
            sheet |= _against(runs[0], all_rows[0], run, rows, captions)
        sheets.append(sheet)
    return sheets


def _against(first: Run, base: Mapping[str, Row], run: Run, rows: Mapping[str, Row], captions: bool) -> Sheet:
    """The differences of a run from the first, over the samples that both have."""
    common = [key for key in base if key in rows] if first.column == run.column else []
    if not common:
        raise ValueError(
            f"{run.path.name} ({run.column}) has no sample in common with {first.path.name} ({first.column}); "
            "runs on the same data set are compared, in retrieval in the same direction"
        )
    was, now = ({key: rows_of[key] for key in common} for rows_of in (base, rows))
    relabelled = [key for key in common if was[key].get("label") != now[key].get("label")]
    if relabelled:
        raise ValueError(
            f"{run.path.name} and {first.path.name} have different labels for {len(relabelled):,} of {len(common):,} "
            f"samples, {relabelled[0]} for one; runs on the same data are compared"
        )
    sheet: Sheet = {"samples in common": Quantity(len(common), f"{len(common):,}")}
    if not captions:
        pairs = paired([row["right"] for row in was.values()], [row["right"] for row in now.values()])
        names = {"difference": "difference from the first", "McNemar p": "McNemar p against the first"}
        return sheet | {names.get(name, f"{name} against the first"): pair for name, pair in pairs.items()}
    return sheet | _caption_differences("from the first", was, now)


def _by_adaptation(rows: Mapping[str, Row]) -> Sheet:
    """What adaptation changed, in a captioning run that has kept the captions before it."""
    if not all("caption_before" in row for row in rows.values()):
        return {}
    before = {key: row | {"caption": row["caption_before"]} for key, row in rows.items()}
    return _caption_differences("by adaptation", before, rows)


def _caption_differences(title: str, was: Mapping[str, Row], now: Mapping[str, Row]) -> Sheet:
    if not has_java():
        return {f"difference {title}": Quantity(None, "needs Java: apt-get install default-jre-headless")}
    found = caption_differences(_per_image, was, now)
    return {f"{name} per image, difference {title}": value for name, value in found.items()}


def _per_image(rows: Mapping[str, Row]) -> dict[str, dict[str, float]]:
    captions = {key: row["caption"] for key, row in rows.items()}
    references = {key: row["references"] for key, row in rows.items()}
    scores = score_captions(captions, references, PER_IMAGE).per_caption
    return {key: {name: columns[name] for name in ("bleu_4", "cider")} for key, columns in scores.items()}


def _keep_captions(row: Row) -> Row:
    return {name: row[name] for name in ("caption_before", "caption", "references", "rewards") if name in row}


def _samples(run: Run, count: int) -> Quantity:
    summary = run.summary or {}
    notes = [f"partial: {summary['partial']}"] if "partial" in summary else []
    notes += [f"{summary['num_errors']:,} without a result"] if summary.get("num_errors") else []
    note = f" ({'; '.join(notes)})" if notes else "" if summary else " so far"
    return Quantity(count, f"{count:,}{note}")


def _titles(runs: Sequence[Run]) -> list[str]:
    """Names that tell the runs apart: the config's, else the folder's, else its path."""
    for titles in ([run.name for run in runs], [run.path.name for run in runs]):
        if len(set(titles)) == len(runs):
            return titles
    return [str(run.path) for run in runs]
