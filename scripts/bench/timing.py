"""How the benchmarks time two forms of an episode: in turn, in one process, on the same samples.

The plain form does the official code's schedule of work, the fast form is what a run does. The first of the two changes
from sample to sample, so that a machine that slows down favours neither.
"""

import argparse
import copy
import logging
import math
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from clipscore.clip_model import ClipModel
from clipscore.config.load import REPOSITORY
from clipscore.metrics.stage_times import StageTimes
from clipscore.models.backends import open_clip
from clipscore.models.devices import autocast_dtype, choose_device
from clipscore.models.load import build_openai_layout
from scripts.bench.floor import Floor, copy_rate, product_rate, synchronize

log = logging.getLogger(__name__)

FORMS = ("plain", "fast")
GROWING = ("text", "update")  # stages of the plain form whose time is proportional to the number of classes
STEPS = 2  # of a warm-up: plain, the first sees all views, the second the trusted ones, and the optimizer has its state
NOWHERE = {"dataset": "random", "data_root": "", "pretrained_root": "", "output_root": "", "method": "rlcf"}
DEMO = REPOSITORY / "pretrained" / "demo"
PROCESS_STATUS = Path("/proc/self/status")

Run = Callable[[Any, int], Any]  # an episode: takes a sample and a number of steps, returns an answer
Agreement = Mapping[str, bool | float]  # what is equal (bool), and how far numbers are apart (float)


@dataclass
class Form:
    """One way to do an episode, and the clocks of its stages."""

    run: Run
    times: StageTimes

    def timed(self, sample: Any, steps: int) -> tuple[Any, float, dict[str, float]]:
        """The answer of one episode, its seconds until the device has finished, and those of its stages."""
        synchronize(self.times.device)
        started = time.perf_counter()
        self.times.start()
        answer = self.run(sample, steps)
        synchronize(self.times.device)
        return answer, time.perf_counter() - started, self.times.take()


class Bench(Protocol):
    """The episodes of one task. It is built from options alone, so that a process of its own can build it again."""

    task: str
    defaults: Mapping[str, Any]  # its own options, with their values
    demo: Mapping[str, Any] = {}  # and with those of size demo, where they differ
    models: Any  # what both forms adapt, each a copy
    options: argparse.Namespace
    device: torch.device

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.options, self.device = options, choose_device(options.device)

    def cases(self) -> list[str]: ...  # what is timed, one after the other
    def sample(self, case: str, number: int) -> Any: ...  # on the device
    def plain(self, case: str, models: Any, times: StageTimes) -> Run: ...  # the official schedule of work
    def fast(self, case: str, models: Any, times: StageTimes) -> Run: ...  # what a run does
    def compare(self, case: str, plain: Any, fast: Any) -> Agreement: ...  # {}: they cannot be compared

    def growth(self, case: str) -> float:
        """Classes of the case over those that the plain form is run on; 1 when it is run on all of them."""
        return 1.0

    def form(self, case: str, which: str, alone: bool = False) -> Form:
        """The plain or the fast form; alone it takes the bench's models, otherwise copies."""
        times, models = StageTimes(self.device), self.models if alone else copy.deepcopy(self.models)
        return Form((self.plain if which == "plain" else self.fast)(case, models, times), times)


