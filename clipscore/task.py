"""What the three tasks share: their models, their state, and where the time of an episode goes."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor

from clipscore.clip_model import ClipModel
from clipscore.config.adapting import AdaptingConfig
from clipscore.config.methods import Method, Stage, guard, source_digest
from clipscore.data.records import rounded
from clipscore.data.samples import NoRoom, describe_error
from clipscore.episodic import EpisodicState
from clipscore.lean_blocks import Copies
from clipscore.metrics.stage_times import StageTimes
from clipscore.models.devices import to_host
from clipscore.models.group import load_models
from clipscore.reward import ClipReward, ensemble_weights

log = logging.getLogger(__name__)
A = TypeVar("A")  # a task's Answer


def build_reward(config: AdaptingConfig, models: Sequence[ClipModel]) -> ClipReward:
    """The reward that a config describes, over its models."""
    options = config.reward_options
    weights = ensemble_weights([model.weight for model in options.models], options.weighted)
    return ClipReward(models, weights, options.scale)


class Tunable(Protocol):
    """What a policy says of itself."""

    @property
    def tuned(self) -> Mapping[str, Tensor]: ...  # parameters that the optimizer updates

    @property
    def state(self) -> Mapping[str, Tensor]: ...  # these, and all else that is put back for each sample

    @property
    def copies(self) -> Copies: ...  # of the tuned, in the autocast type

    @property
    def written(self) -> Sequence[str]: ...  # those of the tuned into which `prepare` writes


def build_state(config: AdaptingConfig, policy: Tunable, scale_loss: bool = False) -> EpisodicState:
    """AdamW over what the policy tunes, if anything, and the state that is put back for each sample."""
    optimizer = None
    if policy.tuned:
        optimizer = torch.optim.AdamW(
            policy.tuned.values(), lr=config.lr, weight_decay=config.weight_decay, eps=config.eps, fused=True
        )
    return EpisodicState(policy.state, optimizer, config.momentum, scale_loss, policy.written, policy.copies)


def complete_answer(
    method: Method, given: Any, kind: type[A], field: str, shape: list[int], before: Callable[[], Tensor]
) -> A:
    """A method's answer for one sample, on the CPU, with `before` where it has none itself.

    ValueError: the method is the user's, and fails, or gives something else than its task's Answer, whose `field` is a
    tensor of this shape. FloatingPointError: it is not finite.
    """
    name = method.context.config.method
    with guard(name):
        answer: Any = method.answer(given)
    found = getattr(answer, field) if isinstance(answer, kind) else answer
    told = list(found.shape) if isinstance(answer, kind) and hasattr(found, "shape") else type(found).__name__
    if told != shape:
        raise ValueError(f"method={name} answered {told}, expected an Answer with {field} {shape}, a tensor")
    if answer.before is None:
        answer.before = before()
    answer = to_host(answer)
    numbers = getattr(answer, field)
    if not numbers.isfinite().all():
        raise FloatingPointError(f"not finite: {field} {numbers.tolist()[:5]}...")
    return answer


def _leaves(value: Any) -> Iterator[Any]:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else None
    if items is None:
        yield value
    for item in items or ():
        yield from _leaves(item)


class Task:
    """Base of the three tasks: all that the launcher asks of one, with its models and data.

    Rows that it is given are without errors, and at least one. A sample has an `id`, and an `error`: why it could not
    be read, as a sentence that names the file, or None.
    """

    SAMPLE: ClassVar[str]  # what one is called
    at_once: int = 1  # so many are adapted together
    STAGE_DIGITS: ClassVar[int] = 4
    progress_metric: str  # name of the number that `progress` gives
    config: Any  # an AdaptingConfig
    method: Method
    ids: list[str]  # of all samples, in run order
    fingerprint: dict[str, str]  # hashes of weights and data
    about: dict[str, Any]  # what a reader of the rows needs to know, e.g. class names
    published: int | None  # number of samples of the paper's column

    def __init__(self, config: Any) -> None:
        self.models = load_models(config)
        self.clip, self.device = self.models.policy, self.models.device
        self.adapts, self.sequential = config.adapts, config.sequential
        self.times = StageTimes(self.device)
        self.fingerprint = self.models.fingerprint()
        digest = source_digest(config.task, config.method)
        if digest:
            self.fingerprint["method"] = digest

    @classmethod
    def check(cls, config: Any) -> None:
        """Refuse what is missing for a run, without the cost of building it."""
        raise NotImplementedError

    def samples(self, ids: Sequence[str]) -> Iterator[Any]:
        """These samples, in this order."""
        raise NotImplementedError

    def adapt(self, sample: Any) -> dict[str, Any]:
        """Adapt to one sample; its record, or that of the answer without adaptation where a number is not finite.

        FloatingPointError: a number is not finite without adaptation either, or ends the run (`on_error`).
        NoRoom: the GPU is out of memory; the next sample starts as if there had not been this one.
        RuntimeError: it is, and samples build on each other: the run ends, and goes on from its last saved state.
        """
        started = time.perf_counter()
        self.times.start()
        try:
            row = self._finite_record(sample)
        except torch.cuda.OutOfMemoryError as error:
            if self.method.state is not None:
                self.method.state.updates.forget()
            text = f"{self.SAMPLE} {sample.id}: {describe_error(error)}"
            raise (RuntimeError if self.sequential else NoRoom)(text) from None
        if self.adapts and self.method.state is None and "unadapted" not in row:
            row["adapted"] = True  # which elsewhere the losses of the steps say
        return self.timed(row, self.stages(sample), started)

    def timed(
        self, row: dict[str, Any], stages: Mapping[str, float], started: float, share: float = 1.0
    ) -> dict[str, Any]:
        """The record with its seconds in each stage, and its share of those since the start."""
        if stages:
            row["seconds_stages"] = {stage: round(seconds, self.STAGE_DIGITS) for stage, seconds in stages.items()}
        return {**row, "seconds": round(share * (time.perf_counter() - started), 4)}

    def adapt_together(self, samples: Sequence[Any]) -> dict[str, dict[str, Any]]:
        """The records of `at_once` samples, by their ids; none where each has to be adapted alone."""
        raise NotImplementedError

    def _finite_record(self, sample: Any) -> dict[str, Any]:
        try:
            row = self._episode(sample)
            if self.method.state is not None:
                row["moved"] = rounded(self.method.state.moved)
                if self.models.scale_loss:
                    row["repeated_steps"] = self.method.state.updates.num_repeated
        except FloatingPointError as error:
            if self.config.on_error == "stop":
                raise FloatingPointError(f"{self.SAMPLE} {sample.id}: {error}") from error
            log.warning("%s %s is answered without adaptation: %s", self.SAMPLE, sample.id, error)
            return self.unadapted(sample) | {"unadapted": True}
        return row

    def _episode(self, sample: Any) -> dict[str, Any]:
        """Look for overflows at the end, in one wait; where there was one, or other trouble, again, at each step."""
        state = self.method.state
        if state is not None and self.models.scale_loss and not state.updates.num_repeated:
            state.updates.looks = False
            try:
                return self.episode(sample)
            except FloatingPointError:
                pass
            finally:
                state.updates.looks = True
        return self.episode(sample)

    def episode(self, sample: Any) -> dict[str, Any]:
        """The record of one sample without times."""
        raise NotImplementedError

    def unadapted(self, sample: Any) -> dict[str, Any]:
        """The record of one sample, without times, that the policy as it was before any adaptation answers."""
        raise NotImplementedError

    def stages(self, sample: Any) -> dict[str, float]:
        """Seconds in each stage of the episode; none where nothing adapts."""
        return self.times.take() if self.adapts else {}

    def watch(self, *stages: Stage) -> None:
        """Time these stages of an episode, and the method's own."""
        for owner, function, stage in [*stages, *self.method.stages()]:
            self.times.watch(owner, function, stage)

    def describe_data(self, data: Any, **more: Any) -> dict[str, Any]:
        """For `about`: what was found of the data set."""
        faults = [str(fault) for fault in data.faults]
        return {"root": str(data.root), "layout": data.layout, "faults": faults, **more}

    def progress(self, rows: Sequence[dict[str, Any]]) -> float:
        """The running metric, in %."""
        return self.summarize(rows)[self.progress_metric]

    def summarize(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Figures of a run."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What the next sample depends on, or nothing; ValueError: it holds what could not be read again safely."""
        state = self.method.state_dict() if self.sequential else {}
        for value in _leaves(state):
            if not isinstance(value, Tensor | str | int | float | None):
                raise ValueError(
                    f"method={self.config.method} keeps a {type(value).__name__} in its state_dict; tensors, numbers, "
                    "texts, and lists and dicts of them expected"
                )
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.method.load_state_dict(state)
