"""Pictures through image encoders, batch by batch, and how far that is."""

import functools
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from tqdm import tqdm

from clipscore.clip_model import ClipModel
from clipscore.data.images import Pictures, stack
from clipscore.data.open_image import UnreadableImage
from clipscore.data.reading import read_in_background

LOG_INTERVAL_S = 30.0  # between two lines about the progress, where there is no terminal

log = logging.getLogger(__name__)

Encoder = Callable[[ClipModel, Tensor], Tensor]  # a model and images at the pictures' size [B, 3, H, W] -> [B, ...]


@torch.no_grad()
def encode_pictures(
    models: Sequence[ClipModel],
    pictures: Pictures,
    encode: Encoder,
    batch_size: int,
    num_workers: int,
    stop: str | None = None,
    advance: Callable[[int], None] = lambda number: None,
) -> tuple[list[Tensor], dict[int, str], int]:
    """Features of all pictures by M models, on their devices; other processes read the files. -> M x [I, ...]

    Also why pictures cannot be read, whose features are 0, by their number; and how many are truncated. `advance` is
    told how many are done. UnreadableImage: one cannot be read, and `stop`, which follows its sentence, is given.
    """
    collate = functools.partial(stack, size=pictures.size if isinstance(pictures.size, int) else pictures.size.size)
    parts: list[list[Tensor]] = [[] for _ in models]
    faults: dict[int, str] = {}
    num_truncated = 0
    device = models[0].device.type
    batches = read_in_background(pictures, len(pictures), num_workers, collate, device, batch_size=batch_size)
    for number, (batch, of_batch, truncated) in enumerate(batches):
        faults |= {number * batch_size + place: fault for place, fault in of_batch.items()}
        num_truncated += truncated
        if faults and stop is not None:
            raise UnreadableImage(next(iter(faults.values())) + stop)
        for model, encoded in zip(models, parts, strict=True):
            encoded.append(encode(model, batch.to(model.device, model.dtype, non_blocking=True)))
            encoded[-1][list(of_batch)] = 0
        advance(len(batch))
    return [torch.cat(encoded) for encoded in parts], faults, num_truncated


@contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, elsewhere now and then a line in the log; yields what counts so many more."""
    hidden, shown = not sys.stderr.isatty(), time.monotonic()
    with tqdm(desc=title, total=total, initial=done, dynamic_ncols=True, disable=hidden) as bar:

        def advance(number: int) -> None:
            nonlocal done, shown
            done += number
            bar.update(number)
            if hidden and time.monotonic() - shown > LOG_INTERVAL_S:
                shown = time.monotonic()
                log.info("%s: %d of %d", title, done, total)

        yield advance
