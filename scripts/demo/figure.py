"""The demo before and after as a picture, from its records: `python -m scripts.demo.figure > assets/demo.svg`."""

import sys
from collections.abc import Sequence

from jinja2 import Template

from clipscore.cli import print_text
from scripts.demo.demo_runs import BASELINE, CLASSIFICATION, RETRIEVAL, Line, Table, demo_runs
from scripts.demo.demo_tables import read_run
from scripts.tables.figures import column, share

SHOWN = ((CLASSIFICATION, "RLCF encoder", "the digit's name"), (RETRIEVAL, "RLCF", "first place"))
PER_POINT, LEFT, HEIGHT = 4.6, 250, 58  # pixels
PICTURE = Template("""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 780 {{ rows|length * height + 34 }}" role="img" \
font-family="system-ui, sans-serif" font-size="14">
<title>Accuracy before and after RLCF on the demo's test sets</title>
<style>.was{fill:#afb8c1}.now{fill:#0969da}text{fill:#1f2328}.most{stroke:#1f2328;stroke-width:2;stroke-dasharray:3 2}
@media (prefers-color-scheme:dark){.was{fill:#484f58}.now{fill:#58a6ff}text{fill:#e6edf3}.most{stroke:#e6edf3}}</style>
{% for label, was, now, most in rows %}{% set y = loop.index0 * height + 8 %}
<text x="12" y="{{ y + 25 }}">{{ label }}</text>
<rect class="was" x="{{ left }}" y="{{ y }}" width="{{ was * scale }}" height="18" rx="3"/>
<text x="{{ left + was * scale + 6 }}" y="{{ y + 14 }}">{{ "%.1f"|format(was) }}</text>
<rect class="now" x="{{ left }}" y="{{ y + 21 }}" width="{{ now * scale }}" height="18" rx="3"/>
<text x="{{ left + now * scale + 6 }}" y="{{ y + 35 }}">{{ "%.1f"|format(now) }}</text>
<line class="most" x1="{{ left + most * scale }}" x2="{{ left + most * scale }}" y1="{{ y - 3 }}" y2="{{ y + 42 }}"/>
{% endfor %}
{% set y = rows|length * height + 8 %}
<rect class="was" x="{{ left }}" y="{{ y }}" width="18" height="14" rx="3"/><text x="{{ left + 24 }}" y="{{ y + 12 }}">
zero-shot, %</text><rect class="now" x="{{ left + 130 }}" y="{{ y }}" width="18" height="14" rx="3"/>
<text x="{{ left + 154 }}" y="{{ y + 12 }}">RLCF, %</text>
<text x="{{ left + 230 }}" y="{{ y + 12 }}">dashed: the reward model by itself</text>
</svg>""")


def rows_of(table: Table, method: str, what: str, words: Sequence[str]) -> list[tuple[str, float, float, float]]:
    """Of each line with records: what it is, the % of right first answers before, after, and of the reward model."""
    runs = demo_runs(words, [table])

    def right(name: str, line: Line) -> float:
        return share(column(list(read_run(runs[name, line]).values()), "rank"), 1)

    begun = [line for line in table.lines if read_run(runs[method, line])]
    return [
        (f"{', '.join(line.cells)}: {what}", right(BASELINE, line), right(method, line), right("reward model", line))
        for line in begun
    ]


def main(words: Sequence[str]) -> int:
    """Print the picture; `words` are the overrides that the runs were made with."""
    rows = [row for table, method, what in SHOWN for row in rows_of(table, method, what, words)]
    print_text(PICTURE.render(rows=rows, height=HEIGHT, left=LEFT, scale=PER_POINT))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
