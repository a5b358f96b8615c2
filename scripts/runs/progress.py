"""How far a run is: a bar with the running metric on a terminal, now and then a line in the log elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Mapping

from tqdm import tqdm

from scripts.runs.rows import Row
from scripts.runs.shards import Rank
from scripts.runs.task import Task

METRIC_INTERVAL_S = 2.0  # between two looks at the running metric, on a terminal
LOG_INTERVAL_S = 30.0  # the same in a log file
METRIC_SHARE = 20  # the running metric may take a twentieth of the time

log = logging.getLogger(__name__)


class Progress:
    """The bar, or the lines, of a run of `total` samples, whose records are `rows`, those of earlier sessions first.

    `num_elsewhere` gives the number of rows that other processes have added meanwhile.
    """

    def __init__(self, task: Task, title: str, rows: Mapping[str, Row], total: int, num_elsewhere: Callable[[], int]):
        self._task, self._title, self._rows, self._num_elsewhere = task, title, rows, num_elsewhere
        self._num_before, self._elsewhere = len(rows), 0
        hidden = not sys.stderr.isatty() or Rank.of_this_process().index > 0
        self._bar = tqdm(desc=title, total=total, initial=len(rows), unit="sample", dynamic_ncols=True, disable=hidden)
        self.close = self._bar.close
        self._interval = LOG_INTERVAL_S if hidden else METRIC_INTERVAL_S
        self._start = time.monotonic()
        self._next = self._start + self._interval

    def show(self) -> None:
        """Look at the records again."""
        bar, now = self._bar, time.monotonic()
        is_due = now >= self._next
        if is_due:
            self._elsewhere = self._num_elsewhere()
        done = min(len(self._rows) + self._elsewhere, bar.total)
        bar.update(done - bar.n)
        if is_due and (good := [row for row in self._rows.values() if "error" not in row]):
            metric = f"{self._task.progress_metric} {self._task.progress(good):.2f}"
            bar.set_postfix_str(metric)
            if bar.disable:
                rate = (len(self._rows) - self._num_before + self._elsewhere) / (now - self._start)
                log.info("%s: %d of %d samples, %s, %.2f samples/s", self._title, done, bar.total, metric, rate)
            self._next = now + max(self._interval, METRIC_SHARE * (time.monotonic() - now))
