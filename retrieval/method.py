"""The surface of every method of retrieval: what it is given, and what it answers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from clipscore.config import methods
from clipscore.objectives import Step
from clipscore.reward import ClipReward
from clipscore.task import build_state, complete_answer
from retrieval.adapt import adapt
from retrieval.config import RetrievalConfig
from retrieval.policy import Policy


@dataclass(frozen=True)
class Context:
    """What a method is given at the start of a run; G gallery items, all features of unit length."""

    config: RetrievalConfig  # with the method's own options
    policy: Policy | None  # the tower that is tuned, of a method that does
    gallery: Tensor  # the policy's features [G, D]
    reward: ClipReward | None  # where `reads` has it
    reward_galleries: Sequence[Tensor]  # the reward models' M x [G, D]
    scale_loss: bool = False  # under fp16 autocast


@dataclass(frozen=True)
class Query:
    """A query and its features."""

    inputs: Tensor | None  # image [1, 3, H, W] or token ids [1, L], on the CPU, where the method tunes
    scores: Tensor  # cosines of the gallery by the policy [G]
    reward_features: Sequence[Tensor]  # the reward models' M x [1, D]
    member_scores: Sequence[Tensor] = ()  # by the other models of a zero-shot ensemble, each [G]


@dataclass
class Answer:
    """What a method says of one query."""

    scores: Tensor  # of the gallery, best the highest [G]
    before: Tensor | None = None  # None: the query's own scores
    steps: list[Step] | None = None  # updates, of a method that makes some
    extra: dict[str, Any] = field(default_factory=dict)  # goes into the record: tensors, numbers, texts, lists of them


class Method(methods.Method):
    """A way to rank a gallery: `answer` takes a `Query` and gives an `Answer`."""

    context: Context


class TunedMethod(methods.Tuned, Method):
    """A tower that is tuned to the query by an objective; see `retrieval.adapt`."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        assert context.policy is not None
        self.policy, self.sequential = context.policy, context.config.momentum is not None
        self.objective = self.build_objective()
        self.state = build_state(context.config, self.policy, context.scale_loss)

    def answer(self, query: Query) -> Answer:
        """Adapt, rank, and leave no trace."""
        assert query.inputs is not None
        context = self.context
        scores, steps = adapt(
            self.policy, self.state, self.objective, query.inputs, query.reward_features, context.gallery,
            context.config.steps,
        )  # fmt: skip
        # The first step's logits are the cosines, scaled, but not up to the rounding of a batch.
        return Answer(scores, steps[0].logits[0] if steps and not self.sequential else None, steps)

    def stages(self) -> Iterable[methods.Stage]:
        """Those of the loop, and of the policy."""
        yield from ((self.policy, function, "policy") for function in ("prepare", "encode"))
        yield from super().stages()


def rank(method: Method, query: Query) -> Answer:
    """A method's answer for one query; errors as in `complete_answer`."""
    return complete_answer(method, query, Answer, "scores", list(query.scores.shape), lambda: query.scores)
