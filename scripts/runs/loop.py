"""One run: the task's samples, one after the other, into the run folder's rows and then into a summary."""

from __future__ import annotations

import functools
import itertools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from clipscore.config.fields import RunConfig
from clipscore.data.samples import NoRoom, sample_seed
from scripts.runs.compare_configs import check_finite
from scripts.runs.folder import RunFolder
from scripts.runs.rows import Row, merged
from scripts.runs.shards import Rank
from scripts.runs.summary import SampleError, summarize
from scripts.runs.trackers import log_run

if TYPE_CHECKING:
    from clipscore.task import Task

CARRY_INTERVAL = 64  # samples between two saves of a sequential task's state, and at most what a kill costs it
METRIC_INTERVAL_S, LOG_INTERVAL_S = 2.0, 30.0  # between two looks at the running metric: on a terminal, in a log
METRIC_SHARE = 20  # the running metric may take a twentieth of the time
WAITING_PERCENT, WAITING_S = 10, 10.0  # of the time, and at least: then the log says that data comes too slowly

log = logging.getLogger(__name__)


def run_task(task: Task, config: RunConfig, folder: RunFolder, environment: Row) -> Row | None:
    """Do what is left of a run, or of this process's shard of it, and finish its folder when all samples are there.

    Returns the summary; None as long as other shards have samples to do. ValueError: the entered folder holds another
    run's rows, or the data set is empty; SampleError: a sample has no result and `on_error` is "stop", or none has one.
    """
    if not task.ids:
        raise ValueError(f"the data set {config.dataset!r} has no samples")
    assert len(set(task.ids)) == len(task.ids), "sample ids are unique"
    assert not (task.sequential and folder.shard.count > 1), "each sample builds on all before it"
    order = in_order(task.ids, config)
    ids = order[: config.limit]
    own = ids[folder.shard.index :: folder.shard.count]
    written = folder.begin(task.fingerprint, environment, task.about)
    known = merged(folder.take_up_sequence(task, order) if task.sequential else written)
    rows = {key: known[key] for key in ids if key in known}
    # A sequential task has passed its errors: tried again now, such a sample would meet another state than in its turn.
    todo = [key for key in own if key not in rows or ("error" in rows[key] and not task.sequential)]
    title = f"{config.column}, shard {folder.shard}" if folder.shard.count > 1 else config.column
    if len(todo) < len(own):
        log.info("%s: %d of %d samples are done already", title, len(own) - len(todo), len(own))
    if todo:
        with _progress(task, title, rows, len(ids), folder) as show:
            for row in _adapt_samples(task, config, todo, title):
                folder.own.append(row)
                rows[row["id"]] = row
                show()
                if task.sequential and (len(rows) % CARRY_INTERVAL == 0 or len(rows) == len(ids)):
                    folder.save_carry(len(rows), task.state_dict())
    is_last = folder.lock.is_last()
    if folder.shard.count > 1:
        rows = merged(folder.rows())
    wanted = set(ids)
    present = [rows[key] for key in task.ids if key in rows and key in wanted]
    if not is_last or len(present) < len(ids):
        text = "%s done, %d of %d samples in the run; the summary is written by the last shard"
        log.info(text, title, len(present), len(ids))
        return None
    summary = summarize(task, config, present)
    folder.finish(summary)
    log_run(config, folder.path, summary, present)
    return summary


def in_order(ids: Sequence[str], config: RunConfig) -> list[str]:
    """The samples as they follow each other: shuffled by seed and data set alone, whatever the machine and the number.

    Source: the official loaders shuffle (TPT/tune_cls_rl.py, tpt_cls_rl.py); where data sets are sorted by class, the
    first few would be of a few classes.
    """
    shuffled = functools.partial(sample_seed, config.order_seed, config.dataset)
    return sorted(ids, key=shuffled) if config.order == "shuffled" else list(ids)


def _adapt_samples(task: Task, config: RunConfig, todo: list[str], title: str) -> Iterator[Row]:
    """The row of each sample; in the end a warning if most of the time went by waiting for data."""
    waited, num_truncated, start = 0.0, 0, time.perf_counter()
    asked = start
    stream = zip(todo, task.samples(todo), strict=True)
    while pairs := list(itertools.islice(stream, task.at_once)):
        waiting = (time.perf_counter() - asked) / len(pairs)
        readable = [sample for _, sample in pairs if sample.error is None]
        known = task.adapt_together(readable) if len(readable) == task.at_once > 1 else {}
        for key, sample in pairs:
            assert sample.id == key, f"sample {sample.id} came in the place of {key}"
            waited += waiting
            row = _adapt_sample(task, sample, config.on_error, known.get(key)) | {"seconds_waiting": round(waiting, 4)}
            if getattr(sample, "truncated", False):
                if not num_truncated:
                    text = "%s is cut off, and is read as far as it goes, as others may be: see num_truncated in the "
                    log.warning(text + "summary; strict_images=true takes such pictures as unreadable", sample.id)
                num_truncated += 1
                row["truncated"] = True
            yield row
        asked = time.perf_counter()
    share = 100 * waited / (asked - start)
    if waited > WAITING_S and share > WAITING_PERCENT:
        text = "%s: %.0f%% of the time went by waiting for data; more reader processes shorten that: num_workers=N, "
        log.warning(text + "now %d, on %d CPU cores", title, share, config.num_workers, os.cpu_count() or 1)


def _adapt_sample(task: Task, sample: Any, on_error: str, known: Row | None) -> Row:
    problem = sample.error
    if problem is None:
        try:
            row = known or task.adapt(sample)
            check_finite(row)
            return row
        except (FloatingPointError, NoRoom) as error:
            problem = str(error)
    if on_error == "stop":
        mend = "on_error=skip goes on without such samples"
        raise SampleError(f"{problem}; the rows so far are in the run folder; {mend}")
    log.warning("%s is left out: %s", sample.id, problem)
    return {"id": sample.id, "error": problem}


@contextmanager
def _progress(task: Task, title: str, rows: Mapping[str, Row], total: int, folder: RunFolder) -> Iterator[Callable]:
    """A bar with the running metric on a terminal, elsewhere a line in the log now and then; yields what updates it."""
    hidden = not sys.stderr.isatty() or Rank.of_this_process().index > 0
    interval = LOG_INTERVAL_S if hidden else METRIC_INTERVAL_S
    num_before, num_elsewhere, start = len(rows), 0, time.monotonic()
    due = start + interval

    def show() -> None:
        nonlocal num_elsewhere, due
        now = time.monotonic()
        if is_due := now >= due:
            num_elsewhere = folder.num_rows_elsewhere()
        done = min(len(rows) + num_elsewhere, total)
        bar.update(done - bar.n)
        if is_due and (good := [row for row in rows.values() if "error" not in row]):
            metric = f"{task.progress_metric} {task.progress(good):.2f}"
            bar.set_postfix_str(metric)
            if hidden:
                rate = (len(rows) - num_before + num_elsewhere) / (now - start)
                log.info("%s: %d of %d samples, %s, %.2f samples/s", title, done, total, metric, rate)
        if is_due:
            due = now + max(interval, METRIC_SHARE * (time.monotonic() - now))

    with tqdm(desc=title, total=total, initial=num_before, unit="sample", dynamic_ncols=True, disable=hidden) as bar:
        yield show
