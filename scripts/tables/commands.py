"""The commands that fill a table: `python3 -m scripts.tables.commands table1 GPU [key=value ...]`, one per line.

Nothing but the standard library is needed, so that a list does not wait for an installation.
"""

import shlex
import sys
from collections.abc import Sequence

from scripts.tables.paper import PaperTable, find_tables


def table_commands(table: PaperTable, gpu: str, words: Sequence[str] = ()) -> list[str]:
    """Shell commands that run every row and column of a table, in the order of its rows.

    `gpu` is the number of the CUDA device, several (0,1), or cpu; `words` are `key=value` overrides for all of them.
    ValueError: an override that would take the runs out of the table.
    """
    for word in words:
        if word.startswith("name="):
            raise ValueError(f"{word}: a table finds its runs by their names; output_root=DIR keeps runs apart")
    commands = []
    for run in (run for row in table.rows for run in row.runs):
        datasets = [] if table.reference == "paper" else [f"dataset={','.join(run.datasets)}"]  # the scripts' are those
        command = shlex.join(["bash", run.script, gpu, *run.overrides, *datasets, *words])
        commands.append(f"NPROC=1 {command}" if run.sequential else command)
    return list(dict.fromkeys(commands))


def main(arguments: Sequence[str]) -> int:
    """Print the commands; returns the exit code."""
    key, gpu, *words = arguments
    try:
        tables, words = find_tables(key, words)
        print("\n".join(table_commands(tables[key], gpu, words)))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
