"""The surface of every method of captioning: what it is given, and what it answers."""

from collections.abc import Iterable
from dataclasses import dataclass
from types import SimpleNamespace

from captioning.adapt import Answer, Picture, adapt
from captioning.captioner import Captioner
from captioning.config import CaptioningConfig
from clipscore import task
from clipscore.config import methods
from clipscore.episodic import EpisodicState
from clipscore.reward import ClipReward


@dataclass(frozen=True)
class Context:
    """What a method is given at the start of a run."""

    config: CaptioningConfig  # with the method's own options
    captioner: Captioner
    reward: ClipReward | None  # where `reads` has it
    scale_loss: bool = False  # under fp16 autocast


class Method(methods.Method):
    """A way to caption an image: `answer` takes a `Picture` and gives an `Answer`."""

    context: Context


def build_state(config: CaptioningConfig, captioner: Captioner, scale_loss: bool = False) -> EpisodicState:
    """AdamW over the mapper, and the state that is restored for each image."""
    tuned = dict(captioner.mapper.named_parameters())
    mapper = SimpleNamespace(tuned=tuned, state=tuned, copies=captioner.cast_tuned(), written=())
    return task.build_state(config, mapper, scale_loss)


class TunedMethod(methods.Tuned, Method):
    """A mapper that is tuned to the image by an objective; see `captioning.adapt`."""

    reads = methods.TUNING | {"caption_before"}

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.captioner, self.sequential = context.captioner, context.config.momentum is not None
        self.objective = self.build_objective()
        self.state = build_state(context.config, self.captioner, context.scale_loss)

    def stages(self) -> Iterable[methods.Stage]:
        """Those of the loop, of the captioner, and of the proposals."""
        yield (self.objective, "propose", "text")
        yield from ((self.captioner, function, "policy") for function in ("prefix", "token_losses"))
        yield from super().stages()

    def answer(self, picture: Picture) -> Answer:
        """Adapt, write, and leave no trace."""
        config = self.context.config
        return adapt(self.captioner, self.state, self.objective, picture, config.steps, config.caption_before)
