"""The reward engine: one CLIP behind one face, the CLIP reward, and the policy gradient that it drives."""

import os
import platform
import sys
from types import TracebackType


def _explain_missing(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """One sentence where a package cannot be imported, or torchvision was built against another torch; exit code 2."""
    if "--debug" in sys.argv or not (issubclass(kind, ImportError) or "torchvision::" in str(error)):
        return sys.__excepthook__(kind, error, trace)
    where = f"{sys.executable}, Python {platform.python_version()}"
    mend = "python -m pip install -r requirements.txt -c constraints.txt (Python 3.11 or newer), or take .venv"
    print(f"error: {error} ({where}): {mend}", file=sys.stderr)
    raise SystemExit(2)


if sys.argv[0] == "-m":  # one of the commands is about to start
    sys.excepthook = _explain_missing
    for _name in ("stdout", "stderr"):  # None where whoever started this has closed it
        setattr(sys, _name, getattr(sys, _name) or open(os.devnull, "w"))  # noqa: SIM115
