"""One run: the task's samples, one after the other, into the run folder's rows and then into a summary."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import closing

from clipscore.config.fields import RunConfig
from scripts.runs.compare_configs import check_finite
from scripts.runs.folder import RunFolder
from scripts.runs.progress import Progress
from scripts.runs.rows import Row, merged
from scripts.runs.summary import SampleError, summarize
from scripts.runs.task import Sample, Task

CARRY_INTERVAL = 64  # samples between two saves of a sequential task's state, and at most what a kill costs it
WAITING_SHARE, WAITING_S = 0.1, 10.0  # of the time, and at least: then the log says that data comes too slowly

log = logging.getLogger(__name__)


def run_task(task: Task, config: RunConfig, folder: RunFolder, environment: Row) -> Row | None:
    """Do what is left of a run, or of this process's shard of it, and finish its folder when all samples are there.

    Returns the summary; None as long as other shards have samples to do. The folder has been entered; `environment` is
    for env.json. Wall times, in s, are in the fields "seconds...".

    Raises ValueError when the folder holds another run's rows, or the data set is empty; SampleError when a sample has
    no result and `on_error` is "stop", or no sample has one; DiskFull.
    """
    if not task.ids:
        raise ValueError(f"the data set {config.dataset!r} has no samples")
    assert len(set(task.ids)) == len(task.ids), "sample ids are unique"
    assert not (task.sequential and folder.shard.is_part), "each sample builds on all before it"
    ids = task.ids[: config.limit]
    own = ids[folder.shard.index :: folder.shard.count]
    written = folder.begin(task.fingerprint, environment, task.about)
    found = merged(_take_up_sequence(task, folder, written) if task.sequential else written)
    rows = {key: found[key] for key in ids if key in found}
    # A sequential task has passed its errors: tried again now, such a sample would meet another state than in its turn.
    todo = [key for key in own if key not in rows or ("error" in rows[key] and not task.sequential)]
    title = f"{config.column}, shard {folder.shard}" if folder.shard.is_part else config.column
    if len(todo) < len(own):
        log.info("%s: %d of %d samples are done already", title, len(own) - len(todo), len(own))
    if todo:
        with closing(Progress(task, title, rows, len(ids), folder.num_rows_elsewhere)) as progress:
            for row in _adapt_samples(task, config, todo, title):
                folder.append(row)
                rows[row["id"]] = row
                progress.show()
                if task.sequential and (len(rows) % CARRY_INTERVAL == 0 or len(rows) == len(ids)):
                    folder.save_carry(len(rows), task.state_dict())
    is_last = folder.lock.is_last()
    if folder.shard.is_part:
        rows = merged(folder.rows())
    present = [rows[key] for key in ids if key in rows]
    if not is_last or len(present) < len(ids):
        text = "%s done, %d of %d samples in the run; the summary is written by the last shard"
        log.info(text, title, len(present), len(ids))
        return None
    summary = summarize(task, config, present)
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
    folder.own.keep(count)
    if count:
        task.load_state_dict(state)
    return written[:count]


def _adapt_samples(task: Task, config: RunConfig, todo: list[str], title: str) -> Iterator[Row]:
    """The row of each sample; in the end a warning if most of the time went by waiting for data."""
    waited, start = 0.0, time.perf_counter()
    asked = start
    for key, sample in zip(todo, task.samples(todo), strict=True):
        waiting = time.perf_counter() - asked
        assert sample.id == key, f"sample {sample.id} came in the place of {key}"
        waited += waiting
        yield _adapt_sample(task, sample, config.on_error) | {"seconds_waiting": round(waiting, 4)}
        asked = time.perf_counter()
    elapsed = asked - start
    if waited > WAITING_S and waited > WAITING_SHARE * elapsed:
        log.warning(
            "%s: %.0f%% of the time went by waiting for data; more reader processes shorten that: num_workers=N, "
            "now %d, on %d CPU cores",
            title, 100 * waited / elapsed, config.num_workers, os.cpu_count() or 1,
        )  # fmt: skip


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
