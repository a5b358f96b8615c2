"""Encode all images and captions of a data set: `python -m captioning.features --dataset coco --split train --out DIR`.

The same command goes on where an earlier one was stopped, and the files are the same in the end: batches never cross
the border of a shard. Training of mappers reads the result, see `feature_files`.

Source: official caption/extractor_pickle.py.
"""

import argparse
import logging
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from captioning.training import feature_files
from clipscore.clip_model import ClipModel, end_of_text
from clipscore.config.fields import CaptionFiles
from clipscore.config.load import roots
from clipscore.data.caption_sets import CaptionedImages, find_captions
from clipscore.data.checks import list_some, read_lines
from clipscore.data.images import Pictures, encode_pictures, progress
from clipscore.models.devices import autocast_dtype, choose_device
from clipscore.models.load import load_clip
from clipscore.text_encoder import length_chunks

SHARD_ROWS = 8192

Encoded = tuple[Tensor, Iterable[int]]  # features of a shard [rows, D], and the places of those that have none
Encode = Callable[[slice, Callable[[int], None]], Encoded]  # of some rows; the second counts those that are done

log = logging.getLogger(__name__)


def extract(
    data: CaptionedImages,
    split: str,
    clip: ClipModel,
    out: Path,
    batch: int = 64,
    num_workers: int = 4,
    partial: bool = False,
    patches: bool = False,
    texts: Sequence[str] = (),
    shard_rows: int = SHARD_ROWS,
) -> feature_files.FeatureIndex:
    """Write the features of a data set, or what an earlier call left out; returns what they are of.

    Args:
        split: for the record.
        out: folder of the result; ValueError when it holds other features.
        batch: images at once; captions are batched by their length.
        partial: pass over an image that cannot be read, and over its captions; else UnreadableImage.
        patches: of images all tokens, for mappers with clip_length=patches.
        texts: captions without images, in place of `data`'s.
        shard_rows: rows of a file.
    """
    index = feature_files.FeatureIndex(
        dataset=data.name,
        split=split,
        policy=clip.name,
        weights=clip.sha256,
        precision=str(clip.autocast_dtype or clip.dtype),
        preprocessing=f"{clip.form.how}; {clip.image_size} px" + "; all tokens" * patches,
        shard_rows=shard_rows,
        image_ids=[image.image_id for image in data.images],
        captions=[caption for image in data.images for caption in image.captions] or list(texts),
        image_index=[row for row, image in enumerate(data.images) for _ in image.captions],
    )

    def encode(model: ClipModel, images: Tensor) -> Tensor:
        return (model.project_patches(images) if patches else model.project_images(images)).cpu()

    truncated: list[int] = []

    def encode_images(rows: slice, advance: Callable[[int], None]) -> Encoded:
        pictures = Pictures([image.path for image in data.images[rows]], clip.form)
        stop = None if partial else "; or partial=true to go on with what is there"
        [features], faults, cut = encode_pictures([clip], pictures, encode, batch, num_workers, stop, advance)
        for fault in faults.values():
            log.warning("left out: %s", fault)
        truncated.append(cut)
        return features, faults

    feature_files.begin_folder(out, index)
    _write(out, "images", index, encode_images)
    if sum(truncated):
        log.warning("%d pictures are cut off, and were read as far as they go", sum(truncated))
    _write(out, "texts", index, lambda rows, advance: _encode_texts(clip, index.captions[rows], advance))
    return index


def _write(out: Path, kind: feature_files.Kind, index: feature_files.FeatureIndex, encode: Encode) -> None:
    """Write the missing shards, each of the features that `encode` gives for its rows."""
    missing, total = feature_files.missing_shards(out, kind, index), index.count(kind)
    done = total - sum(min(index.shard_rows, total - start) for start in missing)
    with progress(kind, total, done) as advance:
        for start in missing:
            features, left_out = encode(slice(start, start + index.shard_rows), advance)
            feature_files.write_shard(out, kind, start, index, features, [start + place for place in left_out])


