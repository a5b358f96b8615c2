"""The paper's tables, from cheap to dear; the first figure that is off ends it, with the most likely cause.

    python -m scripts.reproduce [table1 ...] [--figures FILE] [--samples 500] [key=value ...]

1. zero-shot on the smallest data set, whole (ImageNet-A): weights, prompt, class order and pictures are right;
2. some samples of each row: the methods work;
3. the tables, whole.

A rung that is there is not run again, so the same command goes on; runs of scripts/tables/*.sh count. FILE has the form
of scripts/tables/paper_tables.json. Rows whose weights, prompts or data are missing are named first and left out. Exit
code 0: all is as expected; 1: a rung is off; 2: something is missing.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from clipscore.cli import DONE, REFUSED, USER_ERRORS, print_text
from scripts.reproduce.rungs import Outcome, Rung, climb, ladder, most_likely_cause, plain_cause
from scripts.run import task_class
from scripts.runs.folder import RunFolder, finished_summary
from scripts.runs.process import command, script_parser
from scripts.tables.paper import PAPER_FILE, paper_tables

OFF = 1  # an exit code beside DONE and REFUSED
OWN = {"dataset", "direction", "limit", "name", "shard"}  # what the ladder sets itself
log = logging.getLogger("scripts.reproduce")  # __name__ is __main__ under python -m


def main(arguments: Sequence[str] | None = None) -> int:
    parser = script_parser("reproduce", __doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="tables (default: all), and key=value for every run")
    parser.add_argument("--figures", type=Path, default=PAPER_FILE, metavar="FILE", help="the expected figures")
    parser.add_argument("--samples", type=int, default=500, metavar="N", help="of each row on the second rung")
    args = parser.parse_args(arguments)
    return command(lambda: _reproduce(args))


def _reproduce(args: argparse.Namespace) -> int:
    words = [word for word in args.words if "=" in word]
    tables = paper_tables(args.figures)
    asked = [word for word in args.words if "=" not in word] or list(tables)
    if unknown := ", ".join(sorted({*asked} - {*tables})):
        raise ValueError(f"{args.figures} has no {unknown}; there are: {', '.join(tables)}; and key=value")
    if set_here := OWN & {word.partition("=")[0] for word in words}:
        raise ValueError(f"each rung has its own {', '.join(sorted(set_here))}; see --samples and --figures")
    missing: dict[str, str] = {}
    steps = ladder([tables[key] for key in asked], args.samples, lambda rung: _is_ready(rung, words, missing))
    code = _climb_all(steps, words)
    for text, rung in missing.items():
        log.warning("left out: %s: %s", rung, text)
    return code or (REFUSED if missing else DONE)


def _is_ready(rung: Rung, words: Sequence[str], missing: dict[str, str]) -> bool:
    """Whether a rung is there, or nothing that its run needs is missing; else that is said, the same thing once."""
    config = rung.config(words)
    try:
        if finished_summary(config) is None:
            task_class(config).check(config)
            RunFolder(config).check()
    except USER_ERRORS as error:
        if str(error) not in missing:
            missing[str(error)] = f"{rung.table.key}, {rung.row.label}, {config.column}"
            log.warning("left out: %s, and whatever else needs it: %s", missing[str(error)], error)
        return False
    return True


def _climb_all(steps: Sequence[tuple[str, list[Rung]]], words: Sequence[str]) -> int:
    for number, (title, rungs) in enumerate(steps, start=1):
        print_text(f"{number}. {title}")
        for rung in rungs:
            outcome = climb(rung, words)
            cause, is_off = plain_cause(rung, outcome, rung.config(words)), outcome.distance > 1
            print_text(f"{'✗' if cause or is_off else '✓'} {describe(rung, outcome)}")
            if cause or is_off:
                cause = cause or most_likely_cause(rung, outcome, words)
                print_text(f"  most likely: {cause.text}\n  what to do: {cause.advice}")
                return OFF
    print_text("all that was run is as expected")
    return DONE


def describe(rung: Rung, outcome: Outcome) -> str:
    """A rung in a line: its row, its run, and its figures beside the expected ones."""
    figures = {
        column.key: f"{value:.{rung.table.decimals}f} (expected {expected} ± {allowed:.2f})"
        for column, value, expected, allowed in outcome.figures
    }
    shown = [f"{c.label} {c.metric} {figures.get(c.key, 'not computed')}" for c in rung.columns]
    return f"{rung.table.key}, {rung.row.label}, {outcome.num_samples:,} samples: {', '.join(shown)}"


if __name__ == "__main__":
    sys.exit(main())
