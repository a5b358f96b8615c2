"""One run: the task's samples, one after the other, into the run folder's rows and then into a summary."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable
from typing import Any, Protocol

from tqdm import tqdm

from clipscore.config import RunConfig
from scripts.records import Row, RunFolder, check_finite

CARRY_INTERVAL = 64  # samples between two saves of a sequential task's state, and at most what a kill costs it
METRIC_INTERVAL_S = 2.0  # between two looks at the running metric, on a terminal
LOG_INTERVAL_S = 30.0  # the same in a log file
METRIC_SHARE = 20  # the running metric may take a twentieth of the time
NUM_LISTED_ERRORS = 10

log = logging.getLogger(__name__)


class Sample(Protocol):
    """One test sample on its way from the data set to the task."""

    id: str
    error: str | None  # why it could not be read, as a sentence that names the file


class Task(Protocol):
    """What a task gives the launcher; tasks fit it without importing it."""

    ids: list[str]  # of all samples, in run order
    sequential: bool  # a sample's result depends on the samples before it
    fingerprint: dict[str, str]  # hashes of weights and data
    about: dict[str, Any]  # what a reader of the rows needs to know, e.g. class names
    progress_metric: str  # name of the number that `progress` gives

    def __init__(self, config: Any) -> None: ...

    @classmethod
    def check(cls, config: Any) -> None:
        """Find what is missing for a run, without the cost of building it."""

    def samples(self, ids: list[str]) -> Iterable[Sample]:
        """These samples, in this order."""

    def adapt(self, sample: Sample) -> Row:
        """One sample -> one row that JSON can hold, with "id" and "seconds"."""

    def progress(self, rows: list[Row]) -> float:
        """The running metric, over rows without errors, at least one; asked for again and again, so it is cheap."""

    def summarize(self, rows: list[Row]) -> dict[str, float | int]:
        """Metrics over rows without errors, at least one; asked for once, when all rows are there."""

    def state_dict(self) -> dict[str, Any]:
        """What a sequential task carries from sample to sample."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""


class SampleError(Exception):
    """A sample has no result, and the run is told to stop then."""


class Progress:
    """A progress bar with the running metric on a terminal, now and then a line in the log elsewhere.

    Args:
        task: gives the running metric of the rows.
        title: shown in front.
        rows: those of earlier sessions.
        total: number of samples of the run.
    """

    def __init__(self, task: Task, title: str, rows: Iterable[Row], total: int) -> None:
        rows = list(rows)
        self._task, self._title, self._total = task, title, total
        self._rows = [row for row in rows if "error" not in row]
        hidden = not sys.stderr.isatty()
        self._bar = tqdm(desc=title, total=total, initial=len(rows), unit="sample", dynamic_ncols=True, disable=hidden)
        self._interval = LOG_INTERVAL_S if hidden else METRIC_INTERVAL_S
        self._done, self._num_new = len(rows), 0
        self._start = time.monotonic()
        self._next = self._start + self._interval

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
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
        if now >= self._next and self._rows:
            self._show(now)

    def _show(self, now: float) -> None:
        metric = f"{self._task.progress_metric} {self._task.progress(self._rows):.2f}"
        if self._bar.disable:
            rate = self._num_new / (now - self._start)
            log.info("%s: %d of %d samples, %s, %.2f samples/s", self._title, self._done, self._total, metric, rate)
        self._bar.set_postfix_str(metric)
        cost = time.monotonic() - now
        self._next = now + max(self._interval, METRIC_SHARE * cost)


def run_task(task: Task, config: RunConfig, folder: RunFolder, environment: Row) -> Row:
    """Do what is left of a run and finish its folder.

    Args:
        task: built from `config`.
        config: the run's configuration.
        folder: the run's folder, entered.
        environment: for env.json.

    Returns:
        The summary. Wall times are in the fields that start with "seconds", and in samples_per_second.

    Raises:
        ValueError: the folder holds another run's rows, or the data set is empty.
        SampleError: a sample has no result and `on_error` is "stop", or no sample has one.
    """
    if not task.ids:
        raise ValueError(f"the data set {config.dataset!r} has no samples")
    assert len(set(task.ids)) == len(task.ids), "sample ids are unique"
    ids = task.ids[: config.limit]
    written = folder.begin(task.fingerprint, environment, task.about)
    if task.sequential:
        written = _take_up_sequence(task, folder, written)
    rows = {row["id"]: row for row in written}
    # A sequential task has passed its errors: tried again now, such a sample would meet another state than in its turn.
    todo = [key for key in ids if key not in rows or ("error" in rows[key] and not task.sequential)]
    if written:
        log.info("%s: %d of %d samples are done already", config.column, len(ids) - len(todo), len(ids))
    _adapt_samples(task, config, folder, rows, ids, todo)
    summary = _summarize(task, config, [rows[key] for key in ids])
    folder.finish(summary)
    return summary


def _take_up_sequence(task: Task, folder: RunFolder, written: list[Row]) -> list[Row]:
    """Go back to the last saved state; the rows after it are dropped and will come out the same again."""
    count, state = folder.load_carry()
    if [row["id"] for row in written[:count]] != task.ids[:count]:
        raise ValueError(
            f"{folder.path}: carry.pt was saved after {count} samples, but rows.jsonl does not start with these; "
            "delete the folder"
        )
    folder.keep_rows(count)
    if count:
        task.load_state_dict(state)
    return written[:count]


def _adapt_samples(
    task: Task, config: RunConfig, folder: RunFolder, rows: dict[str, Row], ids: list[str], todo: list[str]
) -> None:
    """Adapt to the samples in `todo`, and put each row into the folder and into `rows`."""
    if not todo:
        return
    num_before = len(rows)
    known = [rows[key] for key in ids if key in rows]
    with Progress(task, config.column, known, len(ids)) as progress:
        for num_done, (key, sample) in enumerate(zip(todo, task.samples(todo), strict=True), start=num_before + 1):
            assert sample.id == key, f"sample {sample.id} came in the place of {key}"
            row = _adapt_sample(task, sample, config.on_error)
            folder.append(row)
            progress.add(row, is_new=key not in rows)
            rows[key] = row
            if task.sequential and num_done % CARRY_INTERVAL == 0:
                folder.save_carry(num_done, task.state_dict())
    if task.sequential:
        folder.save_carry(len(ids), task.state_dict())


def _adapt_sample(task: Task, sample: Sample, on_error: str) -> Row:
    problem = sample.error
    if problem is None:
        try:
            row = task.adapt(sample)
            check_finite(row)
            return row
        except FloatingPointError as error:
            problem = str(error)
    if on_error == "stop":
        raise SampleError(f"{problem}; the rows so far are in the run folder; on_error=skip leaves such samples out")
    log.warning("%s is left out: %s", sample.id, problem)
    return {"id": sample.id, "error": problem}


def _summarize(task: Task, config: RunConfig, rows: list[Row]) -> Row:
    good = [row for row in rows if "error" not in row]
    errors = [row for row in rows if "error" in row]
    if not good:
        raise SampleError(f"none of the {len(rows)} samples has a result; the first: {errors[0]['error']}")
    seconds = sum(row["seconds"] for row in good)
    return {
        "dataset": config.column,
        "name": config.name,
        "num_samples": len(good),
        "num_errors": len(errors),
        "errors": [row["id"] for row in errors[:NUM_LISTED_ERRORS]],
        **task.summarize(good),
        "seconds": round(seconds, 3),
        "seconds_per_sample": round(seconds / len(good), 6),
        "samples_per_second": round(len(good) / seconds, 3) if seconds else 0.0,
    }
