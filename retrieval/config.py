"""Every switch of a retrieval run, with its default and its range."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from clipscore.config.fields import CaptionFiles, MomentumConfig, RewardConfig, RunConfig, StrictModel
from clipscore.data.caption_layouts import canonical_name, unknown_name

Direction = Literal["image_to_text", "text_to_image"]
Method = Literal["zero_shot", "rlcf", "kd", "pseudo_label"]

NEEDS_REWARD = frozenset({"rlcf", "kd"})


class CandidatesConfig(StrictModel):
    """K of either direction. Official retrieval/scripts/tta_coco_ret.sh: 20 captions, or 12 images."""

    image_to_text: int = Field(20, ge=1)
    text_to_image: int = Field(12, ge=1)


class RetrievalConfig(RunConfig):
    """One row of the paper's Table 2. The data set with the direction is the column."""

    task: Literal["retrieval"] = "retrieval"
    seed: int = Field(42, ge=0, description="names the run; nothing is drawn at random")
    method: Method
    direction: Direction = Field("image_to_text", description="images look for captions, or captions for images")
    policy: str = Field("ViT-B/16", description="the CLIP that is adapted: a name, open_clip arch/tag, or a file")
    zero_shot_models: list[str] = Field([], description="more CLIPs whose cosines are averaged with the policy's")
    dataset_files: CaptionFiles | None = None
    cache: bool = Field(True, description="keep the gallery's features under output_root/gallery")

    steps: int = Field(0, ge=0, description="updates per query")
    lr: float = Field(0.0, ge=0)
    weight_decay: float = Field(5e-4, ge=0)
    eps: float = Field(1e-6, gt=0)

    num_candidates: CandidatesConfig = Field(
        CandidatesConfig(),
        description="K: gallery items ranked first that are scored; one number, or one per direction",
    )
    reward: RewardConfig | None = None
    momentum: MomentumConfig | None = None

    @property
    def column(self) -> str:
        """A run is of a data set in one direction."""
        return f"{self.dataset}/{self.direction}"

    @property
    def k(self) -> int:
        """K of this run's direction."""
        return getattr(self.num_candidates, self.direction)

    @field_validator("dataset")
    @classmethod
    def _one_name_per_dataset(cls, dataset: str) -> str:
        return canonical_name(dataset) or dataset

    @field_validator("num_candidates", mode="before")
    @classmethod
    def _one_number_for_both(cls, value: Any) -> Any:
        return {"image_to_text": value, "text_to_image": value} if type(value) is int else value

    @model_validator(mode="after")
    def _check(self) -> RetrievalConfig:
        problems = [text for wrong, text in self._rules() if wrong]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _rules(self) -> list[tuple[bool, str]]:
        adapts, needs_reward = self.method != "zero_shot", self.method in NEEDS_REWARD
        num_teachers = len(self.reward.models) if self.reward else 0
        return [
            (canonical_name(self.dataset) is None and self.dataset_files is None, str(unknown_name(self.dataset))),
            (adapts and "steps" not in self.model_fields_set, f"method={self.method} needs steps, updates per query"),
            (not adapts and self.steps > 0, f"method=zero_shot takes no steps, got steps={self.steps}; set steps=0"),
            (adapts and self.steps > 0 and self.lr == 0, f"steps={self.steps} with lr=0 moves nothing; give lr"),
            (needs_reward and not self.reward, f"method={self.method} needs reward.models, e.g. [{{name: ViT-L/14}}]"),
            (not needs_reward and bool(self.reward), f"method={self.method} uses no reward model; set reward=null"),
            (self.method == "kd" and num_teachers > 1, f"method=kd takes one teacher, got {num_teachers}"),
            (
                self.method != "rlcf" and "num_candidates" in self.model_fields_set,
                f"method={self.method} does not use num_candidates; start from that method's own YAML",
            ),
            (
                not adapts and bool(self.model_fields_set & {"lr", "weight_decay", "eps", "momentum"}),
                "method=zero_shot takes no lr, weight_decay, eps or momentum",
            ),
            (bool(self.zero_shot_models) and adapts, "zero_shot_models needs method=zero_shot"),
        ]
