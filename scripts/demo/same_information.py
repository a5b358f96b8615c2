"""What does the gradient add over asking the teacher? `python -m scripts.demo.same_information [key=value ...]`.

Best of K, the votes of the reward model, distillation and RLCF in three tunings, on the demo's shifted digits: the same
views, the same reward model, paired tests against best of K. A run that was stopped goes on.
"""

import sys
from collections.abc import Sequence

from clipscore.cli import DONE
from scripts.demo.benchmark import make_tables
from scripts.demo.demo_runs import SAME_INFORMATION
from scripts.runs.process import command


def main(words: Sequence[str]) -> int:
    """Make the runs and print the table; `words` are overrides for all of them. Returns the exit code."""
    if {"-h", "--help"} & set(words):
        print(f"{__doc__}\nkeys that fit every method: limit, seed, output_root, pretrained_root, device")
        return DONE
    return command(lambda: _make(words))


def _make(words: Sequence[str]) -> int:
    make_tables([SAME_INFORMATION], words, full=True)
    return DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
