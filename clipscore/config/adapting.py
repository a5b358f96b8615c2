"""What the configurations of all three tasks hold, and the rules that they share."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, create_model, field_validator, model_validator

from clipscore.config.fields import MomentumConfig, RewardConfig, RunConfig, StrictModel
from clipscore.config.methods import TUNING, Method, absolute_name, find_method, readers, source_digest
from clipscore.data import caption_layouts


class AdaptingConfig(RunConfig):
    """One row of a table of the paper: a method, its models and its optimizer."""

    ADDED: ClassVar[dict[str, Any]] = {**RunConfig.ADDED, "cuda_graphs": False}
    METHOD: ClassVar[Any] = Method  # that of the classes which `for_values` makes
    LAYOUTS: ClassVar[Any] = caption_layouts  # the module that knows the names of data sets
    SAMPLE: ClassVar[str] = "image"
    FP32_REWARD_IMAGES: ClassVar[bool] = False  # whether the reward models' image towers compute outside autocast
    OF_SOME_METHODS: ClassVar[frozenset[str]] = TUNING | {"reward"}  # settings, of which each method names its own

    method: str = Field(description="a file of the task's methods/, or one of your own: FILE.py:CLASS")
    policy: str = Field("ViT-B/16", description="the CLIP that is adapted: a name, open_clip arch/tag, or a file")
    cuda_graphs: bool = Field(False, description="replay the passes of a tuned image tower as CUDA graphs")
    dataset_files: StrictModel | None = None
    steps: int = Field(0, ge=0, description="updates per image")
    lr: float = Field(0.0, ge=0)
    weight_decay: float = Field(5e-4, ge=0)
    eps: float = Field(1e-6, gt=0)
    reward: RewardConfig | None = None
    momentum: MomentumConfig | None = None

    @classmethod
    def for_values(cls, values: Mapping[str, Any]) -> type[Self]:
        """This class with the options of the method that the values name; ValueError: there is no such method."""
        method = values.get("method")
        return _with_options(cls, absolute_name(method)) if isinstance(method, str) else cls

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The configuration of these values."""
        return cls.for_values(values).model_validate(dict(values))

    def __reduce__(self) -> tuple[Any, ...]:
        """For other processes: the class, made here, is made there again."""
        base = type(self).__bases__[0] if "METHOD" in vars(type(self)) else type(self)
        return _rebuild, (base, self.method, dict(self), self.model_fields_set)

    @classmethod
    def default_name(cls, file_name: str, values: Mapping[str, Any]) -> str:
        """The config file's; a method of the user's adds its class and its digest: once edited, it is another run."""
        digest = source_digest(cls.model_fields["task"].default, str(values.get("method")))
        return f"{file_name}-{cls.METHOD.__name__}-{digest[:8]}" if digest else file_name

    @classmethod
    def readers_of(cls, key: str) -> str:
        """Methods whose own setting it is."""
        name = key.split(".")[0]
        found = [] if name in cls.model_fields else readers(cls.model_fields["task"].default, name)
        return f"; read by method={', '.join(found)}" if found else ""

    @property
    def method_digest(self) -> str | None:
        """See `source_digest`."""
        return source_digest(self.task, self.method)

    @property
    def adapts(self) -> bool:
        return self.METHOD.adapts

    @property
    def tunes(self) -> bool:
        """Whether weights are updated, by gradients."""
        return "steps" in self.METHOD.reads

    @property
    def sequential(self) -> bool:
        """Whether a sample's result depends on those before it."""
        return self.METHOD.sequential or self.momentum is not None

    @property
    def tunes_clip(self) -> bool:
        """Whether a tower of the policy's CLIP is tuned, not what stands in front of one or behind it."""
        return self.tunes

    @property
    def tunes_texts(self) -> bool:
        """Whether the policy's text tower is tuned, or what it reads."""
        return False

    @property
    def reward_options(self) -> RewardConfig:
        """The reward of a method that has one; ValueError when it has none."""
        if self.reward is None:
            raise ValueError(f"method={self.method} has no reward; give reward.models")
        return self.reward

    @property
    def model_names(self) -> tuple[list[str], list[str], list[str]]:
        """The policy, the reward models, and those of a zero-shot ensemble, which only some tasks have."""
        rewards = [model.name for model in self.reward.models] if self.reward else []
        return [self.policy], rewards, list(getattr(self, "zero_shot_models", []))

    @field_validator("method")
    @classmethod
    def _found_from_every_folder(cls, method: str) -> str:
        return absolute_name(method)

    @field_validator("dataset")
    @classmethod
    def _one_name_per_dataset(cls, dataset: str) -> str:
        return cls.canonical_dataset(dataset)

    @classmethod
    def canonical_dataset(cls, name: str) -> str:
        """The one name of a data set that has several."""
        return cls.LAYOUTS.canonical_name(name) or name

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = [*self._rules(), *self.METHOD.rules(self)]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _rules(self) -> Iterator[str]:
        """A sentence for each rule that is broken; tasks add their own, and so do methods."""
        method, given, reads = self.method, self.model_fields_set, self.METHOD.reads
        unread = [name for name in sorted(given & self.OF_SOME_METHODS - reads) if not self._is_default(name)]
        if self.LAYOUTS.canonical_name(self.dataset) is None and self.dataset_files is None:
            yield str(self.LAYOUTS.unknown_name(self.dataset))
        if unread:
            by_others = [f"{name} (read by {', '.join(readers(self.task, name))})" for name in unread]
            yield f"method={method} does not read {', '.join(by_others)}; start from that method's own YAML"
        if self.tunes and "steps" not in given:
            yield f"method={method} needs steps, updates per {self.SAMPLE}"
        if self.tunes and self.steps > 0 and self.lr == 0:
            yield f"steps={self.steps} with lr=0 moves nothing; give lr"
        if "reward" in reads and not self.reward:
            yield f"method={method} needs reward.models, e.g. [{{name: ViT-L/14}}]"
        if self.cuda_graphs and (not self.tunes_clip or self.tunes_texts or self.compile or ":" in method):
            yield "cuda_graphs=true is for methods of this repository that tune an image tower, without compile=true"
        if self.order == "listed" and "order_seed" in given:
            yield f"order=listed has no order_seed, got {self.order_seed}; leave one of them out"

    def _is_default(self, name: str) -> bool:
        return getattr(self, name) == type(self).model_fields[name].get_default(call_default_factory=True)


