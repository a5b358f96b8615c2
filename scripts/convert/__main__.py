"""Copy a data set into the folders of runs: `python -m scripts.convert imagenet clip-benchmark/wds_imagenet1k`.

From webdataset tars (CLIP_benchmark's: jpg, png or webp, with cls or txt) or Hugging Face's parquet (columns image and
label, or image and caption): a file, a folder, or a name on the Hugging Face hub. Images are copied as they are; the
same command goes on where an earlier one ended, and nothing that is there is replaced. In the end images and classes
are counted as a run does. Where a copy has names of its own, ids and views are not those of the original files; what a
run says of its data names the copy.
"""

import itertools
import json
import logging
import re
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import huggingface_hub
from tqdm import tqdm

from classification.data.class_names import wnids
from classification.data.find import find_dataset
from classification.data.layouts import LAYOUTS, FolderLayout
from clipscore.config.load import roots
from clipscore.data.caption_sets import find_captions
from clipscore.data.checks import CONVERTED, IMAGE_SUFFIXES, read_json
from scripts.runs.process import command, optional, script_parser
from scripts.runs.rows import whole_file, write_whole

CAPTION_PLACES = {"coco": ("coco2014", "val2014"), "flickr30k": ("flickr30k", "flickr30k-images")}
CLASS_PLACES = {name: at.roots[0] for name, at in LAYOUTS.items() if isinstance(at, FolderLayout) and name[-2:] != "_c"}

log = logging.getLogger("scripts.convert")  # __name__ is __main__ under python -m


class Copied(NamedTuple):
    """One image of a copy."""

    name: str  # of its file
    content: bytes
    label: int | None
    captions: list[str] | None


def read_tar(path: Path) -> Iterator[Copied]:
    """The samples of a webdataset: files behind each other whose names agree up to the first dot."""
    key = ""
    try:
        with path.open("rb") as file:
            file.seek(-min(tarfile.BLOCKSIZE, path.stat().st_size), 2)
            if any(file.read()):  # tarfile would not tell
                raise EOFError("its end is missing")
        with tarfile.open(path, "r|") as tar:
            files = ((member.name, tar.extractfile(member)) for member in tar if member.isfile())
            pairs = ((*PurePosixPath(name).name.partition(".")[::2], part.read()) for name, part in files if part)
            for key, group in itertools.groupby(pairs, key=lambda pair: pair[0]):
                parts = {f".{suffix.lower()}": (f"{key}.{suffix}", content) for _, suffix, content in group}
                image = next((parts[suffix] for suffix in parts if suffix in IMAGE_SUFFIXES), None)
                label, texts = (parts.get(suffix, ("", b""))[1].decode().strip() for suffix in (".cls", ".txt"))
                if image:
                    captions = [line for line in texts.splitlines() if line.strip()] or None
                    yield Copied(*image, int(label) if label.isdigit() else None, captions)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{path} is cut off or no tar ({error}), after {key!r}; get it again") from error


def read_parquet(path: Path) -> Iterator[Copied]:
    """The rows of a file of Hugging Face's; the wnid that ImageNet's file names carry there is taken off again."""
    parquet: Any = optional("pyarrow.parquet", "pyarrow", f"reading {path.name}")
    try:
        batches = parquet.ParquetFile(path).iter_batches(64)
        for number, row in enumerate(row for batch in batches for row in batch.to_pylist()):
            name = PurePosixPath(row["image"].get("path") or f"{path.stem}-{number:06}.jpg").name
            captions = row.get("caption", row.get("captions"))
            texts = [captions] if isinstance(captions, str) else captions
            yield Copied(re.sub(r"_n\d{8}(?=\.)", "", name), row["image"]["bytes"], row.get("label"), texts)
    except (ValueError, OSError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is no whole parquet file with a column image ({error}); get it again") from error


READERS: dict[str, Callable[[Path], Iterator[Copied]]] = {".tar": read_tar, ".parquet": read_parquet}


def find_files(source: str) -> Iterator[Path]:
    """The files of a copy, of its test or validation split if it has several; FileNotFoundError: there is none."""
    path, names = Path(source), []
    if path.exists():
        names = [str(file) for file in ([path] if path.is_file() else path.rglob("*"))]
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        try:
            names = huggingface_hub.list_repo_files(source, repo_type="dataset")
        except Exception as error:  # of many kinds, and without a type in common
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            mend = "check the name, or log in with `hf auth login` where a data set asks for it"
            why = f"no file or folder {source}, and Hugging Face answers: {reason}; {mend}"
            raise FileNotFoundError(why) from error
    names = sorted((name for name in names if name.endswith(tuple(READERS))), key=lambda name: (len(name), name))
    if not names:
        raise FileNotFoundError(f"{source} holds no {' or '.join(READERS)} file; give one, a folder, or a hub's name")
    for name in [name for name in names if re.search(r"(^|/)(test|val)", name)] or names:
        yield Path(name) if path.exists() else Path(huggingface_hub.hf_hub_download(source, name, repo_type="dataset"))


def convert(dataset: str, source: str, data_root: Path) -> None:
    """Copy a data set under the data root. ValueError: a broken source, no labels in it, or another set is there."""
    folder, inner = CAPTION_PLACES.get(dataset, ("", ""))
    root = data_root / (folder or CLASS_PLACES[dataset])
    annotations, marker = root / f"dataset_{dataset}.json", root / CONVERTED
    is_ours = marker.is_file() and read_json(marker)["source"] == source
    if not is_ours and (annotations.exists() if folder else root.is_dir() and any(root.iterdir())):
        raise ValueError(f"{root} holds {dataset} already, not a copy of {source}; move it away, or use it as it is")
    classes = [] if folder else wnids(dataset)
    files = find_files(source)
    first = next(files)
    root.mkdir(parents=True, exist_ok=True)
    write_whole(marker, json.dumps({"source": source}))
    entries = []
    for file in itertools.chain([first], files):
        for image in tqdm(READERS[file.suffix](file), file.name, disable=None):
            found = image.captions if folder else image.label
            if found is None or (not folder and found not in range(len(classes))):
                wanted = "captions (txt, caption)" if folder else f"a label from 0 to {len(classes) - 1} (cls, label)"
                raise ValueError(f"{file}: {image.name} has {found}, expected {wanted}; {dataset} needs another copy")
            where = inner or (str(found) if dataset == "imagenet_v2" else classes[found])
            path = root / where / image.name
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                with whole_file(path) as written:
                    written.write(image.content)
            elif path.stat().st_size != len(image.content):
                raise ValueError(f"{path} is there already with another content; move it away")
            if folder:
                sentences = [{"raw": text} for text in found]
                entries.append({"filename": image.name, "filepath": inner, "split": "test", "sentences": sentences})
    if folder:
        write_whole(annotations, json.dumps({"images": entries, "dataset": dataset}))
    data: Any = (find_captions if folder else find_dataset)(dataset, data_root)
    log.info("%s: %d images, %s", dataset, len(data.images), data.layout)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = script_parser("convert", __doc__)
    parser.add_argument("dataset", choices=[*CLASS_PLACES, *CAPTION_PLACES])
    parser.add_argument("source", help="a file, a folder, or a name on the Hugging Face hub")
    args = parser.parse_args(arguments)
    return command(lambda: convert(args.dataset, args.source, Path(roots()["data_root"])))


if __name__ == "__main__":
    sys.exit(main())
