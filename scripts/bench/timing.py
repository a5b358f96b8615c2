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

from clipscore.metrics.stage_times import OTHER, StageTimes
from clipscore.models.devices import choose_device
from scripts.bench.agreement import in_words, merge, tolerance
from scripts.bench.arithmetic import count_flops, matmul_rate, synchronize
from scripts.bench.memory import peak_memory
from scripts.bench.models import Pictures

log = logging.getLogger(__name__)

FORMS = ("plain", "fast")
GROWING = ("text", "update")  # stages of the plain form whose time is proportional to the number of classes
WARM_UP_STEPS = 2  # of the plain form, the first sees all views and the second the trusted ones
NOWHERE = {"dataset": "random", "data_root": "", "pretrained_root": "", "output_root": "", "method": "rlcf"}


@dataclass
class Form:
    """One way to do an episode: takes a sample and a number of steps; and the clocks of its stages."""

    run: Callable[[Any, int], Any]
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
    pictures: Pictures
    task: str
    defaults: dict[str, dict[str, Any]]  # of options that depend on the size
    models: Any  # what both forms adapt, each a copy
    rate_dtype: torch.dtype  # of the matrix products

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.options, self.device, self.pictures = options, choose_device(options.device), Pictures(options.size)

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        """The command line's options for this task alone."""

    def cases(self) -> list[str]:
        """What is timed, one after the other."""

    def read(self, case: str, number: int, times: StageTimes) -> Any:
        """A sample, on the device; its stages are clocked."""

    def plain(self, case: str, models: Any, times: StageTimes) -> Callable[[Any, int], Any]:
        """The official schedule of work: takes a sample and a number of steps, returns an answer."""

    def fast(self, case: str, models: Any, times: StageTimes) -> Callable[[Any, int], Any]:
        """What a run does."""

    def compare(self, case: str, plain: Any, fast: Any) -> dict[str, bool | float]:
        """What is equal (bool), and how far numbers are apart (float); {} when the two cannot be compared."""

    def growth(self, case: str) -> float:
        """Classes of the case over those that the plain form is run on; 1 when it is run on all of them."""
        return 1.0

    def reads_what_plain_left(self, case: str) -> bool:
        """Whether the fast form of a case follows the plain one, and not the other way round in turn."""
        return False

    @torch.no_grad()
    def sample(self, case: str, number: int) -> tuple[Any, dict[str, float]]:
        """A sample, and the seconds that reading it took, by stage."""
        times = StageTimes(torch.device("cpu"))
        sample = self.read(case, number, times)
        return sample, {stage: seconds for stage, seconds in times.take().items() if stage != OTHER}

    def form(self, case: str, which: str, alone: bool = False) -> Form:
        """The plain or the fast form; alone it takes the bench's models, otherwise copies."""
        times, models = StageTimes(self.device), self.models if alone else copy.deepcopy(self.models)
        return Form((self.plain if which == "plain" else self.fast)(case, models, times), times)


def measure(bench: Bench, case: str) -> dict[str, Any]:
    """Everything about one case."""
    options = bench.options
    log.info("%s: %s", bench.task, case)
    peaks = {}
    if options.memory and not options.check:
        peaks = {which: peak_memory(type(bench), options, case, which) for which in FORMS}
        log.info("  peak memory: plain %.2f GiB, fast %.2f GiB", peaks["plain"], peaks["fast"])
    forms = {which: bench.form(case, which) for which in FORMS}
    for form in forms.values():
        form.run(bench.sample(case, 0)[0], min(options.steps, WARM_UP_STEPS))
    result = _alternate(bench, case, forms)
    for which, peak in peaks.items():
        result[which]["peak_gib"] = peak
    _log_summary(result, tolerance(options.precision, bench.device))
    if not options.check:
        rate = matmul_rate(bench.device, bench.rate_dtype)
        flops = count_flops(lambda: forms["fast"].run(bench.sample(case, 0)[0], options.steps))
        times = result["fast"]["median"] * rate / flops
        result["floor"] = {"flops": flops, "flops_per_second": rate, "seconds": flops / rate, "times": times}
        log.info("  %.2f times the arithmetic floor: %.3g TFLOP at %.3g TFLOP/s", times, flops / 1e12, rate / 1e12)
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
    """Both forms on each sample, in turn: the seconds of each and of reading the sample, and how the answers agree."""
    runs: dict[str, list[Timed]] = {which: [] for which in FORMS}
    reading: list[dict[str, float]] = []
    agreement: dict[str, bool | float] = {}
    growth = bench.growth(case)
    for number in range(1, bench.options.images + 1):
        sample, times = bench.sample(case, number)
        reading.append(times)
        for which in FORMS if number % 2 or bench.reads_what_plain_left(case) else reversed(FORMS):
            runs[which].append(timed(forms[which], sample, bench.options.steps, bench.device))
        plain, fast = (runs[which][-1] for which in FORMS)
        agreement = merge(agreement, bench.compare(case, plain.answer, fast.answer))
        plain.answer = fast.answer = None  # on a GPU, many of them would fill it
        few = {name: seconds for name, seconds in plain.stages.items() if name in GROWING}
        plain.stages |= {name: growth * seconds for name, seconds in few.items()}
        plain.seconds += (growth - 1) * sum(few.values())  # what it would have taken with all classes
        log.info("  sample %d: plain %.3f s, fast %.3f s", number, plain.seconds, fast.seconds)
    ratios = (plain.seconds / fast.seconds for plain, fast in zip(runs["plain"], runs["fast"], strict=True))
    summary: dict[str, Any] = {"task": bench.task, "case": case, "images": len(reading)}
    summary |= {"plain_estimated": growth != 1, "reading": _medians(reading)}
    for which, of_form in runs.items():
        seconds, stages = [run.seconds for run in of_form], _medians([run.stages for run in of_form])
        summary[which] = {"seconds": seconds, "median": statistics.median(seconds), "stages": stages}
    return {**summary, "ratio": statistics.median(ratios), "agreement": agreement}


def _medians(stages: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for times in stages for name in times)
    return {name: statistics.median(times.get(name, 0.0) for times in stages) for name in names}


def _log_summary(result: Mapping[str, Any], limit: float) -> None:
    plain, fast, how = result["plain"], result["fast"], " (estimated)" if result["plain_estimated"] else ""
    log.info("  plain %.3f s%s, fast %.3f s, median ratio %.2f", plain["median"], how, fast["median"], result["ratio"])
    stages = {**result["reading"], **fast["stages"]}
    shares = (f"{name} {100 * seconds / sum(stages.values()):.1f}%" for name, seconds in stages.items())
    log.info("  reading, and stages of the fast form: %s", ", ".join(shares))
    log.info("  answers: %s", in_words(result["agreement"], limit))
