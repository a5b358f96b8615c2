"""Print what a command is for, on whatever stands for the terminal."""

from __future__ import annotations

import os
import sys

_PLAIN = str.maketrans({"✓": "+", "✗": "x", "–": "-"})  # marks that must not all become question marks


def print_text(text: str) -> None:
    """Print as much of a text as the terminal's encoding can show. A reader that has left (`| head`) is no error."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_PLAIN).encode(encoding, "replace").decode(encoding)
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it closes
