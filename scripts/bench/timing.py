"""How the benchmarks time two forms of an episode: in turn, in one process, on the same samples.

The plain form does the official code's schedule of work, the fast form is what a run does. The first of the two changes
from sample to sample, so that a machine that slows down favours neither.
"""

import argparse
import copy
import logging
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from clipscore.metrics.stage_times import StageTimes
from clipscore.models.devices import choose_device
from scripts.bench.agreement import merge
from scripts.bench.floor import Floor, copy_rate, product_rate, synchronize
from scripts.bench.memory import peak_memory

log = logging.getLogger(__name__)

FORMS = ("plain", "fast")
GROWING = ("text", "update")  # stages of the plain form whose time is proportional to the number of classes
WARM_UP_STEPS = 2  # of the plain form, the first sees all views and the second the trusted ones
NOWHERE = {"dataset": "random", "data_root": "", "pretrained_root": "", "output_root": "", "method": "rlcf"}

Run = Callable[[Any, int], Any]  # an episode: takes a sample and a number of steps, returns an answer


@dataclass
class Form:
    """One way to do an episode, and the clocks of its stages."""

    run: Run
    times: StageTimes


@dataclass
class Timed:
    """What one episode answered, the seconds it took, and those of its stages."""

    answer: Any
    seconds: float
    stages: dict[str, float]


class Bench(Protocol):
    """The episodes of one task. It is built from options alone, so that a process of its own can build it again."""

    options: argparse.Namespace  # of the command line
    device: torch.device
    task: str
    defaults: Mapping[str, Any]  # its own options, with their values
    demo: Mapping[str, Any] = {}  # and with those of size demo, where they differ
    models: Any  # what both forms adapt, each a copy
    rate_dtype: torch.dtype  # of the matrix products

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.options, self.device = options, choose_device(options.device)

    def cases(self) -> list[str]:
        """What is timed, one after the other."""

    def sample(self, case: str, number: int) -> Any:
        """A sample, on the device."""

    def plain(self, case: str, models: Any, times: StageTimes) -> Run:
        """The official schedule of work."""

    def fast(self, case: str, models: Any, times: StageTimes) -> Run:
        """What a run does."""

    def compare(self, case: str, plain: Any, fast: Any) -> dict[str, bool | float]:
        """What is equal (bool), and how far numbers are apart (float); {} when the two cannot be compared."""

    def growth(self, case: str) -> float:
        """Classes of the case over those that the plain form is run on; 1 when it is run on all of them."""
        return 1.0

    def form(self, case: str, which: str, alone: bool = False) -> Form:
        """The plain or the fast form; alone it takes the bench's models, otherwise copies."""
        times, models = StageTimes(self.device), self.models if alone else copy.deepcopy(self.models)
        return Form((self.plain if which == "plain" else self.fast)(case, models, times), times)


def measure(bench: Bench, case: str) -> dict[str, Any]:
    """Everything about one case."""
    options = bench.options
    log.info("%s: %s", bench.task, case)
    peaks = {which: peak_memory(type(bench), options, case, which) for which in FORMS} if options.memory else {}
    forms = {which: bench.form(case, which) for which in FORMS}
    for form in forms.values():
        form.run(bench.sample(case, 0), min(options.steps, WARM_UP_STEPS))
    result = _alternate(bench, case, forms)
    for which, peak in peaks.items():
        result[which]["peak_gib"] = peak
    fast, rates = forms["fast"], (product_rate(bench.device, bench.rate_dtype), copy_rate(bench.device))
    floor = Floor(*rates, lambda: fast.times.stages[-1]).of(lambda: fast.run(bench.sample(case, 0), options.steps))
    seconds = sum(floor.seconds.values())
    result["floor"] = {"seconds": seconds, "times": result["fast"]["median"] / seconds, "stages": dict(floor.seconds)}
    result["floor"] |= {"flops": floor.flops, "flops_per_second": rates[0], "bytes_per_second": rates[1]}
    return result


def timed(form: Form, sample: Any, steps: int, device: torch.device) -> Timed:
    """Run one episode; the clock stops when the device has finished."""
    synchronize(device)
    started = time.perf_counter()
    form.times.start()
    answer = form.run(sample, steps)
    synchronize(device)
    seconds = time.perf_counter() - started
    return Timed(answer, seconds, form.times.take())


def _alternate(bench: Bench, case: str, forms: Mapping[str, Form]) -> dict[str, Any]:
    """Both forms on each sample, in turn: the seconds of each, and how the answers agree."""
    runs: dict[str, list[Timed]] = {which: [] for which in FORMS}
    agreement: dict[str, bool | float] = {}
    growth = bench.growth(case)
    for number in range(1, bench.options.images + 1):
        sample = bench.sample(case, number)
        for which in FORMS if number % 2 else reversed(FORMS):
            runs[which].append(timed(forms[which], sample, bench.options.steps, bench.device))
        plain, fast = (runs[which][-1] for which in FORMS)
        agreement = merge(agreement, bench.compare(case, plain.answer, fast.answer))
        plain.answer = fast.answer = None  # on a GPU, many of them would fill it
        few = {name: seconds for name, seconds in plain.stages.items() if name in GROWING}
        plain.stages |= {name: growth * seconds for name, seconds in few.items()}
        plain.seconds += (growth - 1) * sum(few.values())  # what it would have taken with all classes
        log.info("  sample %d: plain %.3f s, fast %.3f s", number, plain.seconds, fast.seconds)
    ratios = (plain.seconds / fast.seconds for plain, fast in zip(runs["plain"], runs["fast"], strict=True))
    summary: dict[str, Any] = {"task": bench.task, "case": case, "plain_estimated": growth != 1}
    for which, of_form in runs.items():
        seconds, stages = [run.seconds for run in of_form], _medians([run.stages for run in of_form])
        summary[which] = {"seconds": seconds, "median": statistics.median(seconds), "stages": stages}
    return {**summary, "ratio": statistics.median(ratios), "agreement": agreement}


def _medians(stages: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for times in stages for name in times)
    return {name: statistics.median(times.get(name, 0.0) for times in stages) for name in names}
