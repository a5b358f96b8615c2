"""The whole page: template, style, script, sections and data in one file that asks nothing of the network."""

import base64
import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from clipscore.metrics.significance import Paired, bootstrap_interval, paired
from scripts.report.cards import OUTCOMES, Cards, Pictures, choose
from scripts.report.charts import counted, dumbbells, number, p_value, run_charts, seconds, short
from scripts.report.figures import Figures
from scripts.runs.samples import Run, Sample
from scripts.tables import figures as tables
from scripts.tables.cells import TOLERANCE, Cell, run_cell
from scripts.tables.paper import PaperTable, paper_tables

FOLDER = Path(__file__).parent
NUM_LISTED_ERRORS = 20
Interval = tuple[float, float, float]  # a difference, and the ends of its 95% interval


def render(runs: Sequence[Figures], num_samples: int) -> str:
    """The page of these runs, each with `num_samples` samples at most; the template escapes what comes from data."""
    pictures, data, sections = Pictures(), [], []
    on_same_data = len({figures.run.column for figures in runs}) == 1
    links = run_labels(runs) if on_same_data else [f"{figures.run.name} on {figures.run.column}" for figures in runs]
    for figures, link in zip(runs, links, strict=True):
        keys = choose({key: sample.outcome for key, sample in figures.samples.items()}, num_samples)
        cards = Cards(figures.run, pictures).of(keys)
        outcomes = {key: OUTCOMES[key] for key in OUTCOMES if key in {card["outcome"] for card in cards}}
        data.append({"cards": cards, "outcomes": outcomes})
        sections.append({"link": link, **run_section(figures, len(keys))})
    style, script = ((FOLDER / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    names = list(dict.fromkeys(figures.run.name for figures in runs))
    loader = FileSystemLoader(FOLDER)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {f.__name__: f for f in (breakable, counted, number, p_value, seconds, short)}
    # No text in the data can end the script element or start a comment.
    content = json.dumps({"runs": data, "pictures": pictures.uris}, ensure_ascii=False, separators=(",", ":"))
    return environment.get_template("page.html").render(
        policy=f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}",
        title=names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more",
        lead=f"{counted(len(runs), 'run')}, {counted(sum(len(figures.samples) for figures in runs), 'record')}",
        style=Markup(style),
        script=Markup(script),
        comparisons=comparisons(runs),
        runs=sections,
        tolerance=TOLERANCE,
        data=Markup(content.replace("<", "\\u003c")),
    )


def breakable(name: str) -> Markup:
    """A name that may go on in the next line after an underscore or a slash."""
    return Markup(escape(name).replace("_", Markup("_<wbr>")).replace("/", Markup("/<wbr>")))


def _digest(content: str) -> str:
    """How a content security policy names the one inline block that it allows."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def run_section(figures: Figures, num_shown: int) -> dict[str, Any]:
    """What page.html does not read from a run's figures; `num_shown` samples are in the gallery."""
    run, total = figures.run, len(figures.samples)
    order = "as many of each outcome as there are, in the order of their ids' hashes"
    errors = [f"{key}: {message}" for key, message in figures.errors.items()]
    if len(errors) > NUM_LISTED_ERRORS:
        errors[NUM_LISTED_ERRORS:] = [f"... and {len(errors) - NUM_LISTED_ERRORS:,} more"]
    record = {"fingerprint": run.fingerprint, "environments": run.environments}
    paper, cells = paper_cells(run, figures.samples) if figures.metrics else (None, {})
    others = "; ".join(dict.fromkeys(setting for cell in cells.values() for setting in cell.settings))
    machines = dict.fromkeys(
        f"{env.get('gpu') or 'CPU'}, torch {env.get('packages', {}).get('torch', '?')}, "
        f"commit {str(env.get('commit') or '?')[:7]}"
        for env in run.environments
    )
    return {
        "figures": figures,
        "errors": "\n".join(errors),
        "paper": paper,
        "cells": cells,
        "others": f" Other settings than the row's: {others}." if others else "",
        "charts": run_charts(figures),
        "shown": "all samples." if num_shown == total else f"{num_shown:,} of {total:,} samples, {order}.",
        "config": yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True),
        "environment": json.dumps(record, indent=2, ensure_ascii=False),
        "machines": "; ".join(machines) or "not recorded",
    }


