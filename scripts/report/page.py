"""The whole page: template, style, script, sections and data in one file that asks nothing of the network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from scripts.report.cards import gallery
from scripts.report.comparison import groups
from scripts.report.figures import Figures
from scripts.report.markup import name, text
from scripts.report.numbers import counted
from scripts.report.pictures import Pictures
from scripts.report.samples import OUTCOMES
from scripts.report.sections import run_section
from scripts.report.selection import choose
from scripts.report.side_by_side import comparison_section, run_labels

FOLDER = Path(__file__).parent


def render(runs: Sequence[Figures], num_samples: int) -> str:
    """The page of these runs.

    Args:
        runs: their figures.
        num_samples: how many samples the gallery of each shows at most.
    """
    pictures, data, articles = Pictures(), [], []
    for index, figures in enumerate(runs):
        keys = choose({key: sample.outcome for key, sample in figures.samples.items()}, num_samples)
        cards = gallery(figures.run, keys, pictures)
        outcomes = {key: OUTCOMES[key] for key in OUTCOMES if key in {card["outcome"] for card in cards}}
        data.append({"cards": cards, "outcomes": outcomes})
        articles.append(run_section(figures, index, len(keys)))
    compared = "".join(comparison_section(group) for group in groups(runs))
    style, script = ((FOLDER / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    total = sum(len(figures.samples) for figures in runs)
    return _fill(
        (FOLDER / "page.html").read_text(encoding="utf-8"),
        {
            "policy": f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}",
            "title": text(_title(runs)),
            "heading": name(_title(runs)),
            "lead": text(f"{counted(len(runs), 'run')}, {counted(total, 'record')}"),
            "style": style,
            "script": script,
            "nav": _navigation(runs, bool(compared)),
            "comparison": f'<section id="comparison"><h2>Side by side</h2>{compared}</section>' if compared else "",
            "runs": "".join(articles),
            "data": _json({"runs": data, "pictures": pictures.uris}),
        },
    )


def _fill(template: str, parts: dict[str, str]) -> str:
    """Put each part in the place of its {{name}}; what is put in is not looked at again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _digest(content: str) -> str:
    """How a content security policy names the one inline block that it allows."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _json(value: object) -> str:
    """JSON that can stand inside a script element: no text in it can end the element or start a comment."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _title(runs: Sequence[Figures]) -> str:
    names = list(dict.fromkeys(figures.run.name for figures in runs))
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _navigation(runs: Sequence[Figures], compared: bool) -> str:
    if len(runs) == 1:
        return ""
    links = ['<a href="#comparison">Side by side</a>'] if compared else []
    columns = {figures.run.column for figures in runs}
    for index, (figures, label) in enumerate(zip(runs, run_labels(runs), strict=True)):
        title = label if len(columns) == 1 else f"{figures.run.name} on {figures.run.column}"
        links.append(f'<a href="#run-{index}">{text(title)}</a>')
    return f'<nav aria-label="Runs">{"".join(links)}</nav>'
