"""A page to look at runs: `python -m scripts.report RUN [RUN ...] [--output FILE] [--samples 60]`."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.report.figures import read_figures
from scripts.report.numbers import counted
from scripts.report.page import render
from scripts.runs.process import messages
from scripts.runs.read import open_run

NUM_SAMPLES = 60

log = logging.getLogger("scripts.report")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.report", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: report.html in the first run's folder")
    parser.add_argument("--samples", type=int, default=NUM_SAMPLES, help="shown of each run (default: %(default)s)")
    args = parser.parse_args(arguments)
    with messages():
        try:
            write_report(args.runs, args.output or args.runs[0] / "report.html", args.samples)
            return 0
        except (ValueError, OSError) as error:
            log.error("error: %s", error)
            return 2


def write_report(folders: Sequence[Path], output: Path, num_samples: int = NUM_SAMPLES) -> None:
    """Write the page of these run folders; the file is there whole or not at all.

    FileNotFoundError: a folder holds no run; ValueError: a record is damaged, or num_samples is negative.
    """
    if num_samples < 0:
        raise ValueError(f"--samples must be 0 or more, got {num_samples}")
    runs = [read_figures(open_run(folder)) for folder in folders]
    page = render(runs, num_samples)
    output.parent.mkdir(parents=True, exist_ok=True)
    draft = output.with_name(output.name + ".part")
    draft.write_text(page, encoding="utf-8", errors="backslashreplace")  # file names that are not UTF-8
    os.replace(draft, output)
    records = counted(sum(len(run.samples) for run in runs), "record")
    log.info("wrote %s: %s, %s, %.1f MB", output.absolute(), counted(len(runs), "run"), records, len(page) / 1e6)


if __name__ == "__main__":
    sys.exit(main())
