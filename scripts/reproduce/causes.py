"""Why a rung is off: each usual cause is tried, and the one whose removal brings the expected figure is named."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from clipscore.config.adapting import AdaptingConfig
from clipscore.models.backends import open_clip
from scripts.reproduce.rungs import Outcome, Rung, climb

QUICK = "-quickgelu"
CLOSED = 0.5  # a cause is named if without it at least so much of the difference is gone


class Cause(NamedTuple):
    """What may be wrong, what to do, and how far the figure is off without it, in shares of what is allowed."""

    text: str
    advice: str
    distance: float = 0.0


UNKNOWN = Cause("none of the usual causes", "compare config.yaml and env.json of the run with the row's YAML")


def plain_cause(rung: Rung, outcome: Outcome, config: AdaptingConfig) -> Cause | None:
    """What is wrong whatever the figure: the data are not whole, or a CLIP is tuned in another precision on a GPU."""
    wanted, run = min(rung.limit or rung.size or 0, rung.size or 0), outcome.run
    if outcome.num_samples < wanted or run.about.get("faults"):
        text = f"the data are not whole: {outcome.num_samples:,} of {wanted:,} samples"
        return Cause(text, f"bash scripts/doctor.sh {config.dataset} says what is missing")
    precision = run.fingerprint.get("precision", "").removeprefix("torch.")
    on_gpu = any(environment.get("gpu") for environment in run.environments)
    if config.tunes_clip and on_gpu and precision != "float16":
        text = f"the precision is {precision}, in which small updates of a CLIP's weights are rounded otherwise"
        return Cause(text, "the published figures are of fp16 on a GPU: leave precision=auto")
    return None


def most_likely_cause(rung: Rung, outcome: Outcome, words: Sequence[str]) -> Cause | None:
    """The cause that explains an outcome best; None: it is none of the usual ones.

    Probes run the rung again with one thing changed, in folders of their own.
    """
    found = []
    for number, (text, advice, word) in enumerate(_changes(rung.config(words))):
        probe = climb(rung, [*words, word, f"name={outcome.run.name}-probe{number}"])
        found.append(Cause(text, advice, probe.distance))
    found += _class_order(rung, outcome)
    best = min(found, key=lambda cause: cause.distance, default=None)
    return best if best and best.distance <= CLOSED * outcome.distance else None


def _changes(config: AdaptingConfig) -> Iterator[tuple[str, str, str]]:
    """What could be another way: its name, what to do, and the `key=value` word that changes it."""
    prompt = getattr(config, "prompt", None)
    if prompt is not None and getattr(config, "tune", None) != "prompt":
        other = prompt.replace("_", " ") if "_" in prompt else prompt.replace(" ", "_")
        yield f"the prompt is {prompt!r}", f"the figure is that of prompt={other!r}", f"prompt={other}"
    models = {"policy": config.policy}
    if config.reward and len(config.reward.models) == 1:
        models["reward.models"] = config.reward.models[0].name
    for key, model in models.items():
        if twin := _other_activation(model):
            text = f"the weights of {model} belong to the other activation, GELU or QuickGELU"
            yield text, f"give {key}={twin}", f"{key}={twin}"


def _other_activation(model: str) -> str | None:
    """`arch:file` with the architecture that differs in the activation; None where the weights' name says it."""
    arch, colon, file = model.partition(":")
    other = arch.removesuffix(QUICK) if arch.endswith(QUICK) else arch + QUICK
    return f"{other}:{file}" if colon and other in open_clip.list_models() else None


def _class_order(rung: Rung, outcome: Outcome) -> list[Cause]:
    """Where another order of class names would bring the figure: classes are told apart, but by others' names."""
    column, _, expected, allowed = outcome.figures[0]
    if rung.table.task != "classification" or column.metric != "accuracy":
        return []
    counts = Counter(outcome.run.collect(lambda row: (row["label"], row["top5"][0])).values())
    given: dict[int, int] = {}
    for (label, answer), _ in counts.most_common():
        if label not in given and answer not in given.values():
            given[label] = answer
    moved = sorted(label for label, answer in given.items() if label != answer)
    if not moved:
        return []
    hits = sum(counts[pair] for pair in given.items() if counts[pair] > 1)  # a single picture shows no order
    text = f"class names are in another order than the labels, at {len(moved)} of {len(given)} classes: "
    if names := outcome.run.about.get("class_names"):
        text += f"pictures of {names[moved[0]]!r} are answered {names[given[moved[0]]]!r}"
    advice = "the names must come in the order of the labels: of the sorted folders, or of the split file"
    return [Cause(text, advice, abs(100 * hits / counts.total() - expected) / allowed)]
