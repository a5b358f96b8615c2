"""Configuration pieces that every task shares. Defaults live here and in the task's own config class, nowhere else."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator


class StrictModel(BaseModel):
    """A frozen config section: unknown keys are refused, and a value must already have the declared type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class RunConfig(StrictModel):
    """What every run has, whatever its task. Task configs inherit from this class."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset(
        {"limit", "partial", "shard", "device", "procs_per_gpu", "num_workers", "num_threads", "on_error"}
        | {"name", "cache", "data_root", "pretrained_root", "output_root"}
        | {"metrics", "metric_model", "log_to"}  # of finished rows
    )
    ORDER: ClassVar[frozenset[str]] = frozenset({"order", "order_seed"})  # identity where a sample builds on others
    # Keys younger than some runs ("section.key", of list items too) -> what those runs did. At that value a key is no
    # part of a run's identity, so that old runs go on and fit the tables. A task adds to it: {**RunConfig.ADDED, ...}.
    ADDED: ClassVar[dict[str, Any]] = {"order": "listed", "order_seed": 0, "strict_images": False}

    task: str
    dataset: str
    name: str | None = Field(None, description="name of the run folder; the config's file name when null")
    seed: int = Field(0, ge=0, description="draws the random views, nothing else")
    order: Literal["shuffled", "listed"] = Field(
        "shuffled", description="of the samples, by order_seed and the data set; listed: the data set's own order"
    )
    order_seed: int = Field(0, ge=0, description="of the shuffled order; moves results with momentum only")
    limit: int | None = Field(None, ge=1, description="only the first so many samples in this order")
    partial: bool = Field(False, description="go on with a data set that is not whole; tables and summaries say so")
    shard: str | None = Field(None, description="i/n: every n-th sample from the i-th (0 to n - 1)")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    procs_per_gpu: int = Field(1, ge=1, description="processes of torchrun that share a GPU")
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        "auto", description="autocast type over fp32 weights; auto: fp16 on CUDA, fp32 on CPU"
    )
    compile: bool = Field(False, description="torch.compile the image towers: faster after a minute, other last digits")
    num_workers: int = Field(4, ge=0, description="processes that read images and draw views")
    num_threads: int | None = Field(None, ge=1, description="CPU threads of torch; torch's choice when null")
    on_error: Literal["stop", "skip"] = Field(
        "skip",
        description="an unreadable sample, or one not finite or too large for the GPU: ends the run, or is counted",
    )
    strict_images: bool = Field(False, description="a picture that is cut off is unreadable; false: the part is read")
    log_to: Literal["tensorboard", "wandb", "none"] = Field("none", description="takes the figures of a finished run")
    data_root: str
    pretrained_root: str
    output_root: str

    @classmethod
    def for_values(cls, values: Mapping[str, Any]) -> type[Self]:
        """The class of a configuration with these values: this one, unless some of them bring settings of their own."""
        return cls

    @classmethod
    def default_name(cls, file_name: str, values: Mapping[str, Any]) -> str:
        """The name of a run that is given none: its config file's."""
        return file_name

    @classmethod
    def readers_of(cls, key: str) -> str:
        """For a message about a key that is unknown here: what does read it, or nothing."""
        return ""

    @classmethod
    def canonical_dataset(cls, name: str) -> str:
        """The one name of a data set that has several."""
        return name

    @property
    def column(self) -> str:
        """The column of the paper's table that a run is for."""
        return self.dataset


class RewardModelConfig(StrictModel):
    """One CLIP of the reward and its confidence, relative to the other models' (the paper: 10, 5 and 3)."""

    name: str
    weight: float = Field(1.0, gt=0)


class RewardConfig(StrictModel):
    """The CLIP reward. Paper Sec. 3; official clip_reward.py."""

    models: list[RewardModelConfig] = Field(min_length=1, description="one name, or a list of {name, weight}")
    weighted: bool = Field(True, description="weight by confidence, rounded to two decimals; false: plain mean")
    scale: float = Field(2.5, gt=0, description="CLIPScore's w: reward = max(scale * cos, 0)")
    baseline: Literal["mean", "none"] = Field("mean", description="what is subtracted; nothing from a single number")
    baseline_over: Literal["view", "batch"] = Field("view", description="mean over the K of a view, or over all S * K")
    standardize: bool = Field(False, description="also divide by the standard deviation")

    @field_validator("models", mode="before")
    @classmethod
    def _names_alone(cls, models: Any) -> Any:
        models = [models] if isinstance(models, str) else models
        return [{"name": m} if isinstance(m, str) else m for m in models] if isinstance(models, list) else models


class MomentumConfig(StrictModel):
    """Running average of the adapted weights that moves the start weights (RLCF-S-M)."""

    decay: float = Field(0.9998, ge=0, le=1)
    update_interval: int = Field(64, ge=1, description="samples between two refreshes of the start weights")
    mix: float = Field(1.0, ge=0, le=1, description="start = (1 - mix) * source + mix * average")


class CaptionFiles(StrictModel):
    """The user's own images with captions: one annotation file, see clipscore/data/caption_forms.py."""

    annotations: str
    images: str | None = Field(None, description="folder of the listed images; the annotation file's folder when null")
    split: str = Field("test", description="which split of a file that holds several (Karpathy's form)")
