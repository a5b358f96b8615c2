"""Score a file of captions: BLEU, METEOR, ROUGE-L, CIDEr, SPICE, CLIPScore and RefCLIPScore, all times 100.

  python -m clipscore candidates.json image_dir --references references.json

candidates.json: {"file name": "caption"}. references.json: {"file name": ["caption", ...]}, or one "caption". A file
name is relative to image_dir; without its suffix it is found too. Without references only CLIPScore is computed.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipscore.config.load import roots
from clipscore.data import checks
from clipscore.data.checks import list_some
from clipscore.metrics import captions
from clipscore.metrics.captions import CLIP_METRICS, METRICS, check_metrics, default_metrics
from clipscore.models.devices import choose_device
from clipscore.models.load import load_clip

LABELS = {
    "bleu_1": "BLEU-1", "bleu_2": "BLEU-2", "bleu_3": "BLEU-3", "bleu_4": "BLEU-4", "meteor": "METEOR",
    "rouge_l": "ROUGE-L", "cider": "CIDEr", "spice": "SPICE", "clipscore": "CLIPScore", "refclipscore": "RefCLIPScore",
}  # fmt: skip


def read_json(path: Path, what: str) -> dict[str, Any]:
    """An object of a json file; ValueError for no file, no json, a list or the like, and a key that is there twice."""
    form = '{"file name": "caption"}' if what == "candidates" else '{"file name": ["caption", ...]}'
    try:
        content = checks.read_json(path)
    except OSError as error:
        raise ValueError(f"{what} file {path} cannot be read: {error.strerror}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{what} file {path} holds a {type(content).__name__}; expected {form}")
    return content


def find_images(folder: Path, names: Sequence[str], on_error: str) -> dict[str, Path]:
    """File of each name, which may lack its suffix; ValueError: it fits several, or none and does not skip it."""
    if not folder.is_dir():
        raise ValueError(f"image folder {folder} is not a folder")
    found = {name: folder / name for name in names}
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in folder.iterdir():
        by_stem[path.stem].append(path)
    for name in [name for name, path in found.items() if not path.is_file()]:
        fitting = sorted(by_stem[name])
        if len(fitting) > 1:
            raise ValueError(f"{name} fits several files: {', '.join(map(str, fitting))}; write the whole file name")
        found[name] = fitting[0] if fitting else found[name]
    missing = [name for name, path in found.items() if not path.is_file()]
    if missing and on_error == "stop":
        counts = f"{len(missing)} of {len(names)} candidates have no image in {folder}"
        raise ValueError(f"{counts}{list_some(missing)}; restore them")
    return found


def score_files(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that the output file holds. What can be wrong is looked at before weights are loaded."""
    device = choose_device(options.device)
    candidates = read_json(options.candidates, "candidates")
    references = read_json(options.references, "references") if options.references else None
    wanted = options.metrics.split(",") if options.metrics else None
    metrics = check_metrics(wanted or default_metrics(references is not None))
    captions.check_captions(candidates, references, metrics)
    if not options.output.parent.is_dir() or options.output.is_dir():
        raise ValueError(f"{options.output} cannot be written: name a file in an existing folder with --output")
    clip = images = None
    if any(name in CLIP_METRICS for name in metrics):
        images = find_images(options.images, list(candidates), options.on_error)
        try:
            clip = load_clip(options.model, options.pretrained, device)
        except FileNotFoundError as error:
            raise ValueError(f"{error}; --model names another CLIP, --metrics the metrics that need none") from error
    scores = captions.score_captions(candidates, references, wanted, clip, images, options.on_error)
    model = {"name": clip.name, "sha256": clip.sha256} if clip else None
    return {"means": scores.means, "notes": scores.notes, "model": model, "per_caption": scores.per_caption}


def main(arguments: list[str] | None = None) -> int:
    """Command line; the exit status is 2 when the input is bad."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m clipscore", description=__doc__, formatter_class=raw)
    parser.add_argument("candidates", type=Path, help="json file, image file name -> caption")
    parser.add_argument("images", type=Path, help="folder of the images")
    parser.add_argument("--references", type=Path, help="json file, image file name -> list of captions")
    parser.add_argument("--metrics", help=f"comma-separated: {', '.join(METRICS)}; default: all that references allow")
    parser.add_argument("--model", default="ViT-B/32", help="CLIP of CLIPScore: a name or a file (default ViT-B/32)")
    weights, where = Path(roots()["pretrained_root"]), "RLCF_PRETRAINED, else configs/paths.yaml"
    parser.add_argument("--pretrained", type=Path, default=weights, help=f"folder of weight files (default: {where})")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--on-error", choices=["stop", "skip"], default="stop", help="what an unreadable image does")
    parser.add_argument("--output", type=Path, help="file of all scores (default: <candidates>.scores.json)")
    options = parser.parse_args(arguments)
    options.output = options.output or options.candidates.with_suffix(".scores.json")
    try:
        result = score_files(options)
        print(f"{'metric':<14}{'x 100':>8}")
        for column, value in result["means"].items():
            print(f"{LABELS[column]:<14}{value:>8.2f}")
        for note in result["notes"]:
            print(f"note: {note}", file=sys.stderr)
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(result['per_caption'])} captions; each one's scores: {options.output}")
    return 0
