"""What is there and what is not: data sets, weights, and the machine, before a run finds out.

    python -m scripts.doctor                          everything that the paper's tables need
    python -m scripts.doctor imagenet_a coco          these data sets
    python -m scripts.doctor table2                   a table's data sets and weights: table1, table2, table3
    python -m scripts.doctor weights                  all weights; also: fine_grained, imagenet_c
    python -m scripts.doctor imagenet_a --deep        also decode every image

Exit code 0: all that was asked for is complete. Paths are those of runs: data_root=DIR, pretrained_root=DIR and
output_root=DIR, else RLCF_DATA, RLCF_PRETRAINED and RLCF_OUTPUT, else configs/paths.yaml. Nothing is downloaded, and
nothing is written.
"""

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from clipscore.cli import print_text
from clipscore.config.load import ROOT_VARIABLES, roots
from scripts.doctor.checks import Check, as_note, check_machine
from scripts.doctor.data import FINE_GRAINED, GROUPS, TABLES, canonical, check_data
from scripts.runs.process import script_parser

COMPLETE, NOT_COMPLETE, INTERRUPTED = 0, 1, 130  # exit codes; 2: an unknown name


def main(arguments: Sequence[str] | None = None) -> int:
    parser = script_parser("doctor", __doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="data sets, table1, table2, table3, weights")
    parser.add_argument("--deep", action="store_true", help="decode every image")
    parser.add_argument("--json", action="store_true", help="the same tree as JSON")
    args = parser.parse_args(arguments)
    names = [word for word in args.names if "=" not in word]
    try:
        given = dict(word.split("=", 1) for word in args.names if "=" in word)
        for key in given.keys() - ROOT_VARIABLES.keys():
            raise ValueError(f"{key}={given[key]}: only {', '.join(ROOT_VARIABLES)} can be given here")
        paths = {key: Path(given.get(key) or path).expanduser() for key, path in roots().items()}
        datasets, tables = asked_for(names)
    except ValueError as error:
        parser.error(str(error))
    logging.disable(logging.WARNING)  # what a partial data set lacks is in its faults, which have a place of their own
    try:
        tree = examine(datasets, tables, paths, not names, args.deep)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        logging.disable(logging.NOTSET)
    is_complete = all(check.passed for check in tree)
    if args.json:
        print_text(json.dumps({"complete": is_complete, "checks": [check.as_json() for check in tree]}, indent=2))
    else:
        lines = [line for check in tree for line in check.as_text()]
        print_text("\n".join([*lines, "complete" if is_complete else "not complete: see ✗ above"]))
    return COMPLETE if is_complete else NOT_COMPLETE


def asked_for(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Data sets, and tables whose weights are wanted; no names mean all tables. ValueError: an unknown name."""
    words = [name.strip().lower().replace("-", "_") for name in names] or list(TABLES)
    named = [(name, word) for name, word in zip(names or words, words, strict=True) if word != "weights"]
    datasets = [dataset for name, word in named for dataset in GROUPS.get(word) or [canonical(name)]]
    tables = list(TABLES) if "weights" in words else [table for table in TABLES if table in words]
    return list(dict.fromkeys(datasets)), tables


def examine(
    datasets: Sequence[str], tables: Sequence[str], paths: dict[str, Path], with_extras: bool, deep: bool
) -> list[Check]:
    """The whole tree: data sets by canonical ids, the weights of tables, the machine, whose faults count with tables.

    `with_extras` also says which data sets are there that no table needs; `deep` decodes every image.
    """
    data_root, weights_root, output_root = (paths[key] for key in ("data_root", "pretrained_root", "output_root"))
    tree = []
    if datasets:
        found = [check_data(name, data_root, deep) for name in datasets]
        extras = _extras(data_root) if with_extras else []
        tree.append(Check(f"data sets in {data_root}", parts=(*found, *extras)))
    if tables:
        from scripts.doctor.weights import check_weights  # slow to import

        tree.append(Check(f"weights in {weights_root}", parts=tuple(check_weights(tables, weights_root, output_root))))
    machine = Check("machine", parts=tuple(check_machine(tables, output_root)))
    return [*tree, machine if tables else as_note(machine)]


def _extras(data_root: Path) -> list[Check]:
    """The fine-grained sets in one line each; ImageNet-C, up to 750,000 images, is looked at only when it is named."""
    notes = []
    for check in (check_data(name, data_root) for name in FINE_GRAINED):
        state = "there" if check.passed else "not whole" if check.parts else "not there"
        notes.append(Check(f"{check.title}: {state}", "ok" if check.passed else "note"))
    more = "ImageNet-C is not looked at; no table needs these: `doctor.sh fine_grained imagenet_c`"
    return [*notes, Check(more, "note")]


if __name__ == "__main__":
    sys.exit(main())
