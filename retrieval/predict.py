"""RLCF on pictures of your own: `python -m retrieval.predict --images folder --query "a dog"`, or the reverse.

Look for a text among pictures, or for a picture among texts, before and after adapting to the query.

On the demo's models:

  python -m scripts.demo.make_data output/demo_data
  python -m retrieval.predict --images output/demo_data/demo_scenes/noise/images \\
    --query "a purple five left of a purple three" \\
    policy=demo/policy.pt reward.models=demo/reward.pt lr=1e-4 num_candidates=8
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from clipscore.cli import columns, command_parser, describe, read_settings, run_command
from clipscore.data import checks
from clipscore.data.caption_sets import CaptionedImage
from clipscore.data.checks import read_lines
from clipscore.data.images import model_input
from clipscore.data.open_image import open_picture
from clipscore.data.records import rounded
from clipscore.models.devices import to_host
from clipscore.models.group import load_models
from clipscore.objectives import RlcfStep, Step
from retrieval.build import build_method, check_candidates, check_tower
from retrieval.captions import clean_caption
from retrieval.config import RetrievalConfig
from retrieval.gallery import FeatureCache, image_features, text_features
from retrieval.method import Query, rank
from retrieval.metrics import top_items

NUM_ANSWERS = 5


def main(arguments: Sequence[str] | None = None) -> int:
    parser = command_parser("retrieval", "configs/retrieval/rlcf_coco.yaml", __doc__)
    query = parser.add_mutually_exclusive_group(required=True)
    query.add_argument("--query", metavar="TEXT", help="a text to look for in --images")
    query.add_argument("--query-image", metavar="FILE", help="a picture to look for in --texts")
    parser.add_argument("--images", metavar="FOLDER", help="the pictures to search, those of sub-folders included")
    parser.add_argument("--texts", metavar="FILE", help="the texts to search, one per line")
    return run_command(parser, predict, show, arguments)


def predict(args: argparse.Namespace) -> dict[str, Any]:
    """Adapt to the query of a command line; a JSON-able result."""
    direction = "text_to_image" if args.query is not None else "image_to_text"
    config = read_settings(args, RetrievalConfig, f"direction={direction}")
    images, texts = read_question(args)
    query, items, place = args.query_image, texts, "--texts"
    if direction == "text_to_image":
        query, items, place = texts[0], [image.id for image in images], "--images"
    check_candidates(config.model_copy(update={"dataset": place}), len(items))
    about = {"query": query, "direction": direction, "method": describe(config), "gallery_size": len(items)}
    return {**about, **result(*search(config, images, texts), items)}


def read_question(args: argparse.Namespace) -> tuple[list[CaptionedImage], list[str]]:
    """The images and the cleaned texts of a command line, one of which is the query, the others the gallery.

    ValueError or FileNotFoundError for a half that is missing or empty.
    """
    by_image = args.query_image is not None
    needed, other = ("texts", "images") if by_image else ("images", "texts")
    if getattr(args, needed) is None or getattr(args, other) is not None:
        pair = "--query-image FILE goes with --texts FILE" if by_image else "--query TEXT goes with --images FOLDER"
        raise ValueError(f"{pair}, and not with --{other}")
    if by_image:
        open_picture(args.query_image, "--query-image")
        picture = Path(args.query_image)
        return [CaptionedImage(picture.name, picture, (), picture.name)], read_texts(args.texts)
    text = clean_caption(args.query)
    if not text.strip():
        raise ValueError(f"--query {args.query!r}: no word is left without punctuation; say what to look for")
    return read_gallery(Path(args.images)), [text]


def read_gallery(folder: Path) -> list[CaptionedImage]:
    """The pictures of a folder and of its sub-folders, sorted by their paths; FileNotFoundError when there are none."""
    if not folder.is_dir():
        raise FileNotFoundError(f"--images {folder}: there is no such folder; give the folder of the pictures")
    found = checks.list_pictures(folder)
    if not found:
        endings = " ".join(checks.IMAGE_SUFFIXES)
        raise FileNotFoundError(f"--images {folder}: no picture is in it; they end in {endings}")
    return [CaptionedImage(name, folder / name, (), name) for name in found]


def read_texts(path: str) -> list[str]:
    """The texts of a file, one per line, as the models read them; ValueError: none, or a line without a word."""
    lines = read_lines(path, "--texts")
    texts = {number: clean_caption(line) for number, line in enumerate(lines, start=1) if line.strip()}
    for number, text in texts.items():
        if not text.strip():
            raise ValueError(f"--texts {path}: no word is left of line {number}, {lines[number - 1]!r}; remove it")
    if not texts:
        raise ValueError(f"--texts {path}: the file is empty; write a text on each line")
    return list(texts.values())


def search(
    config: RetrievalConfig, images: list[CaptionedImage], texts: list[str]
) -> tuple[Tensor, Tensor, list[Step]]:
    """Adapt to the query as the config says -> cosines of the gallery before and after, each [G], and the updates."""
    models = load_models(config)
    clip, rewards = models.policy, models.rewards
    check_tower(config, clip)
    cache, form = FeatureCache(None), clip.form
    queries = [text_features(model, texts, cache) for model in [clip, *rewards]]
    galleries = image_features([clip, *rewards], images, form, cache, config.num_workers, upright=True)
    query = clip.tokenizer(texts[:1])  # [1, L]
    if config.direction == "image_to_text":
        queries, galleries = galleries, queries
        query = model_input(open_picture(images[0].path, "--query-image"), form).unsqueeze(0)  # [1, 3, H, W]
    scores = galleries[0] @ queries[0][0]  # [G]
    answer = rank(build_method(config, models, galleries), Query(query, scores, queries[1:]))
    scale = to_host(clip.logit_scale.detach()) if config.tunes else 1.0  # of logits, which may have been tuned
    return to_host(scores), answer.scores / scale, answer.steps or []


def result(before: Tensor, after: Tensor, updates: Sequence[Step], items: Sequence[str]) -> dict[str, Any]:
    """The JSON-able part of an episode: numbers as in a run's record, gallery items by name."""
    steps: list[dict[str, Any]] = []
    for step in updates:
        shown: dict[str, Any] = {"loss": rounded(step.loss)}
        if isinstance(step, RlcfStep):
            pairs = zip(step.candidates[0].tolist(), step.rewards[0].tolist(), strict=True)
            shown["candidates"] = [{"item": items[number], "reward": rounded(reward)} for number, reward in pairs]
        steps.append(shown)
    return {"steps": steps, "before": answers(before, items), "after": answers(after, items)}


def answers(cosines: Tensor, items: Sequence[str]) -> list[dict[str, Any]]:
    """The items that rank first. [G]"""
    top = top_items(cosines[None], NUM_ANSWERS)[0]
    return [{"item": items[number], "cosine": rounded(float(cosines[number]))} for number in top]


def show(found: dict[str, Any]) -> str:
    kind = "pictures" if found["direction"] == "text_to_image" else "texts"
    lines = [f"{found['query']}: looked for in {found['gallery_size']} {kind}", found["method"]]
    for number, step in enumerate(found["steps"], start=1):
        candidates = step.get("candidates", [])
        lines += ["", f"step {number}: loss {step['loss']:.6g}" + (", rewards of the candidates" * bool(candidates))]
        lines += columns([[f"{candidate['reward']:.4f}", candidate["item"]] for candidate in candidates])
    for moment in ("before", "after"):
        lines += ["", f"{moment}: cosine"]
        lines += columns([[f"{answer['cosine']:.4f}", answer["item"]] for answer in found[moment]])
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
