"""The surface of every method of classification: what it is given, and what it answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from classification.adapt import Episode, adapt
from classification.config import ClassificationConfig
from classification.policy import Policy
from classification.seen import Bank, Views, entropies
from clipscore.config import methods
from clipscore.objectives import Step
from clipscore.reward import ClipReward
from clipscore.task import build_state, complete_answer


@dataclass(frozen=True)
class Context:
    """What a method is given at the start of a run."""

    config: ClassificationConfig  # with the method's own options
    class_names: Sequence[str]  # C
    policy: Policy
    reward: ClipReward | None  # where `reads` has it
    reward_class_features: Sequence[Tensor]  # of the class texts. M x [C, D]
    members: Sequence[Policy] = ()  # of a zero-shot ensemble, beside the policy
    scale_loss: bool = False  # under fp16 autocast

    def views(self, pixels: Tensor | Callable[[], Tensor], bank: Bank | None = None) -> Views:
        """An image as these models see it; see `Views`."""
        return Views(pixels, self.policy, self.reward, self.reward_class_features, bank)


@dataclass
class Answer:
    """What a method says of one image."""

    logits: Tensor  # [C]
    before: Tensor | None = None  # by the policy as it starts [C]; None: those of view 0
    selected: Tensor | None = None  # views that were trusted [S]
    entropy: Tensor | None = None  # of their predictions, nats [S]
    steps: list[Step] | None = None  # updates, of a method that makes some
    extra: dict[str, Any] = field(default_factory=dict)  # goes into the record: tensors, numbers, texts, lists of them


class Method(methods.Method):
    """A way to classify an image: `answer` takes `Views` and gives an `Answer`."""

    context: Context
    reads = frozenset({"views"})


class TunedMethod(methods.Tuned, Method):
    """A policy that is tuned to the image by an objective, and answers for its view 0; see `classification.adapt`."""

    reads = Method.reads | methods.TUNING | {"tune", "entropy_weight", "bn_prior"}

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        config, self.policy = context.config, context.policy
        self.objective = self.build_objective()
        self.sequential = config.momentum is not None
        self.num_selected = config.views.num_selected
        used = None if config.entropy_weight else self.objective.used_per_row
        self.policy.limit_classes(used and used * self.num_selected)
        self.state = build_state(config, self.policy, context.scale_loss)

    def answer(self, views: Views) -> Answer:
        """Adapt, answer, and leave no trace."""
        config = self.context.config
        episode = adapt(
            self.policy, self.state, self.objective, views, self.num_selected, config.steps, config.entropy_weight
        )
        return self.answer_of(episode)

    @staticmethod
    def answer_of(episode: Episode) -> Answer:
        """What an episode says."""
        entropy = entropies(episode.view_logits[episode.selected])
        return Answer(episode.after, episode.before, episode.selected, entropy, episode.steps)


def classify(method: Method, views: Views) -> Answer:
    """A method's answer for one image."""
    num_classes = len(method.context.class_names)
    return complete_answer(method, views, Answer, "logits", [num_classes], lambda: views.logits[0])
