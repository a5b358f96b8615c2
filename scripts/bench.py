"""What an episode costs at the paper's sizes, with random weights: `python -m scripts.bench TASK [options]`.

TASK is classification, retrieval or captioning; `python -m scripts.bench TASK --help` lists its options. No weights or
data are needed: what a step costs does not depend on their values.
"""

from __future__ import annotations

import logging
import sys

from scripts import bench_captioning, bench_classification, bench_retrieval

BENCHES = {
    "classification": bench_classification.main,
    "retrieval": bench_retrieval.main,
    "captioning": bench_captioning.main,
}


def main(words: list[str]) -> int:
    """Run the bench of the task that the first word names; returns the exit code."""
    task = words[0] if words else ""
    if task not in BENCHES:
        print(__doc__, file=sys.stderr)
        return 0 if task in {"-h", "--help"} else 2
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    logging.getLogger("scripts").setLevel(logging.INFO)
    return BENCHES[task](words[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
