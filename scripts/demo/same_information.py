"""What does the gradient add over asking the teacher? `python -m scripts.demo.same_information [key=value ...]`.

Best of K, the votes of the reward model, distillation and RLCF in three tunings, on the demo's shifted digits: the same
views, the same reward model, paired tests against best of K. A run that was stopped goes on.
"""

import sys

from clipscore.cli import DONE
from scripts.demo.benchmark import command_line, make_tables
from scripts.demo.demo_tables import SAME_INFORMATION
from scripts.runs.process import command


def _same_information() -> int:
    make_tables([SAME_INFORMATION], command_line(__doc__).parse_args().words, full=True)
    return DONE


if __name__ == "__main__":
    sys.exit(command(_same_information))
