"""The doctor's look at weight files: whole, the right ones by their sha256, and of shapes that fit each other."""

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from captioning.build import check_language_model, find_checkpoint, find_language_model
from captioning.checkpoints import CHECKPOINT, load_mapper, read_checkpoint
from classification.prompt_learner import load_prompt_start
from clipscore.config.load import REPOSITORY, load_config
from clipscore.data.checks import read_json
from clipscore.models.backends import open_clip
from clipscore.models.files import check_published, check_whole, file_digest, local_file, places
from clipscore.models.pickles import load_tensors
from scripts.doctor.checks import Check, wrong
from scripts.fetch.manifest import FILES
from scripts.run import config_class
from scripts.tables.paper import paper_tables

NUM_CONTEXT = 4  # context words of the released CoOp and CoCoOp prompts
NUM_SHOWN = 4  # runs named beside a file


@dataclass
class Weights:
    """A weight file that configurations name; it has to fit what else the first of them says."""

    key: str  # where the name stands: policy (also for other CLIPs), prompt_start, llm or checkpoint
    name: str
    config: dict[str, Any]
    output_root: Path  # where mappers that were trained here lie
    runs: list[str] = field(default_factory=list)  # all that name it, as `table1 NAME`


def check_weights(tables: Sequence[str], pretrained_root: Path, output_root: Path) -> list[Check]:
    """Look at every weight file that the runs of these tables name; files are hashed side by side."""
    found: dict[tuple[str, str], Weights] = {}
    runs = {(table, run.name): run for table in tables for row in paper_tables()[table].rows for run in row.runs}
    for (table, run_name), run in runs.items():
        config = load_config(REPOSITORY / run.config, run.overrides, config_class, run.datasets[0]).model_dump()
        for key, name in dict.fromkeys(_named(config)):
            weights = found.setdefault((key, name), Weights(key, name, config, output_root))
            weights.runs.append(f"{table} {run_name}")

    def check(weights: Weights) -> Check:
        more = f", ... ({len(weights.runs)} runs)" if len(weights.runs) > NUM_SHOWN else ""
        rows = "every row" if len(weights.runs) == len(runs) else ", ".join(weights.runs[:NUM_SHOWN]) + more
        title = f"{weights.name}, for {rows}"
        try:
            return Check(title, "ok", (_LOOK[weights.key](weights, pretrained_root),))
        except (ValueError, OSError, RuntimeError) as error:
            return wrong(title, error, *_mend(weights.name, pretrained_root))

    with ThreadPoolExecutor() as pool:
        return list(pool.map(check, sorted(found.values(), key=lambda weights: list(_LOOK).index(weights.key))))


