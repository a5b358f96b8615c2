"""Every switch of a captioning run, with its default and its range."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from clipscore.config.fields import CaptionFiles, MomentumConfig, RewardConfig, RunConfig, StrictModel
from clipscore.data.caption_layouts import canonical_name, unknown_name

Method = Literal["zero_shot", "rlcf"]

ONLY_RLCF = frozenset(
    {"num_candidates", "sampling", "lr", "weight_decay", "eps", "momentum", "pad_in_loss", "caption_before"}
)


class DecodingConfig(StrictModel):
    """How captions are written. Official generate_opt.py."""

    max_new_tokens: int = Field(50, ge=1)
    length_penalty: float = Field(1.0, description="beam search: log-probability over length to this power")
    repetition_penalty: float = Field(1.0, gt=0, description="above 1: tokens that were written become less likely")
    min_length: int = Field(1, ge=0, description="tokens, the start token counted, before a caption may end")
    top_k: int | None = Field(50, ge=1, description="nucleus sampling: only the likeliest so many tokens; null: all")
    top_p: float = Field(0.92, gt=0, le=1, description="nucleus sampling: only the likeliest that make up this share")


class CaptioningConfig(RunConfig):
    """One row of the paper's Table 3. The data set is the column.

    Whether it is ClipCap or CapDec is a matter of the checkpoint: the two train the same mapper in different ways.
    """

    task: Literal["captioning"] = "captioning"
    seed: int = Field(0, ge=0, description="draws the captions of sampling=nucleus, nothing else")
    method: Method
    policy: str = Field(
        "ViT-B/16", description="the CLIP whose image feature is captioned: a name, arch/tag, or a file"
    )
    llm: str = Field("facebook/opt-125m", description="causal language model: a folder, or a Hugging Face name")
    checkpoint: str = Field(description="trained mapper: ckpt-latest.pt of ClipCap or CapDec, or its folder")
    mapper: Literal["transformer", "mlp"] = "transformer"
    mapper_layers: int = Field(8, ge=1, description="of the transformer mapper")
    prefix_length: int = Field(40, ge=1, description="P: embeddings that the language model reads before the caption")
    normalize_prefix: bool = Field(True, description="scale the image feature to unit length before the mapper")
    dataset_files: CaptionFiles | None = None

    num_candidates: int = Field(6, ge=1, description="K: captions that are proposed and scored in each step")
    sampling: Literal["beam", "nucleus"] = Field("beam", description="how the K captions are proposed")
    decoding: DecodingConfig = DecodingConfig()
    final_beams: int = Field(5, ge=1, description="beams of the caption that is reported; 1: greedy")

    steps: int = Field(0, ge=0, description="updates per image")
    lr: float = Field(0.0, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    eps: float = Field(1e-6, gt=0)
    pad_in_loss: bool = Field(
        True, description="padding tokens are targets, as in the official code; false: they are not"
    )
    reward: RewardConfig | None = None
    momentum: MomentumConfig | None = None
    caption_before: bool = Field(
        False, description="also write the caption before adaptation, which costs one more beam search per image"
    )

    metrics: list[str] | None = Field(
        None, description="bleu, meteor, rouge_l, cider, spice, clipscore, refclipscore; null: all, spice if installed"
    )
    metric_model: str = Field("ViT-B/32", description="the CLIP of CLIPScore and RefCLIPScore")

    @field_validator("dataset")
    @classmethod
    def _one_name_per_dataset(cls, dataset: str) -> str:
        return canonical_name(dataset) or dataset

    @model_validator(mode="after")
    def _check(self) -> CaptioningConfig:
        problems = [text for wrong, text in self._rules() if wrong]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _rules(self) -> list[tuple[bool, str]]:
        adapts, given = self.method != "zero_shot", self.model_fields_set
        return [
            (canonical_name(self.dataset) is None and self.dataset_files is None, str(unknown_name(self.dataset))),
            (adapts and "steps" not in given, f"method={self.method} needs steps, updates per image"),
            (not adapts and self.steps > 0, f"method=zero_shot takes no steps, got steps={self.steps}; set steps=0"),
            (adapts and self.steps > 0 and self.lr == 0, f"steps={self.steps} with lr=0 moves nothing; give lr"),
            (adapts and not self.reward, f"method={self.method} needs reward.models, e.g. [{{name: ViT-L/14}}]"),
            (not adapts and bool(self.reward), "method=zero_shot uses no reward model; set reward=null"),
            (
                not adapts and bool(given & ONLY_RLCF),
                f"method=zero_shot takes no {', '.join(sorted(given & ONLY_RLCF))}",
            ),
            (
                self.sampling != "nucleus" and bool(self.decoding.model_fields_set & {"top_k", "top_p"}),
                f"decoding.top_k and decoding.top_p need sampling=nucleus, got {self.sampling}",
            ),
            (
                self.mapper != "transformer" and "mapper_layers" in given,
                f"mapper_layers needs mapper=transformer, got {self.mapper}",
            ),
        ]