def check_enough(asked: int, available: int, key: str, found: str) -> None:
    """ValueError for more candidates than there are; `key` is the setting, `found` says what there is."""
    if asked > available:
        mend = f"it is at most that: add num_candidates={available} to the command"
        raise ValueError(f"{key}={asked}, but {found}; {mend}")


def single_teacher(config: AdaptingConfig) -> Iterator[str]:
    """The rule of methods that imitate one reward model."""
    if config.reward and len(config.reward.models) > 1:
        yield f"method={config.method} takes one teacher, got {len(config.reward.models)}"


def _rebuild(base: type[AdaptingConfig], method: str, values: dict[str, Any], given: set[str]) -> AdaptingConfig:
    return base.for_values({"method": method}).model_construct(given, **values)


@functools.cache
def _with_options(base: type[Any], name: str) -> type[Any]:
    method = find_method(base.model_fields["task"].default, name)
    taken = sorted(method.Options.model_fields.keys() & base.model_fields.keys())
    if taken:
        raise ValueError(f"options of method {name} have names of settings that every run has: {', '.join(taken)}")
    made: Any = create_model(base.__name__, __base__=(base, method.Options), __module__=base.__module__)
    setattr(made, "METHOD", method)  # noqa: B010 - a name that the type of the class made here does not show
    return made