@torch.no_grad()
def _encode_texts(clip: ClipModel, captions: Sequence[str], advance: Callable[[int], None]) -> Encoded:
    ids, parts = clip.tokenize(captions), []
    chunks = length_chunks(end_of_text(ids).cpu())
    for chunk in chunks:
        parts.append(clip.project_token_ids(ids[chunk.to(ids.device)]).cpu())
        advance(len(chunk))
    return torch.cat(parts)[torch.cat(chunks).argsort()], []


def read_captions(file: str) -> list[str]:
    """Captions of a text file, one a line, or of CC3M's and CC12M's tables; ValueError: none, or another table."""
    rows = [[cell.strip() for cell in line.split("\t")] for line in read_lines(file, "--captions") if line.strip()]
    if rows and {"url", "caption"} <= set(rows[0]):
        del rows[0]
    texts = [[cell for cell in row if cell and not re.match(r"https?://", cell)] for row in rows]
    if odd := next((row for row in texts if len(row) > 1), None):
        raise ValueError(f"--captions {file}: expected a caption a line, beside it an address at most, got {odd[:3]}")
    if not any(texts):
        raise ValueError(f"--captions {file}: holds no captions")
    return [row[0] for row in texts if row]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m captioning.features", description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True, help="coco, flickr30k, demo_scenes/clean, or a name of your own")
    parser.add_argument("--annotations", help="of your own data: a json file with captions")
    parser.add_argument("--images", help="of your own data: folder of the listed images")
    parser.add_argument("--captions", metavar="FILE", help="texts alone: one a line, or CC3M's table; for CapDec")
    parser.add_argument("--patches", action="store_true", help="of images all tokens, for clip_length=patches")
    parser.add_argument("--split", default="train")
    parser.add_argument("--policy", default="ViT-B/16", help="a CLIP: a name, arch/tag, or a file")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--out", type=Path, help="folder of the features")
    place.add_argument("--name", help="or its name under OUTPUT_ROOT/features")
    parser.add_argument("--data-root", help="in the place of RLCF_DATA and configs/paths.yaml")
    parser.add_argument("--pretrained-root", help="in the place of RLCF_PRETRAINED and configs/paths.yaml")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--precision", default="fp32", help="fp32, fp16 or bf16; official: fp32")
    parser.add_argument("--batch", type=int, default=64, help="images at once")
    parser.add_argument("--num-workers", type=int, default=4, help="processes that read images")
    parser.add_argument("--partial", action="store_true", help="go on without images that are missing or unreadable")
    given = sys.argv[1:] if arguments is None else arguments
    args = parser.parse_args(["--partial" if word == "partial=true" else word for word in given])  # as errors advise
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        paths = roots() | {key: value for key, value in vars(args).items() if key.endswith("_root") and value}
        out = args.out or Path(paths["output_root"]) / "features" / args.name
        own = {"annotations": args.annotations, "images": args.images, "split": args.split}
        files = CaptionFiles(**own) if args.annotations else None
        texts = read_captions(args.captions) if args.captions else []
        if texts:
            data = CaptionedImages(args.dataset, Path(), Path(args.captions), f"{args.captions}, no images", [])
        else:
            data = find_captions(args.dataset, Path(paths["data_root"]), files, args.split, args.partial)
        log.info("%s, %s: %s", data.name, args.split, data.layout)
        device = choose_device(args.device)
        clip = load_clip(args.policy, paths["pretrained_root"], device, autocast_dtype(args.precision, device))
        options = {"partial": args.partial, "patches": args.patches, "texts": texts}
        index = extract(data, args.split, clip, out, args.batch, args.num_workers, **options)
        log.info("%s: %d images, %d captions", out, len(index.image_ids), len(index.captions))
        if lost := [data.images[row].id for row in feature_files.rows_left_out(out, index)]:
            log.warning("left out of them, with their captions: %d unreadable images%s", len(lost), list_some(lost))
        for fault in data.faults:
            log.warning("not whole: %s", fault)
        return 0
    except (ValueError, OSError, RuntimeError) as error:
        log.error("error: %s", error)
        return 2
    except KeyboardInterrupt:
        log.error("stopped; the same command goes on from here")
        return 130


if __name__ == "__main__":
    sys.exit(main())