def _named(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Key and name of every weight file that a configuration names."""
    rewards = [model["name"] for model in (config["reward"] or {"models": []})["models"]]
    for name in (config["policy"], *rewards, *config.get("zero_shot_models", ()), config.get("metric_model")):
        if name:
            yield "policy", name
    yield from ((key, config[key]) for key in _LOOK if key != "policy" and config.get(key))


def _mend(name: str, root: Path) -> list[str]:
    """The place where a weight file belongs, and where it is obtained; nothing for files of the user's own."""
    clip = f"clip/{name.replace('/', '-').replace('@', '-')}.pt"
    llm, mapper = f"{name.removeprefix('facebook/')}/config.json", f"{name}/{CHECKPOINT}"
    remote = next((file for file in FILES if {name, clip, llm, mapper} & {file.path, *file.other_paths}), None)
    if remote is None:
        return []
    fetched = f"bash scripts/fetch_pretrained.sh {remote.group}, which takes it from {remote.address}"
    source = fetched if remote.address else f"{remote.page}: {remote.by_hand}"
    return [f"place: {root / remote.path}", f"from: {source}"]


def _clip(weights: Weights, root: Path) -> str:
    name, cache = weights.name, Path("~/.cache/clip").expanduser()  # where open_clip puts it
    path = local_file(name, root) or cache / places(name, root)[0].name
    if not path.is_file():
        tried = "".join(f"\n  {place}" for place in (*places(name, root), path))
        raise FileNotFoundError(f"no weights for {name}; tried:{tried}")
    check_whole(path)
    is_listed = check_published(name, path, file_digest(path), root)
    return f"found: {path} ({path.stat().st_size:,} bytes), sha256 {'as expected' if is_listed else 'not listed'}"


def _architecture(policy: str) -> dict[str, Any]:
    """open_clip's description of a CLIP; ValueError for a file of the user's own."""
    config = open_clip.get_model_config(re.sub("@.*", "-336", policy).replace("/", "-"))
    if config is None:
        raise ValueError(f"policy={policy} is no name of OpenAI's, so that its widths are not known here")
    return config


def _prompt(weights: Weights, root: Path) -> str:
    path, policy = root / weights.name, weights.config["policy"]
    context, meta_net = load_prompt_start(weights.name, [root])
    expected = [NUM_CONTEXT, _architecture(policy)["text_cfg"]["width"]]
    if list(context.shape) != expected:
        raise ValueError(f"{path} holds a context {list(context.shape)}, expected {expected}; take that of {policy}")
    if bool(meta_net) != weights.name.startswith("cocoop"):
        found = "a" if meta_net else "no"
        raise ValueError(f"{path} holds {found} meta network; a CoOp file has none, a CoCoOp file has one")
    shapes = "".join(f", {key} {list(value.shape)}" for key, value in meta_net.items() if value.ndim > 1)
    return f"found: {path}, context {list(context.shape)}{shapes}"


def _language_model(weights: Weights, root: Path) -> str:
    name = weights.name
    folder = Path(find_language_model(name, root))
    if not (folder / "config.json").is_file():
        cached = try_to_load_from_cache(name, "config.json")
        if not isinstance(cached, str):
            raise FileNotFoundError(f"no config.json in {root / name.split('/')[-1]}, nor in Hugging Face's cache")
        folder = Path(cached).parent
    width, vocabulary = _sizes(folder)
    file = check_language_model(str(folder), root)
    assert file is not None
    check_published(name, file, file_digest(file), root, folder.name)
    if file.suffix == ".bin":
        state = load_tensors(file)
        shape = next((list(value.shape) for key, value in state.items() if key.endswith("embed_tokens.weight")), None)
        if shape != [vocabulary, width]:
            raise ValueError(f"{file}: embed_tokens.weight is {shape}, config.json says {[vocabulary, width]}")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise FileNotFoundError(f"{folder}: neither tokenizer.json nor vocab.json; get it again")
    return f"found: {file} ({file.stat().st_size:,} bytes), width {width}, {vocabulary:,} tokens"


def _sizes(folder: Path) -> tuple[int, int]:
    """Width of the token embeddings and number of tokens, from config.json; ValueError when it does not say."""
    file = folder / "config.json"
    try:
        config = read_json(file)
        return config.get("word_embed_proj_dim", config["hidden_size"]), config["vocab_size"]
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{file} is no config of a language model ({type(error).__name__}: {error})") from error


def _mapper(weights: Weights, root: Path) -> str:
    config = weights.config
    path = find_checkpoint(weights.name, [root, weights.output_root])
    state, lm_state = read_checkpoint(path)
    found = f"found: {path}, {'with' if lm_state else 'without'} a language model"
    folder = Path(find_language_model(config["llm"], root))
    if not (folder / "config.json").is_file():
        return f"{found}; whether it fits {config['llm']} is seen when that is there"
    width, clip_width = _sizes(folder)[0], _architecture(config["policy"])["embed_dim"]
    sizes = [config[key] for key in ("prefix_length", "mapper_layers", "clip_length")]
    load_mapper(config["mapper"], state, clip_width, width, *sizes)
    return f"{found}, fits {config['policy']} and width {width}"


_LOOK: dict[str, Callable[[Weights, Path], str]] = {
    "policy": _clip, "prompt_start": _prompt, "llm": _language_model, "checkpoint": _mapper
}  # fmt: skip
