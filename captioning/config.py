"""Every switch of a captioning run, and of the training of a mapper, with its default and its range."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_serializer, field_validator, model_validator

from clipscore.config.adapting import AdaptingConfig
from clipscore.config.fields import CaptionFiles, RunConfig, StrictModel
from clipscore.data.caption_layouts import canonical_name


class DecodingConfig(StrictModel):
    """How captions are written. Official generate_opt.py."""

    max_new_tokens: int = Field(50, ge=1)
    length_penalty: float = Field(1.0, description="beam search: log-probability over length to this power")
    repetition_penalty: float = Field(1.0, gt=0, description="above 1: tokens that were written become less likely")
    min_length: int = Field(1, ge=0, description="tokens, the start token counted, before a caption may end")
    top_k: int | None = Field(None, ge=1, description="nucleus sampling: only the likeliest so many tokens; null: all")
    top_p: float = Field(0.92, gt=0, le=1, description="nucleus sampling: only the likeliest that make up this share")


class CaptionerConfig(StrictModel):
    """The parts of a captioner, of a run and of the training of its mapper."""

    llm: str = Field("facebook/opt-125m", description="causal language model: a folder, or a Hugging Face name")
    mapper: Literal["transformer", "mlp"] = "transformer"
    mapper_layers: int = Field(8, ge=1, description="of the transformer mapper")
    prefix_length: int = Field(40, ge=1, description="P: embeddings that the language model reads before the caption")
    clip_length: Annotated[int, Field(ge=1)] | Literal["patches"] | None = Field(
        None,
        description="C: tokens that the transformer mapper makes of the feature; null: as prefix_length; patches: it "
        "reads the features of the class token and of all patches (official --clip_patch)",
    )

    def mapper_rules(self) -> Iterator[str]:
        """A sentence where settings of the transformer are given to another mapper."""
        if self.mapper != "transformer" and self.model_fields_set & {"mapper_layers", "clip_length"}:
            yield f"mapper_layers and clip_length need mapper=transformer, got {self.mapper}"


class CaptioningConfig(CaptionerConfig, AdaptingConfig):
    """A row of the paper's Table 3, the data set is the column; the checkpoint says whether it is ClipCap or CapDec."""

    ADDED: ClassVar[dict[str, Any]] = {**AdaptingConfig.ADDED, "clip_length": None}
    FP32_REWARD_IMAGES: ClassVar[bool] = True  # as official capdec_tta.py
    OF_SOME_METHODS: ClassVar[frozenset[str]] = AdaptingConfig.OF_SOME_METHODS | {
        "num_candidates", "sampling", "pad_in_loss", "caption_before",
    }  # fmt: skip

    task: Literal["captioning"] = "captioning"
    seed: int = Field(0, ge=0, description="draws the captions of sampling=nucleus, nothing else")
    policy: str = Field("ViT-B/16", description="the CLIP whose image feature is captioned: name, arch/tag, or file")
    checkpoint: str = Field(description="trained mapper: ckpt-latest.pt of ClipCap or CapDec, or its folder")
    normalize_prefix: bool = Field(True, description="scale the image feature to unit length before the mapper")
    dataset_files: CaptionFiles | None = None

    num_candidates: int = Field(6, ge=1, description="K: captions that are proposed and scored in each step")
    sampling: Literal["beam", "nucleus"] = Field("beam", description="how the K captions are proposed")
    decoding: DecodingConfig = DecodingConfig()
    final_beams: int = Field(5, ge=1, description="beams of the caption that is reported; 1: greedy")

    weight_decay: float = Field(0.0, ge=0)
    pad_in_loss: bool = Field(True, description="padding tokens are targets, as in the official code; false: not")
    caption_before: bool = Field(
        False, description="also write the caption before adaptation, which costs one more beam search per image"
    )

    metrics: list[str] | None = Field(
        None, description="bleu, meteor, rouge_l, cider, spice, clipscore, refclipscore; null: all, spice if installed"
    )
    metric_model: str = Field("ViT-B/32", description="the CLIP of CLIPScore and RefCLIPScore")

    @property
    def tunes_clip(self) -> bool:
        return False

    @field_serializer("decoding")
    def _with_the_old_top_k(self, decoding: DecodingConfig) -> dict[str, Any]:
        """Runs of beam search, which reads no top_k, go by the 50 that once was its default."""
        return decoding.model_dump() | ({} if self.sampling == "nucleus" else {"top_k": 50})

    def _rules(self) -> Iterator[str]:
        yield from super()._rules()
        if self.sampling != "nucleus" and self.decoding.model_fields_set & {"top_k", "top_p"}:
            yield f"decoding.top_k and decoding.top_p need sampling=nucleus, got {self.sampling}"
        yield from self.mapper_rules()


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
