"""The doctor's look at weight files: whole, the right ones by their sha256, and of shapes that fit each other."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache

from captioning.build import find_checkpoint, find_language_model
from captioning.checkpoints import check_sizes, read_checkpoint
from captioning.config import CaptioningConfig
from classification.prompt_learner import load_prompt_start
from clipscore.models.files import (
    FETCH,
    check_openai,
    check_whole,
    checksums,
    file_sha256,
    local_file,
    places,
)
from scripts.doctor.checks import Check, wrong
from scripts.fetch.manifest import FILES, RemoteFile

CLIP_WIDTH, NUM_CONTEXT, OPT_WIDTH = 512, 4, 768  # of ViT-B/16's features and tokens; of CoOp; of OPT-125m
LLM = CaptioningConfig.model_fields["llm"].default
_ALL = ("table1", "table2", "table3")


@dataclass(frozen=True)
class Weights:
    """One entry of the table of weights.

    Attributes:
        name: as configs write it.
        tables: that need it.
        rows: of the tables, in words.
        file: path of its (first) file in the manifest.
        look: finds and checks it; says what it found.
    """

    name: str
    tables: Sequence[str]
    rows: str
    file: str
    look: Callable[[str, Path, Path], str]


def check_weights(tables: Sequence[str], pretrained_root: Path, output_root: Path) -> list[Check]:
    """Look at every weight file that the tables need; files are hashed side by side.

    Args:
        tables: `table1`, `table2`, `table3`.
        pretrained_root: folder of weight files.
        output_root: where mappers that were trained here lie.
    """
    needed = [weights for weights in WEIGHTS if set(weights.tables) & set(tables)]
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda weights: _check(weights, pretrained_root, output_root), needed))


def _check(weights: Weights, root: Path, output_root: Path) -> Check:
    numbers = [table[-1] for table in weights.tables]
    title = f"{weights.name}, for Table{'s' * (len(numbers) > 1)} {', '.join(numbers)} ({weights.rows})"
    try:
        return Check(title, "ok", (weights.look(weights.name, root, output_root),))
    except (ValueError, OSError, RuntimeError) as error:
        remote = next(file for file in FILES if file.path == weights.file)
        return wrong(title, error, f"place: {root / weights.file}", f"from: {_source(remote)}")


def _source(file: RemoteFile) -> str:
    if file.address:
        return f"bash scripts/fetch_pretrained.sh {file.group}, which takes it from {file.address}"
    return f"{file.page}: {file.by_hand}"


def _clip(name: str, root: Path, _: Path) -> str:
    path = local_file(name, root)
    if path is None:
        path = Path("~/.cache/clip").expanduser() / places(name, root)[0].name  # where open_clip puts it
    if not path.is_file():
        tried = "".join(f"\n  {place}" for place in (*places(name, root), path))
        raise FileNotFoundError(f"no weights for {name}; tried:{tried}")
    check_whole(path)
    sha256 = file_sha256(path)
    check_openai(name, path, sha256, root)
    is_listed = f"clip/{path.name}" in checksums(root)
    return f"found: {path} ({path.stat().st_size:,} bytes), sha256 {'as expected' if is_listed else 'not listed'}"


def _prompt(name: str, root: Path, _: Path) -> str:
    path = root / name
    context, meta_net = load_prompt_start(name, [root])
    expected = [NUM_CONTEXT, CLIP_WIDTH]
    if list(context.shape) != expected:
        raise ValueError(f"{path} holds a context {list(context.shape)}, expected {expected}; take that of ViT-B/16")
    if bool(meta_net) != name.startswith("cocoop"):
        found = "a" if meta_net else "no"
        raise ValueError(f"{path} holds {found} meta network; a CoOp file has none, a CoCoOp file has one")
    shapes = "".join(f", {key} {list(value.shape)}" for key, value in meta_net.items() if value.ndim > 1)
    return f"found: {path}, context {list(context.shape)}{shapes}"


def _language_model(name: str, root: Path, _: Path) -> str:
    folder = Path(find_language_model(name, root))
    if not (folder / "config.json").is_file():
        cached = try_to_load_from_cache(name, "config.json")
        if not isinstance(cached, str):
            raise FileNotFoundError(f"no config.json in {root / name.split('/')[-1]}, nor in Hugging Face's cache")
        folder = Path(cached).parent
    width, vocabulary = language_model_sizes(folder)
    files = [folder / file for file in ("model.safetensors", "pytorch_model.bin")]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise FileNotFoundError(f"{folder}: neither model.safetensors nor pytorch_model.bin; get it again")
    check_whole(file)
    expected, found = checksums(root).get(f"{folder.name}/{file.name}"), file_sha256(file)
    if expected not in (None, found):
        raise ValueError(f"{file} ({file.stat().st_size:,} bytes) has the sha256 {found}, expected {expected}; {FETCH}")
    if file.suffix == ".bin":
        state = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
        shape = next((list(value.shape) for key, value in state.items() if key.endswith("embed_tokens.weight")), None)
        if shape != [vocabulary, width]:
            raise ValueError(f"{file}: embed_tokens.weight is {shape}, config.json says {[vocabulary, width]}")
    tokenizer = [folder / file for file in ("tokenizer.json", "vocab.json")]
    if not any(path.is_file() for path in tokenizer):
        raise FileNotFoundError(f"{folder}: no tokenizer, neither tokenizer.json nor vocab.json; get it again")
    return f"found: {file} ({file.stat().st_size:,} bytes), width {width}, {vocabulary:,} tokens"


def language_model_sizes(folder: Path) -> tuple[int, int]:
    """Width of the token embeddings and number of tokens, from config.json.

    Raises:
        ValueError: it cannot be read, or does not say.
    """
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        return config.get("word_embed_proj_dim", config["hidden_size"]), config["vocab_size"]
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{file} is no config of a language model ({type(error).__name__}: {error})") from error


def _mapper(name: str, root: Path, output_root: Path) -> str:
    path = find_checkpoint(name, [root, output_root])
    state, lm_state = read_checkpoint(path)
    folder = Path(find_language_model(LLM, root))
    width = language_model_sizes(folder)[0] if (folder / "config.json").is_file() else OPT_WIDTH
    options = {key: CaptioningConfig.model_fields[key].default for key in ("mapper", "prefix_length", "mapper_layers")}
    check_sizes(options["mapper"], state, CLIP_WIDTH, width, options["prefix_length"], options["mapper_layers"])
    carried = "with" if lm_state else "without"
    return f"found: {path}, fits ViT-B/16 and width {width}, {carried} a language model"


WEIGHTS = (
    Weights("ViT-B/16", _ALL, "every row", "clip/ViT-B-16.pt", _clip),
    Weights("ViT-L/14", _ALL, "RLCF, KD, ATKD", "clip/ViT-L-14.pt", _clip),
    Weights("ViT-L/14@336px", _ALL, "RLCF-S, RLCF-S-M", "clip/ViT-L-14-336px.pt", _clip),
    Weights("RN50x64", _ALL, "RLCF-S, RLCF-S-M", "clip/RN50x64.pt", _clip),
    Weights("ViT-B/32", ("table3",), "CLIPScore", "clip/ViT-B-32.pt", _clip),
    *(
        Weights(file.other_paths[0], ("table1",), file.needed_by, file.path, _prompt)
        for file in FILES
        if file.group in ("coop", "cocoop")
    ),
    Weights(LLM, ("table3",), "every row", "opt-125m/config.json", _language_model),
    *(
        Weights(str(Path(file.path).parent), ("table3",), f"{file.path.split('_')[0]} rows", file.path, _mapper)
        for file in FILES
        if file.group == "mappers"
    ),
)
