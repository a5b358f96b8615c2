"""Published tables beside ours, the demo's table, and runs against each other: `python -m scripts.tables TABLE`."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from clipscore.cli import DONE, print_text
from clipscore.config.load import roots
from scripts.runs.process import command
from scripts.tables import layout
from scripts.tables.cells import TOLERANCE, fill_table
from scripts.tables.grid import Grid, written
from scripts.tables.paper import FIELD_FILE, PaperTable, find_tables, paper_tables

log = logging.getLogger("scripts.tables")  # __name__ is __main__ under python -m


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.tables",
        description="Published figures beside ours; the demo's tables; or runs compared with the first of them.",
        epilog=f"Everything is computed from the records of the run folders. Of a table: {TOLERANCE}.",
    )
    names = ", ".join([*paper_tables(), *paper_tables(FIELD_FILE), "demo"])
    what = f"{names}, or run folders; behind imagenet_c: severity=N"
    parser.add_argument("what", nargs="+", metavar="TABLE|RUN", help=what)
    parser.add_argument("--output-root", metavar="DIR", help="where the run folders are, if not in output_root")
    parser.add_argument("--format", choices=("markdown", "csv", "latex"), default="markdown")
    parser.add_argument("--json", action="store_true", help="everything that is known about each cell, as JSON")
    parser.add_argument("--long", action="store_true", help="one line per cell, with all its fields (CSV always)")
    parser.add_argument("--tolerance", type=float, metavar="POINTS", help="how large a difference may be")
    args = parser.parse_args(arguments)
    return command(lambda: _print(args))


def _print(args: argparse.Namespace) -> int:
    first, *words = args.what
    tables, words = find_tables(first, words)
    root = Path(args.output_root or roots()["output_root"])
    if args.output_root and not root.is_dir():
        raise FileNotFoundError(f"--output-root {root} is no folder; run folders are looked for in it")
    if first not in {*tables, "demo"}:
        from scripts.tables.compare import compare  # it reads captions, and needs their metrics

        print_text(compare(args.what, root, args.format, args.json))
    elif words:
        raise ValueError(f"one table at a time, or runs without a table; got {' '.join(args.what)}")
    elif first != "demo":
        print_text(_paper_table(tables[first], root, args))
    elif args.json:
        raise ValueError("--json is for published tables and for runs; the demo's tables have --format csv")
    else:
        from scripts.demo.demo_tables import demo_tables  # it imports torch

        print_text(demo_tables([f"output_root={root}"], args.format))
    return DONE


def _paper_table(table: PaperTable, root: Path, args: argparse.Namespace) -> str:
    rows = fill_table(table, root, args.tolerance)
    cells = [cell for row in rows for cell in row]
    if not any(cell.num_samples for cell in cells):
        where = f"{root} (--output-root, RLCF_OUTPUT or configs/paths.yaml name another folder)"
        how = f"`bash scripts/tables/{table.key}.sh 0` runs all of it, one cell: `{cells[0].command}`"
        log.warning("no run of %s in %s; %s", table.key, where, how)
    records = [layout.record(table, cell) for cell in cells]
    if args.json:
        return json.dumps(records, indent=1, ensure_ascii=False)
    if args.format == "csv":
        return written(Grid(list(records[0]), [list(record.values()) for record in records]), "csv")
    grid = (layout.long if args.long else layout.compact)(table, rows, args.tolerance)
    title = f"% {table.title}\n" if args.format == "latex" else f"{table.title}\n\n"
    return title + written(grid, args.format, aligned=True)


if __name__ == "__main__":
    sys.exit(main())