def paper_cells(run: Run, samples: Mapping[str, Sample]) -> tuple[PaperTable | None, dict[str, Cell]]:
    """The table of the paper that a run belongs to, and its cells by metric, judged as `scripts.tables` judges them.

    A run is known by the name of its config, or the `name=...` that the table's row has; (None, {}): it is no row.
    """
    dataset, direction = str(run.config["dataset"]), run.config.get("direction")
    for table in (table for table in paper_tables().values() if table.task == run.config["task"]):
        for row in table.rows:
            if (wanted := row.run_for(dataset)) and wanted.name == run.name:
                found = {(0, 0): tables.Figures(run, samples)}
                columns = [c for c in table.columns if (c.dataset, c.direction) == (dataset, direction)]
                return table, {str(c.metric): run_cell(table, row, wanted, c, found) for c in columns}
    return None, {}


def compare(base: Figures, other: Figures) -> tuple[int, Paired | Interval] | None:
    """How many samples two runs on the same data share, and how the second differs on them; None: they share none.

    Captions are neither right nor wrong: of them, the mean reward is compared.
    """
    pairs = [(base.samples[key], sample) for key, sample in other.samples.items() if key in base.samples]
    ranked = [(a.is_right, b.is_right) for a, b in pairs if a.rank is not None and b.rank is not None]
    if ranked:
        return len(ranked), paired(*zip(*ranked, strict=True))
    rewards = [(a.rewards[-1], b.rewards[-1]) for a, b in pairs if a.rewards and b.rewards]
    was, now = zip(*rewards, strict=True) if rewards else ((), ())
    return (len(rewards), bootstrap_interval(was, now)) if rewards else None


def comparisons(runs: Sequence[Figures]) -> list[dict[str, Any]]:
    """A section for the runs of the same task and column, if there are several: a chart, and each against the first."""
    groups: dict[tuple[str, str], list[Figures]] = {}
    for figures in runs:
        groups.setdefault((figures.run.config["task"], figures.run.column), []).append(figures)
    return [_section(group) for group in groups.values() if len(group) > 1]


def _section(group: Sequence[Figures]) -> dict[str, Any]:
    base, labelled = group[0], list(zip(run_labels(group), group, strict=True))
    unit = base.metrics[0].label if base.metrics else ""
    measured = [(label, m.before, m.after) for label, f in labelled for m in f.metrics[:1] if m.label == unit]
    return {
        "run": base.run,
        "chart": dumbbells(measured, unit) if measured else None,
        "rows": [(label, f, None if f is base else compare(base, f)) for label, f in labelled],
        "seeds": _seeds(group),
    }


def _seeds(group: Sequence[Figures]) -> str:
    """Mean and standard deviation over the seeds of a method, of the runs that have seen all samples seen here."""
    most = max(len(figures.samples) for figures in group)
    by_name: dict[str, dict[int, float]] = {}
    for figures in group:
        if figures.metrics and len(figures.samples) == most:
            by_name.setdefault(figures.run.name, {})[figures.run.config["seed"]] = figures.metrics[0].after
    lines = []
    for method, values in by_name.items():
        if len(values) > 1:
            mean, deviation = (number(of(values.values()), 2) for of in (statistics.mean, statistics.stdev))
            lines.append(f"{method}: {mean} ± {deviation} over {len(values)} seeds")
    return "; ".join(lines)


def run_labels(group: Sequence[Figures]) -> list[str]:
    """Names of runs; with the seed, or the folder, where the name alone would not tell them apart."""
    runs = [figures.run for figures in group]
    names, seeded = [run.name for run in runs], [f"{run.name}, seed {run.config.get('seed')}" for run in runs]
    return next((found for found in (names, seeded) if len(set(found)) == len(runs)), [str(run.path) for run in runs])
