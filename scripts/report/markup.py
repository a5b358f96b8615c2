"""Small pieces of HTML. Whatever comes from data goes through `text` here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def text(value: object) -> str:
    """Any value as text that cannot be read as markup."""
    return escape(str(value))


def name(value: object) -> str:
    """A name as text that may go on in the next line after an underscore or a slash."""
    return text(value).replace("_", "_<wbr>").replace("/", "/<wbr>")


def badge(label: str, style: str = "") -> str:
    """A small label."""
    return f'<span class="badge {style}">{text(label)}</span>'


def tile(name: str, value: str, note: str = "") -> str:
    """A figure in large print; all three are texts."""
    foot = f'<span class="note">{text(note)}</span>' if note else ""
    return f'<div class="tile"><span class="name">{text(name)}</span><b>{text(value)}</b>{foot}</div>'


def table(caption: str, heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts; the first cell of a row names it. A wide one scrolls inside its own frame."""
    head = "".join(f'<th scope="col">{text(cell)}</th>' for cell in heading)
    body = "".join(
        f'<tr><th scope="row">{name(first)}</th>{"".join(f"<td>{text(cell)}</td>" for cell in cells)}</tr>'
        for first, *cells in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(caption)}"><table>'
        f"<caption>{text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def figure(title: str, drawing: str, note: str = "", style: str = "") -> str:
    """A chart with its title above and a sentence below; `drawing` is markup."""
    foot = f'<p class="note">{text(note)}</p>' if note else ""
    return f'<figure class="{style}"><figcaption>{text(title)}</figcaption>{drawing}{foot}</figure>'


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """The keys of a chart: (CSS class of the swatch, text)."""
    items = "".join(f'<li><i class="{style}"></i>{text(label)}</li>' for style, label in entries)
    return f'<ul class="legend">{items}</ul>'


def details(title: str, content: str) -> str:
    """Folded content (markup)."""
    return f"<details><summary>{text(title)}</summary>{content}</details>"


def listing(lines: str) -> str:
    """Preformatted text."""
    return f'<pre tabindex="0">{text(lines)}</pre>'
