"""Runs on the same samples side by side; the first is what the others are compared with, sample by sample."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clipscore.metrics.captions import score_captions
from clipscore.metrics.coco import has_java
from clipscore.metrics.significance import Paired, bootstrap_interval, paired
from scripts.runs.samples import Run, Sample, by_step, open_run, read_sample
from scripts.tables.figures import ECE_BINS, Figures, column
from scripts.tables.grid import Grid, written

PER_IMAGE = ("bleu", "cider")  # metrics that need neither models nor much time
NOTE = "in brackets 95% bootstrap intervals, percentiles of 10,000 draws; McNemar: exact, two-sided, of first answers"
NAMES = {  # of figures; "before" goes into the braces
    "accuracy_top5": "top-5 accuracy{}", "r1": "R@1{}", "r5": "R@5{}", "r10": "R@10{}", "brier": "Brier score{}",
    **{key: f"ECE{{}}, {num_bins} bins, %" for key, num_bins in ECE_BINS.items()},
}  # fmt: skip


class Quantity(NamedTuple):
    """A number of a run, or several that belong together, and how it is shown."""

    value: Any
    text: str


Samples = Mapping[str, Sample]
Sheet = dict[str, Quantity]


def compare(names: Sequence[str], root: Path, form: str, as_json: bool) -> str:
    """The comparison of run folders (or names under `root`) as text: JSON, or "markdown", "csv" or "latex".

    FileNotFoundError, ValueError: no run of that name, a damaged one, or runs that cannot be compared.
    """
    runs = [open_run(name if Path(name).is_dir() else root / name) for name in names]
    sheets = comparison(runs)
    names_in_use = [run.name for run in runs], [run.path.name for run in runs]
    telling = (titles for titles in names_in_use if len(set(titles)) == len(runs))
    titles = next(telling, [str(run.path) for run in runs])
    if as_json:
        values = [{name: quantity.value for name, quantity in sheet.items()} for sheet in sheets]
        return json.dumps(dict(zip(titles, values, strict=True)), indent=1, ensure_ascii=False)
    quantities = list(dict.fromkeys(name for sheet in sheets for name in sheet))
    if form == "csv":
        pairs = [(name, title, sheet) for name in quantities for title, sheet in zip(titles, sheets, strict=True)]
        rows = [[name, title, json.dumps(sheet[name].value)] for name, title, sheet in pairs if name in sheet]
        return written(Grid(["quantity", "run", "value"], rows), form)
    lines = [[name, *(sheet[name].text if name in sheet else "-" for sheet in sheets)] for name in quantities]
    return written(Grid(["", *titles], lines, notes=["", NOTE]), form, aligned=True)


def comparison(runs: Sequence[Run]) -> list[Sheet]:
    """For each run what it is, its figures, and those of its differences from the first run.

    ValueError: not the same task, no records, no sample in common with the first run, or another label for one.
    """
    tasks = {str(run.config["task"]) for run in runs}
    if len(tasks) > 1:
        raise ValueError(f"runs of one task expected, got {' and '.join(sorted(tasks))}")
    found = [(run, run.collect(read_sample)) for run in runs]
    if empty := [run.path for run, samples in found if not samples]:
        raise ValueError(f"{empty[0]} has no records yet")
    first, *others = found
    return [_sheet(*first), *(_sheet(*other) | _against(*first, *other) for other in others)]


def _sheet(run: Run, samples: Samples) -> Sheet:
    """What a run is and its figures: before and after adaptation, calibration, by step."""
    found = list(samples.values())
    sheet = {
        "data set": Quantity(run.column, run.column),
        "seed": Quantity(run.config["seed"], str(run.config["seed"])),
        "samples": Quantity(len(found), f"{len(found):,}{_note(run.summary)}"),
    }
    figures, before = Figures(run, samples), "_before" if run.config["task"] == "captioning" else " before"
    for key, *values in figures.metrics:
        for when, value in zip((before, ""), values, strict=True):
            if value is not None:
                text = format(value, ".4f" if key == "brier" else ".2f")
                sheet[NAMES.get(key, f"{key}{{}}").format(when)] = Quantity(value, text)
    if figures.missing:
        sheet["caption metrics"] = Quantity(None, figures.missing)
    if all(sample.caption_before is not None for sample in found):
        were = {key: sample._replace(caption=sample.caption_before) for key, sample in samples.items()}
        sheet |= _caption_differences("by adaptation", were, samples)
    if column(found, "rank_before") and column(found, "rank"):
        was, now = [sample.was_right for sample in found], [sample.is_right for sample in found]
        sheet |= _changes(paired(was, now), "by adaptation")
    title = "R@1" if run.config["task"] == "retrieval" else "accuracy of the confident views"
    hits = by_step([100 * hit for hit in sample.step_hits] for sample in found)
    rewards = by_step(sample.rewards for sample in found)
    for name, table, form in [(f"{title} before each step", hits, ".1f"), ("mean reward by step", rewards, ".3f")]:
        if table is not None:
            means = table.mean(axis=0).tolist()
            sheet[name] = Quantity(means, " ".join(format(mean, form) for mean in means))
    if moved := column(found, "moved"):
        sheet["samples that moved nothing"] = _count(moved.count(0))
    return sheet


def _changes(found: Paired, by: str) -> Sheet:
    p_value = Quantity(found.p_value, f"{found.p_value:.2g}")
    return {f"fixed {by}": _count(found.fixed), f"broken {by}": _count(found.broken), f"McNemar p {by}": p_value}


def _against(first: Run, base: Samples, run: Run, samples: Samples) -> Sheet:
    """The differences of a run from the first, over the samples that both have."""
    common = [key for key in base if key in samples] if first.column == run.column else []
    if not common:
        pair = f"{run.path.name} ({run.column}) has no sample in common with {first.path.name} ({first.column})"
        raise ValueError(f"{pair}; runs on the same data set are compared, in retrieval in the same direction")
    was, now = ({key: samples_of[key] for key in common} for samples_of in (base, samples))
    if relabelled := [key for key in common if was[key].label != now[key].label]:
        some = f"{len(relabelled):,} of {len(common):,} samples, {relabelled[0]} for one"
        pair = f"{run.path.name} and {first.path.name} have different labels for {some}"
        raise ValueError(f"{pair}; runs on the same data are compared")
    sheet = {"samples in common": _count(len(common))}
    if run.config["task"] == "captioning":
        return sheet | _caption_differences("from the first", was, now)
    found = paired([sample.is_right for sample in was.values()], [sample.is_right for sample in now.values()])
    difference = _interval(*(100 * value for value in found[:3]))
    return sheet | {"difference from the first": difference} | _changes(found, "against the first")


def _caption_differences(title: str, was: Samples, now: Samples) -> Sheet:
    """Mean difference per image with its bootstrap interval."""
    if not has_java():
        return {f"difference {title}": Quantity(None, "needs Java: apt-get install default-jre-headless")}
    references = [{key: sample.references for key, sample in samples.items()} for samples in (was, now)]
    captions = [{key: sample.caption or "" for key, sample in samples.items()} for samples in (was, now)]
    scores = [score_captions(*pair, PER_IMAGE).per_caption for pair in zip(captions, references, strict=True)]
    sheet = {}
    for name in ("bleu_4", "cider"):
        before, after = ([score[key][name] for key in was] for score in scores)
        sheet[f"{name} per image, difference {title}"] = _interval(*bootstrap_interval(before, after))
    return sheet


def _note(summary: Mapping[str, Any] | None) -> str:
    if not summary:
        return " so far"
    notes = [f"partial: {summary['partial']}"] if "partial" in summary else []
    marks = {"errors": "without a result", "unadapted": "answered without adaptation", "truncated": "cut off"}
    notes += [f"{summary[f'num_{key}']:,} {text}" for key, text in marks.items() if summary.get(f"num_{key}")]
    return f" ({'; '.join(notes)})" if notes else ""


def _count(value: int) -> Quantity:
    return Quantity(value, f"{value:,}")


def _interval(value: float, low: float, high: float) -> Quantity:
    return Quantity([value, low, high], f"{value:+.2f} ({low:+.2f} to {high:+.2f})")
