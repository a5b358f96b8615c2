"""A run's article: what must be known first, its figures, charts and settings."""

from __future__ import annotations

import json
from collections.abc import Sequence

import yaml

from scripts.report.figures import Figures, Metric
from scripts.report.markup import badge, details, listing, name, table, text, tile
from scripts.report.numbers import NO_VALUE, counted, number, p_value, seconds
from scripts.report.paper import paper_cells
from scripts.report.run_charts import run_charts
from scripts.report.samples import BROKEN, FELL, FIXED, ROSE
from scripts.tables.cells import TOLERANCE, Cell

NUM_LISTED_ERRORS = 20
PAPER_DECIMALS = 2


def run_section(figures: Figures, index: int, num_shown: int) -> str:
    """A run's whole article; its gallery is filled in by page.js."""
    run = figures.run
    kicker = f"{run.config['task']} · {run.column} · seed {run.config.get('seed')}"
    head = f'<p class="kicker">{text(kicker)}</p><h2>{name(run.name)}</h2><p class="badges">{badges(figures)}</p>'
    body = [errors(figures)]
    if figures.samples:
        body += [tiles(figures), metrics_table(figures), run_charts(figures), gallery_frame(figures, index, num_shown)]
    else:
        body.append('<p class="empty">No sample has a record yet.</p>')
    body.append(settings(figures))
    return f'<article id="run-{index}"><header>{head}</header>{"".join(body)}</article>'


def badges(figures: Figures) -> str:
    """What a reader must know before the figures."""
    run, summary, count = figures.run, figures.run.summary, len(figures.samples)
    found = [badge(counted(count, "sample"))]
    if summary is None:
        found.append(badge("unfinished: figures of the samples so far", "warn"))
    elif summary["num_samples"] != count:
        found.append(badge(f"its summary is of {summary['num_samples']:,} samples, this page of all records", "warn"))
    if summary and "partial" in summary:
        found.append(badge(f"partial, {summary['partial']}", "warn"))
    if figures.nothing_moved:
        found.append(badge("nothing moved: no parameter changed in any sample", "bad"))
    if figures.errors:
        found.append(badge(counted(len(figures.errors), "error"), "bad"))
    if run.config.get("method"):
        tuned = run.config.get("tune", "none")
        found.append(badge(run.config["method"] + (f", tunes the {tuned}" if tuned != "none" else "")))
    return "".join(found)


def tiles(figures: Figures) -> str:
    """The first things to look at."""
    found = [_metric_tile(figures.metrics[0])] if figures.metrics else []
    count = len(figures.samples)
    names = [(FIXED, "Fixed"), (BROKEN, "Broken")] if figures.p_value is not None else []
    if figures.reward and figures.run.config["task"] == "captioning":
        names += [(ROSE, "Reward rose"), (FELL, "Reward fell")]
    for key, title in names:
        amount = figures.outcomes.get(key, 0)
        found.append(tile(title, f"{amount:,}", f"{number(100 * amount / count)}% of the samples"))
    rewritten = [not s.same_caption for s in figures.samples.values() if s.same_caption is not None]
    if rewritten:
        found.append(tile("Captions changed", f"{sum(rewritten):,}", f"of {len(rewritten):,}"))
    if figures.p_value is not None:
        found.append(tile("McNemar test", p_value(figures.p_value), "p that fixed and broken are equally likely"))
    if figures.moved:
        mean = sum(figures.moved) / len(figures.moved)
        still = sum(value == 0 for value in figures.moved)
        note = "mean L2 norm of the change" + (f"; {still:,} samples did not move" if still else "")
        found.append(tile("Parameters moved", f"{mean:.3g}", note))
    found.append(tile("Time", seconds(figures.seconds), "per sample"))
    return f'<div class="tiles">{"".join(found)}</div>'


def _metric_tile(metric: Metric) -> str:
    title, _, unit = metric.label.partition(", ")
    unit = "%" if unit == "%" else ""
    value = number(metric.after, metric.decimals) + unit
    if metric.before is None:
        return tile(title, value)
    change = number(metric.after - metric.before, metric.decimals, signed=True)
    return tile(title, value, f"{change} from {number(metric.before, metric.decimals)}{unit} before")


