"""Every switch of a classification run, with its default and its range."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from classification.data import layouts
from clipscore.config.adapting import AdaptingConfig
from clipscore.config.fields import StrictModel
from clipscore.config.methods import find_method, readers

Tune = Literal["none", "prompt", "prototypes", "encoder", "norm"]


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
    recipe: Literal["crop", "augmix", "byol"] | None = Field(
        None, description="null: augmix on the ten fine-grained sets, crop on others, as in the official code"
    )
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

    @property
    def drawing(self) -> dict[str, Any]:
        """How they are drawn, as arguments of `classification.views.make_views`."""
        scale = (self.crop_scale[0], self.crop_scale[1]) if self.crop_scale else None
        return {"recipe": self.recipe or "crop", "crop_scale": scale, "backend": self.backend}

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.crop_scale or (1.0, 1.0)
        if not 0 < low <= high <= 1:
            raise ValueError(f"views.crop_scale must be two numbers with 0 < low <= high <= 1, got {self.crop_scale}")
        return self


class ClassificationConfig(AdaptingConfig):
    """One row of the paper's Table 1. The data set is the column."""

    ADDED: ClassVar[dict[str, Any]] = {
        **AdaptingConfig.ADDED, "texts": "prompt", "reward_texts": "prompt", "images_at_once": 1,
    }  # fmt: skip
    LAYOUTS: ClassVar[Any] = layouts
    NOT_IDENTITY: ClassVar[frozenset[str]] = AdaptingConfig.NOT_IDENTITY | {"view_cache"}
    OF_SOME_METHODS: ClassVar[frozenset[str]] = AdaptingConfig.OF_SOME_METHODS | {
        "tune", "entropy_weight", "bn_prior", "num_candidates", "temperature", "zero_shot_models",
    }  # fmt: skip

    task: Literal["classification"] = "classification"
    tune: Tune = Field("none", description="what the updates change")
    zero_shot_models: list[str] = Field([], description="more CLIPs whose logits are averaged with the policy's")
    dataset_files: DatasetFiles | None = None

    prompt: str = Field("a photo of a", description="words in front of the class name; [CLS] marks its place if inside")
    texts: str | list[str] = Field(
        "prompt", description="what stands for a class: the prompt, templates7, templates80, a list of them, or a file"
    )
    reward_texts: str | list[str] = Field("prompt", description="the same for the reward models")
    class_position: Literal["end", "middle", "front"] = "end"
    prompt_start: str | None = Field(None, description="CoOp or CoCoOp file that the prompt starts from")
    normalize_cocoop_features: bool = Field(False, description="unit-length image feature into CoCoOp's meta network")

    views: ViewsConfig = ViewsConfig()
    view_cache: bool = Field(False, description="keep the views' features under output_root/views, and read them there")
    images_at_once: int = Field(1, ge=1, description="share passes among so many images: fewer and larger ones")
    eps: float = Field(1e-8, gt=0)

    num_candidates: int = Field(3, ge=1, description="K: top classes of each view that are scored")
    entropy_weight: float = Field(0.0, ge=0, description="weight of the entropy of the averaged prediction in the loss")
    temperature: float = Field(1.0, gt=0, description="temperature of the distillation losses")
    bn_prior: float | None = Field(
        None,
        ge=0,
        description="ResNet policy: source statistics count as much as so many images; null: batch statistics",
    )

    @model_validator(mode="after")
    def _choose_recipe(self) -> Self:
        """The recipe that null stands for, so that a run's configuration names it."""
        if self.views.recipe is None:
            fine_grained = isinstance(layouts.LAYOUTS.get(self.dataset), layouts.SplitLayout)
            recipe = "augmix" if "views" in self.METHOD.reads and fine_grained else "crop"
            object.__setattr__(self, "views", self.views.model_copy(update={"recipe": recipe}))
        return self

    @property
    def tunes_clip(self) -> bool:
        return self.tune in {"encoder", "norm"}

    @property
    def tunes_texts(self) -> bool:
        return self.tune == "prompt" or self.prompt_start is not None

    @property
    def prompt_words(self) -> str:
        """The prompt as the models read it: prompt tuning has spaces for underscores, fixed prompts keep them.

        Source: official TPT/clip/custom_clip.py, whose two classes differ in this.
        """
        return self.prompt.replace("_", " ") if self.tune == "prompt" or self.prompt_start else self.prompt

    def _rules(self) -> Iterator[str]:
        yield from super()._rules()
        method, tune = self.method, self.tune
        uses_prompts = tune == "prompt" or self.prompt_start is not None
        if self.tunes and tune == "none":
            yield f"method={method} needs tune=prompt, prototypes, encoder or norm, got none"
        if self.tunes:
            yield from some_view_kept(self)
        if self.tunes_clip and self.prompt_start is not None:
            yield (
                f"tune={tune} takes its class features from prompt, so prompt_start would be ignored; set "
                "prompt_start=null (the official code ignores it silently)"
            )
        # What a user's method inherits says nothing of its own answer.
        if self.images_at_once > 1 and (self.momentum or tune == "prototypes" or not vars(self.METHOD).get("batches")):
            got = f"got method={method}, tune={tune}{', momentum' * (self.momentum is not None)}"
            able = [name for name in readers(self.task, "steps") if vars(find_method(self.task, name)).get("batches")]
            what = f"method={', '.join(able)}, tune=prompt, encoder or norm, and no momentum; {got}"
            yield f"images_at_once is for {what}; a method of your own sets `batches`"
        if self.momentum is not None and not self.tunes_clip:
            yield f"momentum needs tune=encoder or norm, got {tune}"
        if self.bn_prior is not None and not self.tunes_clip:
            yield f"bn_prior needs tune=encoder or norm, got {tune}"
        if self.view_cache and self.tunes_clip:
            yield f"view_cache keeps the features of an image encoder that stays as it is, but tune={tune} changes it"
        if self.texts != "prompt" and uses_prompts:
            yield f"texts={self.texts} is for fixed texts; tune=prompt and prompt_start have one prompt, texts=prompt"
        if self.reward_texts != "prompt" and not self.reward:
            yield f"reward_texts={self.reward_texts}, but there is no reward model"
        if self.class_position != "end" and not uses_prompts:
            yield f"class_position={self.class_position} needs tune=prompt; fixed prompts have the name at the end"
        if self.class_position != "middle" and "[CLS]" in self.prompt_words:
            yield "prompt holds [CLS]; set class_position=middle"
        if self.class_position == "middle" and not _splits(self.prompt_words):
            yield f"class_position=middle needs [CLS] between two words of prompt, got {self.prompt!r}"


def some_view_kept(config: ClassificationConfig) -> Iterator[str]:
    """The rule of methods that need a confident view."""
    views = config.views
    if views.num_selected < 1:
        yield (
            f"views.num_views={views.num_views} times views.select_fraction={views.select_fraction} keeps no view; "
            "raise one of them so that their product is at least 1"
        )


def _splits(prompt: str) -> bool:
    words = prompt.split()
    return words.count("[CLS]") == 1 and 0 < words.index("[CLS]") < len(words) - 1
