"""Every switch of a classification run, with its default and its range."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from classification.data.layouts import canonical_name, unknown_name
from clipscore.config.fields import MomentumConfig, RewardConfig, RunConfig, StrictModel

Method = Literal["zero_shot", "rlcf", "tpt", "pseudo_label", "kd", "dkd", "atkd"]
Tune = Literal["none", "prompt", "encoder", "norm"]

USED_BY = {  # settings that only some methods read
    "num_candidates": {"rlcf"}, "temperature": {"kd", "dkd"}, "dkd_alpha": {"dkd"}, "dkd_beta": {"dkd"},
    "atkd_fixed": {"atkd"},
}  # fmt: skip
DISTILLS = frozenset({"kd", "dkd", "atkd"})
NEEDS_REWARD = DISTILLS | {"rlcf"}


class DatasetFiles(StrictModel):
    """The user's own data set: class folders, or a CoOp-style split file."""

    images: str
    class_names: str | None = None
    split_file: str | None = None
    split: str = "test"


class ViewsConfig(StrictModel):
    """The N views of a test image and how many of them are trusted."""

    num_views: int = Field(64, ge=1, description="one centre view and num_views - 1 random ones")
    select_fraction: float = Field(0.1, gt=0, le=1, description="share of views of lowest entropy that are kept")
    recipe: Literal["crop", "augmix", "byol"] = "crop"
    backend: Literal["pil", "tensor"] = Field(
        "pil", description="what makes the random views: PIL as in the official code, or tensor operations"
    )
    crop_scale: list[float] | None = Field(
        None, min_length=2, max_length=2, description="area of a random crop; null: 0.08 to 1, and 0.2 to 1 for byol"
    )

    @property
    def num_selected(self) -> int:
        """S: how many views are kept, rounded down as in official TPT/tpt_cls_rl.py."""
        return int(self.num_views * self.select_fraction)

    @model_validator(mode="after")
    def _check(self) -> ViewsConfig:
        low, high = self.crop_scale or (1.0, 1.0)
        if not 0 < low <= high <= 1:
            raise ValueError(f"views.crop_scale must be two numbers with 0 < low <= high <= 1, got {self.crop_scale}")
        return self


