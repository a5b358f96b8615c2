"""torchrun for people: `python -m scripts.torchrun --standalone --nproc-per-node=N -m scripts.run ...`.

torchrun's own log and traceback are left out, and the exit code is that of the process that failed first.
"""

import logging
import signal
import sys
from collections.abc import Sequence

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

SPEAK_FOR_THEMSELVES = (1, 2, 128 + signal.SIGINT, 128 + signal.SIGTERM)  # exit codes of scripts/run.py


def main(arguments: Sequence[str] | None = None) -> int:
    logging.disable(logging.CRITICAL)
    try:
        run.main(arguments)
    except (SignalException, KeyboardInterrupt) as stop:  # the second before torchrun has started the processes
        return 128 + getattr(stop, "sigval", signal.SIGINT)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode  # minus the number of a signal
        if code not in SPEAK_FOR_THEMSELVES:
            why = f"process {rank} of torchrun ended with exit code {code} (-9 for example when memory ran out)"
            more = "so the others were stopped; the same command goes on from here"
            print(f"error: {why}, {more}", file=sys.stderr)
        return code if code > 0 else 128 - code
    return 0


if __name__ == "__main__":
    sys.exit(main())
