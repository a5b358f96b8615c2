"""A page to look at runs: `python -m scripts.report RUN [RUN ...] [--output FILE] [--samples 60]`."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from clipscore.cli import DONE
from scripts.report.charts import counted
from scripts.report.figures import Figures
from scripts.report.page import render
from scripts.runs.process import command
from scripts.runs.rows import whole_file
from scripts.runs.samples import open_run

NUM_SAMPLES = 60

log = logging.getLogger("scripts.report")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.report", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: report.html in the first run's folder")
    parser.add_argument("--samples", type=int, default=NUM_SAMPLES, help="shown of each run (default: %(default)s)")
    args = parser.parse_args(arguments)
    return command(lambda: write_report(args.runs, args.output or args.runs[0] / "report.html", args.samples))


def write_report(folders: Sequence[Path], output: Path, num_samples: int = NUM_SAMPLES) -> int:
    """Write the page of these run folders, whole or not at all; the exit code.

    FileNotFoundError: a folder holds no run; ValueError: a record is damaged, or num_samples is negative.
    """
    if num_samples < 0:
        raise ValueError(f"--samples must be 0 or more, got {num_samples}")
    runs = [Figures(open_run(folder)) for folder in folders]
    page = render(runs, num_samples)
    output.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(output) as file:
        file.write(page.encode(errors="backslashreplace"))  # file names that are not UTF-8
    records = counted(sum(len(run.samples) for run in runs), "record")
    log.info("wrote %s: %s, %s, %.1f MB", output.absolute(), counted(len(runs), "run"), records, len(page) / 1e6)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
