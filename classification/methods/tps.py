"""TPS: a shift of each class feature under which the averaged prediction is surest; all features are computed once.

Source: Sui et al. 2024 (arXiv 2403.12952); official github.com/elaine-sui/TPS, shift_classification.py.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from classification.adapt import averaged_entropy
from classification.method import Answer, Context, TunedMethod
from classification.policy import PrototypePolicy
from classification.seen import Views, confident_views
from classification.texts import class_texts
from clipscore.clip_model import ClipModel
from clipscore.config.fields import StrictModel
from clipscore.objectives import Objective, Step
from clipscore.text_encoder import encode_texts

MACRO_TEMPLATES = 80  # what the release takes for the number of templates


class TpsObjective(Objective):
    """Entropy of the prediction averaged over the views that are the most confident at each step."""

    def __init__(self, num_selected: int) -> None:
        self.num_selected = num_selected

    def step(self, logits: Tensor, observed: Any) -> Step:
        """[N, C] -> Step, with the logits of the S"""
        confident = logits[confident_views(logits.detach(), self.num_selected)]
        return Step(confident.detach(), averaged_entropy(confident))


class Tps(TunedMethod):
    """Test-time prototype shifting."""

    reads = TunedMethod.reads - {"entropy_weight", "bn_prior"}

    class Options(StrictModel):
        """What is shifted, and how."""

        mixed_texts: Literal["micro", "macro"] | None = Field(
            None, description="mix `texts` with CLIP's 80 templates: by halves, or by how many of each there are"
        )
        shift_per_class: bool = Field(True, description="false: one shift for all classes")
        tune_scale: bool = Field(False, description="also a factor of each number of a class feature")

    @staticmethod
    def rules(config: Any) -> Iterator[str]:
        """Class features that are shifted."""
        if config.tune != "prototypes":
            yield f"method={config.method} needs tune=prototypes, got {config.tune}"

    def __init__(self, context: Context) -> None:
        options: Any = context.config
        clip, features = context.policy.clip, context.policy.class_features().detach()
        if options.mixed_texts is not None:
            features = mixed_class_features(clip, context, options.mixed_texts)
        policy = PrototypePolicy(clip, features, options.shift_per_class, options.tune_scale)
        super().__init__(replace(context, policy=policy))
        self.num_kept, self.num_selected = self.num_selected, options.views.num_views  # the objective sees all

    def build_objective(self) -> TpsObjective:
        """See there."""
        return TpsObjective(self.context.config.views.num_selected)

    def answer(self, views: Views) -> Answer:
        """Shift, answer, and leave no trace; `selected` are those of the first step."""
        answer = super().answer(views)
        assert answer.selected is not None and answer.entropy is not None
        kept = slice(self.num_kept)
        return replace(answer, selected=answer.selected[kept], entropy=answer.entropy[kept])


def mixed_class_features(clip: ClipModel, context: Context, mixture: str) -> Tensor:
    """Class features of the configuration's `texts` together with CLIP's 80 templates, see `mix`. [C, D]"""
    config, names = context.config, context.class_names
    of_classes = (
        class_texts(texts, config.prompt_words, names, [Path(config.pretrained_root)])
        for texts in (config.texts, "templates80")
    )
    with clip.full_precision():
        pairs = [(encode_texts(clip, own), encode_texts(clip, others)) for own, others in zip(*of_classes, strict=True)]
    return torch.stack([mix(texts, templates, mixture) for texts, templates in pairs])


def mix(texts: Tensor, templates: Tensor, mixture: str) -> Tensor:
    """Unit-length mean of features of a class's texts and of the templates with its name. [n, D], [t, D] -> [D]

    "micro": half and half; "macro": each as often as there are texts and, as in the release, 80 templates.
    """
    share = 0.5 if mixture == "micro" else len(texts) / (len(texts) + MACRO_TEMPLATES)
    return F.normalize(share * texts.mean(dim=0) + (1 - share) * templates.mean(dim=0), dim=0)