def measure(bench: Bench, case: str) -> dict[str, Any]:
    """Everything about one case: both forms on each sample, in turn, their peaks, and the floor."""
    options, growth = bench.options, bench.growth(case)
    log.info("%s: %s", bench.task, case)
    peaks = {which: {"peak_gib": peak_memory(type(bench), options, case, which)} for which in FORMS if options.memory}
    forms = {which: bench.form(case, which) for which in FORMS}
    for form in forms.values():
        form.run(bench.sample(case, 0), min(options.steps, STEPS))
    seconds: dict[str, list[float]] = {which: [] for which in FORMS}
    stages: dict[str, list[dict[str, float]]] = {which: [] for which in FORMS}
    agreement: Agreement = {}
    for number in range(1, options.images + 1):
        sample = bench.sample(case, number)
        answers: dict[str, Any] = {}
        for which in FORMS if number % 2 else reversed(FORMS):
            answers[which], whole, parts = forms[which].timed(sample, options.steps)
            if which == "plain":  # what it would have taken with all classes
                more = {name: (growth - 1) * value for name, value in parts.items() if name in GROWING}
                whole, parts = whole + sum(more.values()), {s: parts[s] + more.get(s, 0) for s in parts}
            seconds[which].append(whole)
            stages[which].append(parts)
        agreement = merge(agreement, bench.compare(case, **answers))
        log.info("  sample %d: plain %.3f s, fast %.3f s", number, *(seconds[which][-1] for which in FORMS))
    ratio = statistics.median(plain / fast for plain, fast in zip(seconds["plain"], seconds["fast"], strict=True))
    result: dict[str, Any] = {"task": bench.task, "case": case, "plain_estimated": growth != 1}
    for which in FORMS:
        names = dict.fromkeys(name for parts in stages[which] for name in parts)
        medians = {name: statistics.median(parts.get(name, 0.0) for parts in stages[which]) for name in names}
        found = {"seconds": seconds[which], "median": statistics.median(seconds[which]), "stages": medians}
        result[which] = found | peaks.get(which, {})
    dtype = autocast_dtype(options.precision, bench.device) or torch.float32
    fast, rates = forms["fast"], (product_rate(bench.device, dtype), copy_rate(bench.device))
    floor = Floor(*rates, lambda: fast.times.stages[-1]).of(lambda: fast.run(bench.sample(case, 0), options.steps))
    least = sum(floor.seconds.values())
    return result | {"ratio": ratio, "agreement": agreement, "floor": {
        "seconds": least, "times": result["fast"]["median"] / least, "stages": dict(floor.seconds),
        "flops": floor.flops, "flops_per_second": rates[0], "bytes_per_second": rates[1],
    }}  # fmt: skip


def merge(so_far: Agreement, new: Agreement) -> Agreement:
    """Comparisons of several samples as one: equal when all are, apart as far as the worst."""
    joined = dict(so_far)
    for name, value in new.items():
        pair = so_far.get(name, value), value
        worst = max(pair, key=lambda apart: (math.isnan(apart), apart))
        joined[name] = all(pair) if isinstance(value, bool) else worst
    return joined


def peak_memory(make_bench: Callable[[argparse.Namespace], Any], options: argparse.Namespace, *form: str) -> float:
    """GiB: of the whole process, models and libraries included; on CUDA of what torch holds there.

    In a process of its own, as none can take back its peak. `make_bench` is importable by name; `form` is a case, and
    "plain" or "fast". BrokenProcessPool: it was killed.
    """
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, make_bench, options, *form).result() / 2**30


def _peak(make_bench: Callable[[argparse.Namespace], Any], options: argparse.Namespace, case: str, which: str) -> int:
    bench = make_bench(options)
    bench.form(case, which, alone=True).run(bench.sample(case, 0), min(options.steps, STEPS))
    if bench.device.type == "cuda":
        return torch.cuda.max_memory_allocated(bench.device)
    if PROCESS_STATUS.is_file():  # Linux's `ru_maxrss` starts with the peak of the process that started this one
        lines = PROCESS_STATUS.read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def bench_clip(name: str, device: torch.device, precision: str) -> ClipModel:
    """The demo's `policy` or `reward`, or an OpenAI architecture, e.g. ViT-B-16, with random weights, which do not
    change what a step costs; with open_clip's own blocks."""
    if name in {"policy", "reward"}:
        backend = build_openai_layout(torch.load(DEMO / f"{name}.pt", weights_only=True))
    else:
        backend = open_clip.create_model(name, force_quick_gelu=True).half().float()  # OpenAI's lie on fp16's grid
    model = ClipModel(backend, name, "random", open_clip.tokenize, autocast_dtype(precision, device), lean=False)
    return model.to(device).eval().requires_grad_(False)


def random_picture(number: int) -> Image.Image:
    """25 x 19 patches of colour, in the usual size of ImageNet's pictures."""
    patches = np.random.default_rng(number).integers(0, 256, (19, 25, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((500, 375), Image.Resampling.BICUBIC)
