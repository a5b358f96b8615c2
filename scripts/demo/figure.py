"""The demo before and after as a picture, from its records: `python -m scripts.demo.figure > assets/demo.svg`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Template

from clipscore.cli import DONE, print_text
from scripts.demo.demo_tables import BASELINE, CLASSIFICATION, RETRIEVAL, demo_runs, read_run
from scripts.tables.figures import column, share

SHOWN = ((CLASSIFICATION, "RLCF encoder", "the digit's name"), (RETRIEVAL, "RLCF", "first place"))
PER_POINT, LEFT, HEIGHT = 4.6, 250, 58  # pixels


def main(words: Sequence[str]) -> int:
    """Print the picture of the lines with records; `words` are the overrides that the runs were made with."""
    rows = []  # what it is; the % of right first answers before, after, and of the reward model
    for table, method, what in SHOWN:
        runs = demo_runs(words, [table])
        for line in (line for line in table.lines if read_run(runs[method, line])):
            samples = (read_run(runs[name, line]).values() for name in (BASELINE, method, "reward model"))
            rows.append((f"{', '.join(line.cells)}: {what}", *(share(column(one, "rank"), 1) for one in samples)))
    picture = Template(Path(__file__).with_name("figure.svg").read_text(encoding="utf-8"))
    print_text(picture.render(rows=rows, height=HEIGHT, left=LEFT, scale=PER_POINT))
    return DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
