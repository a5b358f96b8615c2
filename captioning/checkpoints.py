"""Read trained mappers: a file whose `state_dict` holds `clip_project.*` and, in most, the language model.

Source: official caption/image_llm/train.py writes them, caption/capdec_tta.py reads them.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor, nn

from captioning.mapper import ClipLength, Mapper, build_mapper
from clipscore.models.pickles import check_numbers, load_tensors

MAPPER_KEYS, LM_KEYS = "clip_project.", "llm.llm."
CHECKPOINT = "ckpt-latest.pt"
LM_CONSTANTS = (".attn.bias", ".attn.masked_bias")  # older versions of transformers stored them with GPT-2
MAX_NAMED = 5  # keys per complaint
SET_POLICY, SET_LLM = (f"set {key} to the one that it was trained with" for key in ("policy", "llm"))


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The mapper's and the language model's weights, the latter possibly empty; of a file, or of a folder with one.

    FileNotFoundError when it is not there, ValueError when it is no checkpoint of a captioner.
    """
    file = path / CHECKPOINT if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"no checkpoint at {file}; give the file that holds the trained mapper")
    stored = load_tensors(file)
    state = stored.get("state_dict") if isinstance(stored, dict) else None
    if not isinstance(state, dict):
        raise ValueError(f"{file} has no state_dict; a captioner's checkpoint is needed")
    tensors = {key: tensor for key, tensor in state.items() if isinstance(tensor, Tensor)}
    mapper, lm = (
        {key.removeprefix(kind): tensor for key, tensor in tensors.items() if key.startswith(kind)}
        for kind in (MAPPER_KEYS, LM_KEYS)
    )
    surplus = [key for key in state if key not in tensors or not key.startswith((MAPPER_KEYS, LM_KEYS))]
    if surplus or not mapper:
        found = f"also {_named(surplus)}" if surplus else "none of the first kind"
        needed = f"a captioner's checkpoint has tensors {MAPPER_KEYS}* and {LM_KEYS}* only"
        raise ValueError(f"{file}: {needed}, found {found}")
    return mapper, lm


def load_mapper(
    kind: str,
    state: Mapping[str, Tensor],
    clip_width: int,
    lm_width: int,
    prefix_length: int,
    num_layers: int,
    clip_length: ClipLength = None,
) -> Mapper:
    """A mapper with these weights (see `read_checkpoint`), in fp32; the other arguments as in `build_mapper`.

    ValueError: weights of another kind or other sizes, with the setting to change; a missing, surplus or odd tensor.
    """
    stored_kind = "mlp" if "model.0.weight" in state else "transformer"
    if stored_kind != kind:
        raise ValueError(f"the checkpoint holds a mapper of kind {stored_kind}; set mapper={stored_kind}")
    needed = {"mlp": {"model.0.weight": 2, "model.2.bias": 1}, "transformer": {"linear.weight": 2, "prefix_const": 2}}
    layers = len({key.split(".")[2] for key in state if key.startswith("transformer.layers.")})

    def problems() -> Iterator[str]:
        if any(key not in state or state[key].ndim != ndim for key, ndim in needed[kind].items()):
            return  # named with everything else that does not fit when the weights are loaded
        first, last = (state[key] for key in needed[kind])
        if (d := first.shape[1]) != clip_width:
            yield f"the mapper reads CLIP features of width {d}, but the policy's have width {clip_width}; {SET_POLICY}"
        if kind == "mlp":
            if len(last) != (n := prefix_length * lm_width):
                needs = f"prefix_length={prefix_length} embeddings of the language model's width {lm_width} are {n}"
                yield f"the mapper makes {len(last)} numbers, but {needs}; set prefix_length, or {SET_LLM}"
            return
        if (w := last.shape[1]) != lm_width:
            yield f"the mapper makes embeddings of width {w}, but the language model reads width {lm_width}; {SET_LLM}"
        tokens: ClipLength = len(first) // last.shape[1]
        tokens = "patches" if tokens == 1 != clip_length else tokens
        pairs = (len(last), tokens), (prefix_length, clip_length or prefix_length)
        if pairs[0] != pairs[1]:
            stored, given = (f"prefix_length={p} clip_length={'null' if c == p else c}" for p, c in pairs)
            yield f"the mapper has {stored}, not {given}; set them so"
        if layers != num_layers:
            yield f"the mapper has mapper_layers={layers}, not {num_layers}; set it so"

    if found := list(problems()):
        raise ValueError("; ".join(found))
    mapper = build_mapper(kind, clip_width, lm_width, prefix_length, num_layers, clip_length)
    load_strictly(mapper, state, f"the {kind} mapper")
    return mapper


def load_lm(lm: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put the language model that a checkpoint carries, if any, into place; errors as in `load_strictly`."""
    weights = {key: tensor for key, tensor in state.items() if not key.endswith(LM_CONSTANTS)}
    if weights:
        load_strictly(lm, weights, "the language model")


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load weights; of tensors that share memory one is enough. ValueError: missing, surplus or mis-shaped ones."""
    own: dict[str, Tensor] = module.state_dict()
    given = {own[key].data_ptr() for key in state if key in own}
    wrong = {
        "missing": [key for key, tensor in own.items() if key not in state and tensor.data_ptr() not in given],
        "surplus": [key for key in state if key not in own],
        "of another shape": [
            f"{key} {list(tensor.shape)} (expected {list(own[key].shape)})"
            for key, tensor in state.items()
            if key in own and tensor.shape != own[key].shape
        ],
    }
    problems = [f"{word} {_named(keys)}" for word, keys in wrong.items() if keys]
    if problems:
        raise ValueError(f"the checkpoint does not fit {what}: {'; '.join(problems)}")
    module.load_state_dict(dict(state), strict=False)
    check_numbers(module, state, f"the checkpoint of {what}")


def _named(keys: list[str]) -> str:
    more = f" and {len(keys) - MAX_NAMED} more" if len(keys) > MAX_NAMED else ""
    return ", ".join(keys[:MAX_NAMED]) + more
