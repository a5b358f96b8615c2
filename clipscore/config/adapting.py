"""What the configurations of all three tasks hold, and the rules that they share."""

from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from clipscore.config.fields import MomentumConfig, RewardConfig, RunConfig, StrictModel
from clipscore.data import caption_layouts

DISTILLS = frozenset({"kd", "dkd", "atkd"})


class AdaptingConfig(RunConfig):
    """One row of a table of the paper: a method, its models and its optimizer."""

    LAYOUTS: ClassVar[Any] = caption_layouts  # the module that knows the names of data sets
    SAMPLE: ClassVar[str] = "image"
    FP32_REWARD_IMAGES: ClassVar[bool] = False  # whether the reward models' image towers compute outside autocast
    NEEDS_REWARD: ClassVar[frozenset[str]] = DISTILLS | {"rlcf"}
    NOT_FOR_ZERO_SHOT: ClassVar[frozenset[str]] = frozenset({"lr", "weight_decay", "eps"})

    method: str
    policy: str = Field("ViT-B/16", description="the CLIP that is adapted: a name, open_clip arch/tag, or a file")
    dataset_files: StrictModel | None = None
    steps: int = Field(0, ge=0, description="updates per image")
    lr: float = Field(0.0, ge=0)
    weight_decay: float = Field(5e-4, ge=0)
    eps: float = Field(1e-6, gt=0)
    reward: RewardConfig | None = None
    momentum: MomentumConfig | None = None

    @property
    def adapts(self) -> bool:
        return self.method != "zero_shot"

    @property
    def tunes_clip(self) -> bool:
        """Whether a tower of the policy's CLIP is tuned, not what stands in front of one or behind it."""
        return self.adapts

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

    @field_validator("dataset")
    @classmethod
    def _one_name_per_dataset(cls, dataset: str) -> str:
        return cls.LAYOUTS.canonical_name(dataset) or dataset

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = list(self._rules())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _rules(self) -> Iterator[str]:
        """A sentence for each rule that is broken; tasks add their own."""
        method, given = self.method, self.model_fields_set
        needs_reward = method in self.NEEDS_REWARD
        if self.LAYOUTS.canonical_name(self.dataset) is None and self.dataset_files is None:
            yield str(self.LAYOUTS.unknown_name(self.dataset))
        if self.adapts and "steps" not in given:
            yield f"method={method} needs steps, updates per {self.SAMPLE}"
        if self.adapts and self.steps > 0 and self.lr == 0:
            yield f"steps={self.steps} with lr=0 moves nothing; give lr"
        if not self.adapts and self.steps > 0:
            yield f"method=zero_shot takes no steps, got steps={self.steps}; set steps=0"
        if needs_reward and not self.reward:
            yield f"method={method} needs reward.models, e.g. [{{name: ViT-L/14}}]"
        if not needs_reward and self.reward:
            yield f"method={method} uses no reward model; set reward=null"
        if self.reward and method in DISTILLS and len(self.reward.models) > 1:
            yield f"method={method} takes one teacher, got {len(self.reward.models)}"
        if not self.adapts and given & self.NOT_FOR_ZERO_SHOT:
            yield f"method=zero_shot takes no {', '.join(sorted(given & self.NOT_FOR_ZERO_SHOT))}"
        if self.order == "listed" and "order_seed" in given:
            yield f"order=listed has no order_seed, got {self.order_seed}; leave one of them out"
        if self.adapts and self.model_names[2]:
            yield "zero_shot_models needs method=zero_shot"