def metrics_table(figures: Figures) -> str:
    """Every metric before and after adaptation, and what the paper has."""
    if not figures.metrics:
        return ""
    table_of_paper, cells = paper_cells(figures.run, len(figures.samples), {m.key: m.after for m in figures.metrics})
    changes = any(m.before is not None for m in figures.metrics)
    heading = ["", *(["before", "after", "change"] if changes else ["value"])]
    heading += ["paper", "ours − paper", "verdict"] if table_of_paper else []
    rows = []
    for m in figures.metrics:
        decimals = PAPER_DECIMALS if m.key in cells else m.decimals
        row = [m.label, number(m.after, decimals)]
        if changes:
            before, change = (None, None) if m.before is None else (m.before, m.after - m.before)
            row.insert(1, NO_VALUE if before is None else number(before, decimals))
            row.append(NO_VALUE if change is None else number(change, decimals, signed=True))
        if table_of_paper:
            row += _beside(cells.get(m.key), table_of_paper.decimals)
        rows.append(row)
    drawn = table("Figures before and after adaptation" if changes else "Figures", heading, rows)
    return drawn + (_paper_note(table_of_paper.title, list(cells.values())) if table_of_paper else "")


def _beside(cell: Cell | None, decimals: int) -> list[str]:
    """The paper's figure, the difference from it, and the verdict."""
    if cell is None or cell.paper is None:
        return [NO_VALUE] * 3
    difference = NO_VALUE if cell.difference is None else number(cell.difference, decimals, signed=True)
    return [number(cell.paper, decimals), difference, cell.verdict]


def _paper_note(title: str, cells: Sequence[Cell]) -> str:
    """Which row of the paper it is, what the verdict means, and which settings are not the row's."""
    others = dict.fromkeys(setting for cell in cells for setting in cell.settings)
    noted = f" Other settings than the row's: {'; '.join(others)}." if others else ""
    return f'<p class="note">{text(f"Paper: {title}, row {cells[0].row}; {TOLERANCE}.{noted}")}</p>'


def gallery_frame(figures: Figures, index: int, num_shown: int) -> str:
    """The place of a run's gallery."""
    total = len(figures.samples)
    which = "all samples" if num_shown == total else f"{num_shown:,} of {total:,} samples"
    how = "" if num_shown == total else ", as many of each outcome as there are, in the order of their ids' hashes"
    return (
        f'<section class="gallery" data-run="{index}" aria-label="{text(f"Samples of {figures.run.name}")}">'
        f'<h3>Samples</h3><p class="note">{text(which + how)}.</p>'
        "<noscript><p>The script inside this page draws the samples; it is switched off.</p></noscript></section>"
    )


def errors(figures: Figures) -> str:
    """The samples that have no result."""
    if not figures.errors:
        return ""
    shown = list(figures.errors.items())[:NUM_LISTED_ERRORS]
    more = f"\n... and {len(figures.errors) - len(shown):,} more" if len(figures.errors) > len(shown) else ""
    lines = "\n".join(f"{key}: {message}" for key, message in shown)
    return details(f"Samples without a result: {len(figures.errors):,}", listing(lines + more))


def settings(figures: Figures) -> str:
    """Configuration, environments and fingerprint, folded."""
    run = figures.run
    config = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True)
    where = {"fingerprint": run.fingerprint, "environments": run.environments}
    return (
        '<section class="settings">'
        + details("Configuration", listing(config))
        + details(f"Environment ({_machines(figures)})", listing(json.dumps(where, indent=2, ensure_ascii=False)))
        + f'<p class="note">Records: {text(run.path)}</p></section>'
    )


def _machines(figures: Figures) -> str:
    found = dict.fromkeys(
        f"{env.get('gpu') or 'CPU'}, torch {env.get('packages', {}).get('torch', '?')}, "
        f"commit {str(env.get('commit') or '?')[:7]}"
        for env in figures.run.environments
    )
    return "; ".join(found) or "not recorded"
