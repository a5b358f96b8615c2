"""Every switch of the training of a mapper, with its default and its range."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from captioning.config import CaptionerConfig
from clipscore.config.fields import RunConfig
from clipscore.data.caption_layouts import canonical_name


class TrainConfig(CaptionerConfig, RunConfig):
    """Training of one mapper: ClipCap on image features, CapDec on noisy text features.

    Defaults are those of the official runs. Of the fields that every run has, `limit` counts captions, and
    `num_workers`, `on_error` and `strict_images` have nothing to act on.
    """

    ADDED: ClassVar[dict[str, Any]] = {**RunConfig.ADDED, "clip_length": None, "start": None}

    task: Literal["train_mapper"] = "train_mapper"
    seed: int = Field(0, ge=0, description="draws the first weights, the order of the captions, and the noise")
    kind: Literal["clipcap", "capdec"] = Field(description="clipcap: from image features; capdec: from text features")
    features: str = Field(description="a folder of captioning.features, or the released .pkl file")
    policy: str = Field("ViT-B/16", description="the CLIP that made the features, compared by its weights")
    normalize_prefix: bool = Field(True, description="scale the features to unit length before anything else")
    noise_variance: float = Field(0.016, ge=0, description="capdec: of the Gaussian noise, per coordinate")
    uniform_ball: bool = Field(False, description="capdec: noise uniform in a ball instead of Gaussian")

    start: str | None = Field(None, description="to go on from: a trained mapper, with its optimizer if that is there")
    epochs: int = Field(10, ge=1)
    batch: int = Field(40, ge=1)
    lr: float = Field(2e-5, gt=0)
    eps: float = Field(1e-6, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup: int = Field(5000, ge=0, description="updates; then the rate falls linearly to 0")
    save_llm: bool = Field(False, description="put the language model into the checkpoint, as the released ones do")

    @field_validator("dataset")
    @classmethod
    def _one_name_per_dataset(cls, dataset: str) -> str:
        return canonical_name(dataset) or dataset

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        given, problems = self.model_fields_set, list(self.mapper_rules())
        if self.kind != "capdec" and given & {"noise_variance", "uniform_ball"}:
            problems.append(f"noise_variance and uniform_ball need kind=capdec, got {self.kind}")
        if self.kind == "capdec" and self.clip_length == "patches":
            problems.append("clip_length=patches needs kind=clipcap: a caption has no patches")
        if problems:
            raise ValueError("; ".join(problems))
        return self
