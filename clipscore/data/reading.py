"""Reading in other processes, which send through shared memory where there is enough of it, else through pipes."""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.utils.data import Dataset

SHARED_MEMORY = Path("/dev/shm")
ENOUGH_SHARED_MEMORY = 1536 << 20  # bytes: two images of 64 augmixed views on their way from each of 16 readers
ANSWER_S = 55  # a reader that is silent for so long has stopped
# Readers never touch the GPU, so a fork is safe, and the quickest to start; Python 3.14 would choose another way.
START_METHOD = "fork" if sys.platform == "linux" else "forkserver"

log = logging.getLogger(__name__)


def free_shared_memory() -> int:
    """Bytes; where there is no such place, the system has other means."""
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else sys.maxsize


def reader_context(module: str) -> Any:
    """How processes start that only read; `module` has what they run."""
    context: Any = multiprocessing.get_context(START_METHOD)
    if START_METHOD == "forkserver":
        context.set_forkserver_preload([module])
    return context


def read_in_background(
    dataset: Dataset[Any],
    num_items: int,
    num_workers: int,
    collate: Callable[[Any], Any] | None = None,
    device: str = "cpu",
    **batches: Any,
) -> Iterator[Any]:
    """The items of a data set in their order, or batches of them that `collate` makes, read by other processes.

    Args:
        dataset: what is read.
        num_items: there are no more processes than these, or than cores.
        num_workers: processes; 0 reads in this one.
        collate: a list of items -> a batch.
        device: kind of the one that they go to; for "cuda" they are pinned, so that no copy is waited for.
        batches: batch_size or batch_sampler of a DataLoader; neither gives item by item.

    Raises:
        RuntimeError: a process died, or is silent.
    """
    from torch.utils.data import DataLoader  # so that the doctor starts quickly

    workers = min(num_workers, num_items, os.cpu_count() or 1)
    through_pipes = workers > 0 and _through_pipes()
    options: dict[str, Any] = {"collate_fn": functools.partial(_sent, collate, through_pipes)}
    if workers:
        options |= {"multiprocessing_context": reader_context(type(dataset).__module__), "timeout": ANSWER_S}
    options |= {"num_workers": workers, "pin_memory": device == "cuda"}
    loader = DataLoader(dataset, **(batches or {"batch_size": None}), **options)
    try:
        for item in loader:
            yield pickle.loads(item) if through_pipes else item
    except (RuntimeError, ConnectionError, FileNotFoundError, EOFError) as error:  # also of the pipes of one that died
        if not workers or str(error).startswith("Caught "):  # an error of the data set's own
            raise
        reason = (str(error).strip().splitlines() or ["no reason given"])[-1]
        raise RuntimeError(
            f"a process that reads died, or was silent for {ANSWER_S} s ({reason}); fewer of them take less memory: "
            f"num_workers=N, now {workers}, and 0 reads in the main process; the same command goes on from here"
        ) from error


@functools.cache
def _through_pipes() -> bool:
    """Whether shared memory is too small, as in a container with Docker's 64 MB; said once."""
    free = free_shared_memory()
    if free < ENOUGH_SHARED_MEMORY:
        text = "%.0f MB of shared memory are free (%s), so pictures come through pipes, which is slower; in Docker: %s"
        log.warning(text, free / 1e6, SHARED_MEMORY, "--shm-size=2g")
    return free < ENOUGH_SHARED_MEMORY


def _sent(collate: Callable[[Any], Any] | None, through_pipes: bool, items: Any) -> Any:
    """What a reader sends: torch itself would put tensors into shared memory, but knows nothing of those in bytes."""
    made = items if collate is None else collate(items)
    return pickle.dumps(made) if through_pipes else made
