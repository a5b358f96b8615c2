"""The doctor's look into every image of a data set."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from clipscore.data.images import UnreadableImage, open_image
from scripts.doctor.checks import Check, wrong


def check_images(title: str, paths: Sequence[Path]) -> Check:
    """Decode every image, in as many processes as there are cores.

    Args:
        title: for the progress bar.
        paths: of the images.
    """
    bar = tqdm(total=len(paths), desc=title, unit="image", file=sys.stderr, disable=not sys.stderr.isatty())
    num_processes = min(os.cpu_count() or 1, 1 + len(paths) // 100)
    faults = []
    # An interrupt is for this process alone, which ends the others.
    with bar, multiprocessing.Pool(num_processes, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        for fault in pool.imap(_fault, paths, chunksize=50):
            faults += [fault] if fault else []
            bar.update()
    if faults:
        return wrong(f"decoded: {len(faults):,} of {len(paths):,} images are unreadable", *faults)
    return Check(f"decoded: all {len(paths):,} images")


def _fault(path: Path) -> str | None:
    try:
        open_image(path)
    except UnreadableImage as error:
        return str(error)
    return None
