"""The whole page: template, style, script, sections and data in one file that asks nothing of the network."""

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from scripts.report.cards import OUTCOMES, Cards, choose
from scripts.report.figures import Figures
from scripts.report.numbers import counted, number, p_value, seconds, short
from scripts.report.pictures import Pictures
from scripts.report.sections import run_section
from scripts.report.side_by_side import comparison_section, groups, run_labels
from scripts.tables.cells import TOLERANCE

FOLDER = Path(__file__).parent


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
        comparisons=[comparison_section(group) for group in groups(runs)],
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