class ClassificationConfig(RunConfig):
    """One row of the paper's Table 1. The data set is the column."""

    task: Literal["classification"] = "classification"
    method: Method
    tune: Tune
    policy: str = Field("ViT-B/16", description="the CLIP that is adapted: a name, open_clip arch/tag, or a file")
    zero_shot_models: list[str] = Field([], description="more CLIPs whose logits are averaged with the policy's")
    dataset_files: DatasetFiles | None = None

    prompt: str = Field("a photo of a", description="words in front of the class name; [CLS] marks its place if inside")
    class_position: Literal["end", "middle", "front"] = "end"
    prompt_start: str | None = Field(None, description="CoOp or CoCoOp file that the prompt starts from")
    normalize_cocoop_features: bool = Field(False, description="unit-length image feature into CoCoOp's meta network")

    views: ViewsConfig = ViewsConfig()
    steps: int = Field(0, ge=0, description="updates per image")
    lr: float = Field(0.0, ge=0)
    weight_decay: float = Field(5e-4, ge=0)
    eps: float = Field(1e-8, gt=0)

    num_candidates: int = Field(3, ge=1, description="K: top classes of each view that are scored")
    reward: RewardConfig | None = None
    entropy_weight: float = Field(0.0, ge=0, description="weight of the entropy of the averaged prediction in the loss")
    temperature: float = Field(1.0, gt=0, description="temperature of the distillation losses")
    dkd_alpha: float = 1.0
    dkd_beta: float = 0.5
    atkd_fixed: bool = Field(False, description="ATKD as published; false: as released, mean and deviation swapped")
    bn_prior: float | None = Field(
        None,
        ge=0,
        description="ResNet policy: source statistics count as much as so many images; null: batch statistics",
    )
    momentum: MomentumConfig | None = None

    @field_validator("dataset")
    @classmethod
    def _one_name_per_dataset(cls, dataset: str) -> str:
        return canonical_name(dataset) or dataset

    @property
    def prompt_words(self) -> str:
        """The prompt as the models read it: prompt tuning has spaces for underscores, fixed prompts keep them.

        Source: official TPT/clip/custom_clip.py, whose two classes differ in this.
        """
        return self.prompt.replace("_", " ") if self.tune == "prompt" or self.prompt_start else self.prompt

    @model_validator(mode="after")
    def _check(self) -> ClassificationConfig:
        problems = [text for wrong, text in self._rules() if wrong]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _rules(self) -> list[tuple[bool, str]]:
        adapts, uses_prompts = self.method != "zero_shot", self.tune == "prompt" or self.prompt_start is not None
        num_teachers = len(self.reward.models) if self.reward else 0
        needs_reward = self.method in NEEDS_REWARD
        return [
            (
                canonical_name(self.dataset) is None and self.dataset_files is None,
                str(unknown_name(self.dataset)),
            ),
            (adapts and self.tune == "none", f"method={self.method} needs tune=prompt, encoder or norm, got none"),
            (not adapts and self.tune != "none", f"method=zero_shot needs tune=none, got tune={self.tune}"),
            (not adapts and self.steps > 0, f"method=zero_shot takes no steps, got steps={self.steps}; set steps=0"),
            (adapts and "steps" not in self.model_fields_set, f"method={self.method} needs steps, updates per image"),
            (adapts and self.steps > 0 and self.lr == 0, f"steps={self.steps} with lr=0 moves nothing; give lr"),
            (needs_reward and not self.reward, f"method={self.method} needs reward.models, e.g. [{{name: ViT-L/14}}]"),
            (not needs_reward and bool(self.reward), f"method={self.method} uses no reward model; set reward=null"),
            (
                self.method in DISTILLS and num_teachers > 1,
                f"method={self.method} takes one teacher, got {num_teachers}",
            ),
            (
                adapts and self.views.num_selected < 1,
                f"views.num_views={self.views.num_views} times views.select_fraction={self.views.select_fraction} "
                "keeps no view; raise one of them so that their product is at least 1",
            ),
            (
                self.tune in {"encoder", "norm"} and self.prompt_start is not None,
                f"tune={self.tune} takes its class features from prompt, so prompt_start would be ignored; set "
                "prompt_start=null (the official code ignores it silently)",
            ),
            (
                self.momentum is not None and self.tune not in {"encoder", "norm"},
                f"momentum needs tune=encoder or norm, got {self.tune}",
            ),
            (
                self.bn_prior is not None and self.tune not in {"encoder", "norm"},
                f"bn_prior needs tune=encoder or norm, got {self.tune}",
            ),
            (
                not adapts and bool(self.model_fields_set & {"lr", "weight_decay", "eps", "entropy_weight"}),
                "method=zero_shot takes no lr, weight_decay, eps or entropy_weight",
            ),
            *(
                (
                    name in self.model_fields_set and self.method not in methods,
                    f"method={self.method} does not use {name}; start from that method's own YAML",
                )
                for name, methods in USED_BY.items()
            ),
            (bool(self.zero_shot_models) and adapts, "zero_shot_models needs method=zero_shot"),
            (
                self.class_position != "end" and not uses_prompts,
                f"class_position={self.class_position} needs tune=prompt; fixed prompts have the name at the end",
            ),
            (
                self.class_position != "middle" and "[CLS]" in self.prompt_words,
                "prompt holds [CLS]; set class_position=middle",
            ),
            (
                self.class_position == "middle" and not _splits(self.prompt_words),
                f"class_position=middle needs [CLS] between two words of prompt, got {self.prompt!r}",
            ),
        ]


def _splits(prompt: str) -> bool:
    words = prompt.split()
    return words.count("[CLS]") == 1 and 0 < words.index("[CLS]") < len(words) - 1
