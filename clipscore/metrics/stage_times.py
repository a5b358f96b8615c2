"""Where the time of an episode goes, measured from outside: the method's own code knows nothing of it."""

import functools
import itertools
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

OTHER = "other"  # what is in no watched method
Mark = tuple[str, Any]  # the stage that begins, and when: seconds, or a CUDA event


class StageTimes:
    """Sums up the time spent in watched methods; time in a nested one counts for that one only.

    On CUDA the times are those of the device's work, by events, and nothing waits for them before `take`.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stages = [OTHER]  # that are entered, the innermost last
        self._marks: list[Mark] = []
        self._mark(OTHER)

    def watch(self, owner: Any, method: str, stage: str) -> None:
        """Count the time in `owner.method(...)` for a stage; AttributeError when there is no such method."""
        plain = getattr(owner, method)

        @functools.wraps(plain)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(stage):
                return plain(*args, **kwargs)

        setattr(owner, method, timed)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time in this block for a stage."""
        self.stages.append(name)
        self._mark(name)
        try:
            yield
        finally:
            self.stages.pop()
            self._mark(self.stages[-1])

    def start(self) -> None:
        """Forget what was measured so far."""
        self._marks.clear()
        self._mark(self.stages[-1])

    def take(self) -> dict[str, float]:
        """Seconds in each stage since the last `start` or `take`; waits for the device."""
        self._mark(self.stages[-1])
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        found: defaultdict[str, float] = defaultdict(float)
        for (stage, began), (_, ended) in itertools.pairwise(self._marks):
            found[stage] += began.elapsed_time(ended) / 1000 if self.device.type == "cuda" else ended - began
        self.start()
        return dict(found)

    def _mark(self, stage: str) -> None:
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self.device))
            self._marks.append((stage, event))
        else:
            self._marks.append((stage, time.perf_counter()))
