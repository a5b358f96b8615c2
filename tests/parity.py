"""Replay traces recorded from the official code through the functions that a run uses.

`python -m tests.parity DIR [--only 'A_*,B_*'] [--device cuda] [--json FILE]` prints the largest deviation per trace and
quantity, and exits with 1 when one is over tolerance, or when a trace or a recorded quantity was not replayed.
Everything about a trace (sizes, names, hyper-parameters) is read from its files.
"""

import argparse
import fnmatch
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from torch import Tensor

from tests import (
    parity_caption_metrics,
    parity_captioning,
    parity_classification,
    parity_clip,
    parity_peers,
    parity_retrieval,
)
from tests.golden_files import Golden

TOLERANCE = 1e-8  # absolute, float64; integers must be equal; figures of the caption metrics state their own

Replay = Callable[[Golden, str], dict[str, Any]]

REPLAYS: dict[str | tuple[str, ...], Replay] = {  # by what the traces' names begin with; the first that fits
    ("A_", "B_", "C_"): lambda golden, trace: parity_classification.Replay(golden, trace).run(),
    "D_metrics": parity_retrieval.replay_metrics,
    "D_": lambda golden, trace: parity_retrieval.Replay(golden, trace).run(),
    "E_mapper": parity_captioning.replay_mapper,
    "E_noise": parity_captioning.replay_noise,
    "E_opt_forward": parity_captioning.replay_opt_forward,
    "E_train": parity_captioning.replay_train,
    "E_beam": parity_captioning.replay_beam,
    "E_tta": lambda golden, trace: parity_captioning.Adaptation(golden, trace).run(),
    "G_clip_forward": parity_clip.replay_forward,
    "G_losses": parity_clip.replay_losses,
}


@dataclass(frozen=True)
class Deviation:
    """The largest difference in one recorded quantity; infinite when it was not replayed or has another shape."""

    trace: str
    quantity: str
    value: float
    note: str = ""
    tolerance: float = TOLERANCE

    @property
    def ok(self) -> bool:
        return self.value <= self.tolerance


def replay_trace(golden: Golden, trace: str) -> list[Deviation]:
    """Replay one trace and compare every quantity recorded in it."""
    if trace in parity_caption_metrics.TRACES:
        quantities = parity_caption_metrics.TRACES[trace](golden)
        return [_compare(trace, name, *values) for name, values in quantities.items()]
    is_peer = golden.meta(trace).get("method") in parity_peers.REPLAYS
    prefixed = (function for prefix, function in REPLAYS.items() if trace.startswith(prefix))
    replay, tolerance = (parity_peers.replay, parity_peers.tolerance) if is_peer else (next(prefixed, None), None)
    if replay is None:
        return [Deviation(trace, "(all)", math.inf, "no replay for traces of this kind")]
    ours, recorded = replay(golden, trace), golden.recorded(trace)
    limits = {name: tolerance(name) if tolerance else TOLERANCE for name in recorded}
    return [_compare(trace, name, ours.get(name), values, limits[name]) for name, values in recorded.items()]


def _compare(trace: str, name: str, ours: Any, recorded: np.ndarray, tolerance: float = TOLERANCE) -> Deviation:
    if ours is None:
        return Deviation(trace, name, math.inf, "not replayed")
    ours = ours.detach().cpu().numpy() if isinstance(ours, Tensor) else np.asarray(ours)
    if ours.shape != recorded.shape:
        return Deviation(trace, name, math.inf, f"shape {ours.shape}, recorded {recorded.shape}")
    if np.issubdtype(recorded.dtype, np.integer):
        return Deviation(trace, name, 0.0 if (ours == recorded).all() else math.inf, "integers")
    both_nan = np.isnan(ours) & np.isnan(recorded)  # a place that is empty
    difference = np.where(both_nan, 0.0, np.abs(ours.astype(np.float64) - recorded)).max(initial=0.0)
    return Deviation(trace, name, math.inf if np.isnan(difference) else float(difference), "", tolerance)


def replay_folder(folder: Path, only: str = "*", device: str = "cpu") -> list[Deviation]:
    """Replay every trace of a folder whose name fits one of the comma-separated patterns.

    Raises:
        FileNotFoundError: the folder holds no such trace.
    """
    golden = Golden(folder, device)
    traces = [t for t in golden.traces() if any(fnmatch.fnmatch(t, p.strip()) for p in only.split(","))]
    if not traces:
        raise FileNotFoundError(f"no trace that fits {only!r} in {folder}; there are {golden.traces()}")
    return [deviation for trace in traces for deviation in replay_trace(golden, trace)]


def main(arguments: list[str] | None = None) -> int:
    """Command line; the exit status is 1 when anything deviates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of traces, e.g. tests/golden")
    parser.add_argument("--only", default="*", help="comma-separated patterns of trace names")
    parser.add_argument("--device", default="cpu", help="where the models of the traces A to E are")
    parser.add_argument("--json", type=Path, help="also write the deviations to this file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        deviations = replay_folder(options.folder, options.only, options.device)
    except FileNotFoundError as error:
        parser.error(str(error))
    for trace in dict.fromkeys(d.trace for d in deviations):
        rows = [d for d in deviations if d.trace == trace]
        worst = max(rows, key=lambda d: d.value)
        print(f"{trace}: {'ok' if worst.ok else 'DEVIATES'}, largest {worst.value:.1e} in {worst.quantity}")
        for row in rows:
            print(f"    {'  ' if row.ok else '!!'} {row.quantity:<60} {row.value:.1e} {row.note}")
    failed = [d for d in deviations if not d.ok]
    print(f"{len(deviations)} quantities, {len(failed)} over tolerance; open_clip {open_clip.__version__}")
    if options.json:
        options.json.write_text(json.dumps([vars(d) for d in deviations], indent=1))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
