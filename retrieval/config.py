"""Every switch of a retrieval run, with its default and its range."""

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from clipscore.config.adapting import AdaptingConfig
from clipscore.config.fields import CaptionFiles, StrictModel

RECALL_AT = (1, 5, 10)  # of the figures
Direction = Literal["image_to_text", "text_to_image"]


class CandidatesConfig(StrictModel):
    """K of either direction. Official retrieval/scripts/tta_coco_ret.sh: 20 captions, or 12 images."""

    image_to_text: int = Field(20, ge=1)
    text_to_image: int = Field(12, ge=1)


class RetrievalConfig(AdaptingConfig):
    """One row of the paper's Table 2. The data set with the direction is the column."""

    SAMPLE: ClassVar[str] = "query"
    OF_SOME_METHODS: ClassVar[frozenset[str]] = AdaptingConfig.OF_SOME_METHODS | {"num_candidates", "zero_shot_models"}

    task: Literal["retrieval"] = "retrieval"
    seed: int = Field(42, ge=0, description="names the run; nothing is drawn at random")
    direction: Direction = Field("image_to_text", description="images look for captions, or captions for images")
    zero_shot_models: list[str] = Field([], description="more CLIPs whose cosines are averaged with the policy's")
    dataset_files: CaptionFiles | None = None
    cache: bool = Field(True, description="keep the gallery's features under output_root/gallery")

    steps: int = Field(0, ge=0, description="updates per query")
    num_candidates: CandidatesConfig = Field(
        CandidatesConfig(),
        description="K: gallery items ranked first that are scored; one number, or one per direction",
    )

    @property
    def column(self) -> str:
        """A run is of a data set in one direction."""
        return f"{self.dataset}/{self.direction}"

    @property
    def tunes_texts(self) -> bool:
        return self.tunes and self.direction == "text_to_image"

    @property
    def k(self) -> int:
        """K of this run's direction."""
        return getattr(self.num_candidates, self.direction)

    @field_validator("num_candidates", mode="before")
    @classmethod
    def _one_number_for_both(cls, value: Any) -> Any:
        return {"image_to_text": value, "text_to_image": value} if type(value) is int else value
