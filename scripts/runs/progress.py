"""How far a run is: a bar with the running metric on a terminal, now and then a line in the log elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Sequence

from tqdm import tqdm

from scripts.runs.rows import Row
from scripts.runs.shards import Rank
from scripts.runs.task import Task

METRIC_INTERVAL_S = 2.0  # between two looks at the running metric, on a terminal
LOG_INTERVAL_S = 30.0  # the same in a log file
METRIC_SHARE = 20  # the running metric may take a twentieth of the time

log = logging.getLogger(__name__)


class Progress:
    """The bar, or the lines: of a run of `total` samples that has `rows` of earlier sessions already.

    `num_elsewhere` gives the number of rows that other processes have added meanwhile.
    """

    def __init__(self, task: Task, title: str, rows: Sequence[Row], total: int, num_elsewhere: Callable[[], int]):
        self._task, self._title, self._total, self._num_elsewhere = task, title, total, num_elsewhere
        self._rows = [row for row in rows if "error" not in row]
        self._done, self._num_new = len(rows), 0
        hidden = not sys.stderr.isatty() or Rank.of_this_process().index > 0
        self._bar = tqdm(desc=title, total=total, initial=len(rows), unit="sample", dynamic_ncols=True, disable=hidden)
        self._interval = LOG_INTERVAL_S if hidden else METRIC_INTERVAL_S
        self._start = time.monotonic()
        self._next = self._start + self._interval

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()

    def add(self, row: Row, is_new: bool) -> None:
        """Count one more row; `is_new` is false when it takes the place of an earlier error."""
        if "error" not in row:
            self._rows.append(row)
        self._num_new += 1
        if is_new:
            self._done += 1
            self._bar.update()
        now = time.monotonic()
        if now < self._next or not self._rows:
            return
        metric = f"{self._task.progress_metric} {self._task.progress(self._rows):.2f}"
        elsewhere = self._num_elsewhere()
        done = min(self._done + elsewhere, self._total)
        if self._bar.disable:
            rate = (self._num_new + elsewhere) / (now - self._start)
            log.info("%s: %d of %d samples, %s, %.2f samples/s", self._title, done, self._total, metric, rate)
        self._bar.n = done
        self._bar.set_postfix_str(metric)
        self._next = now + max(self._interval, METRIC_SHARE * (time.monotonic() - now))
