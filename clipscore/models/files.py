"""Weight files before anything is built from them: where they may lie, whether they are whole, what they should be."""

import difflib
import hashlib
import logging
import os
import re
import socket
import zipfile
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError, safe_open

from clipscore.data.checks import START_BYTES, describe_stand_in
from clipscore.models.backends import bring, open_clip

log = logging.getLogger(__name__)

OPENAI_NAMES = (
    "RN50", "RN101", "RN50x4", "RN50x16", "RN50x64", "ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px",
)  # fmt: skip
SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
CHECKSUMS = "checksums.sha256"
FETCH = "move it away and fetch it again (bash scripts/fetch_pretrained.sh)"
FOLDER, HUB = "local-dir:", "hf-hub:"  # in front of a folder, or a name on the Hugging Face hub, as open_clip has them
OWN_CONFIG, THEIR_CONFIG = "open_clip_config.json", "config.json"  # open_clip's, transformers'
FOLDER_WEIGHTS = tuple(
    f"{stem}.{suffix}" for stem in ("open_clip_model", "open_clip_pytorch_model", "model", "pytorch_model")
    for suffix in ("safetensors", "bin")
)  # fmt: skip
_OWN_CHECKSUMS = Path(__file__).resolve().parents[2] / "pretrained" / CHECKSUMS
_ZIP_START, _ZIP_RECORD = b"PK\x03\x04", b"PK\x01\x02"
ANSWER_S = 50.0  # a server that is silent for so long is not there
MAX_EXTRA_BYTES = 1 << 26  # beyond its size on the disk, that a file may claim to hold
MAX_RECORDS, MAX_DIRECTORY_BYTES = 20_000, 1 << 24  # of a zip archive; each takes ten times its size in memory


def check_clip(name: str, pretrained_root: str | Path) -> None:
    """Look at the weight file of a CLIP without reading it; what open_clip may download need not be there.

    ValueError: a folder, or a file that is cut off. FileNotFoundError: no such file, and nothing that open_clip knows.
    """
    if path := local_file(name, Path(pretrained_root).expanduser()):
        check_whole(path)


def local_file(name: str, root: Path) -> Path | None:
    """The weight file of a CLIP; None when it is not there and open_clip may download it. Errors as in `check_clip`."""
    if name in OPENAI_NAMES or is_open_clip_tag(name):
        return _first_file(places(name, root))
    if folder := model_folder(name, root):
        if found := next((folder / file for file in FOLDER_WEIGHTS if (folder / file).is_file()), None):
            return found
        raise FileNotFoundError(f"{folder} holds no weights, expected one of {', '.join(FOLDER_WEIGHTS)}; get them")
    if name.startswith(HUB):
        return None
    file = name.partition(":")[2] if open_clip_arch(name) else name
    tried = [Path(file).expanduser(), root / file]
    if found := _first_file(tried):
        return found
    near = difflib.get_close_matches(name, OPENAI_NAMES, n=1, cutoff=0.3)
    raise FileNotFoundError(
        f"no CLIP called {name!r}: it is neither an OpenAI name ({', '.join(OPENAI_NAMES)}), nor an open_clip "
        f"arch/tag, nor a file or a model's folder (tried {', '.join(str(path.absolute()) for path in tried)})"
        + (f"; did you mean {near[0]}?" if near else "")
    )


def model_folder(name: str, root: Path) -> Path | None:
    """The folder with configuration and weights that a name stands for, also one with hf-hub: in front that is there.

    FileNotFoundError: local-dir: and no such folder, or one without a configuration.
    """
    place = name.removeprefix(FOLDER).removeprefix(HUB)
    tried = [root / place, root / Path(place).name if name.startswith(HUB) else Path(place).expanduser()]
    found = next((at for at in tried if (at / OWN_CONFIG).is_file() or (at / THEIR_CONFIG).is_file()), None)
    if found is None and name.startswith(FOLDER):
        shown = ", ".join(str(at.absolute()) for at in tried)
        raise FileNotFoundError(f"{name}: no {OWN_CONFIG} or {THEIR_CONFIG} in {shown}; name the folder that has it")
    return found


def weight_file(name: str, root: Path) -> Path:
    """The weight file of a CLIP, downloaded by open_clip when it is not there. Errors as in `check_clip`."""
    if found := local_file(name, root):
        return found
    if name.startswith(HUB):
        return _from_hub(name.removeprefix(HUB), root)
    tried, is_openai = places(name, root), name in OPENAI_NAMES
    arch, tag = name.split("/") if not is_openai else (re.sub("@.*", "-336", name).replace("/", "-"), "openai")
    cfg = open_clip.get_pretrained_cfg(arch, tag)
    log.info("%s is not under %s; open_clip downloads it", name, root)
    patience = socket.getdefaulttimeout()
    try:
        if not is_openai:
            bring("huggingface_hub")
        socket.setdefaulttimeout(ANSWER_S)  # open_clip itself would wait for ever
        return Path(open_clip.download_pretrained(cfg, prefer_hf_hub=not is_openai))
    except Exception as error:
        what = f"the OpenAI file from {cfg.get('url')}" if is_openai else "the checkpoint"
        failed = f"the download failed ({type(error).__name__}: {error}). Put {what} at {tried[0]}"
        shown = ", ".join(map(str, tried))
        raise FileNotFoundError(f"no weights for {name} and {failed}. Tried: {shown}") from error
    finally:
        socket.setdefaulttimeout(patience)


def _from_hub(repository: str, root: Path) -> Path:
    import huggingface_hub  # slow to import

    log.info("%s is not under %s; it is taken from the Hugging Face hub", repository, root)
    patterns = ["*.json", "*.txt", "*.model", "*.safetensors"]
    try:
        folder = Path(huggingface_hub.snapshot_download(repository, allow_patterns=patterns))
        if not any(folder.glob("*.safetensors")):
            huggingface_hub.snapshot_download(repository, allow_patterns="*.bin")
    except Exception as error:  # of many kinds, and without a type in common
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        mend = f"check the name, or put its folder at {root / repository}"
        raise FileNotFoundError(f"no model {repository} on the Hugging Face hub ({reason}); {mend}") from error
    found = local_file(f"{FOLDER}{folder}", root)
    assert found is not None
    return found


def places(name: str, root: Path) -> list[Path]:
    """Where the file of an OpenAI name or of an open_clip tag is looked for."""
    if name in OPENAI_NAMES:
        stem = name.replace("/", "-").replace("@", "-")
        return [root / folder / f"{stem}{suffix}" for folder in ("clip", ".") for suffix in SUFFIXES]
    return [root / "open_clip" / f"{name.replace('/', '-')}{suffix}" for suffix in SUFFIXES]


def is_open_clip_tag(name: str) -> bool:
    """Whether a name is an `arch/tag` that open_clip knows."""
    return tuple(name.split("/", 1)) in open_clip.list_pretrained()


def open_clip_arch(name: str) -> str | None:
    """The architecture in `arch/tag`, `arch:file` or `arch/tag:file`; None for other names."""
    head, colon, _ = name.partition(":")
    if is_open_clip_tag(head):
        return head.partition("/")[0]
    return head if colon and head in open_clip.list_models() else None


def _first_file(tried: Sequence[Path]) -> Path | None:
    found = next(filter(Path.is_file, tried), None)
    if not found and (folder := next(filter(Path.is_dir, tried), None)):
        raise ValueError(f"{folder} is a folder, expected a weight file; name the file in it, or put it in this place")
    return found


def check_whole(path: Path) -> None:
    """Refuse what is no whole weight file, which is seen from its beginning and its end.

    ValueError: empty, a web page or a git-lfs pointer, a zip archive (`torch.save`, TorchScript) without its end or one
    that unpacks to far more than its size, or a .safetensors file that does not fit its head.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(START_BYTES)
        stream.seek(max(0, size - MAX_DIRECTORY_BYTES))
        end = stream.read() if start.startswith(_ZIP_START) else b""
    fault = "is truncated: it is empty" if not start else describe_stand_in(start)
    if not fault and path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError as error:
            fault = f"is truncated: {error}"
    elif end and not zipfile.is_zipfile(path):
        fault = "is truncated: the end of its zip archive is missing"
    elif end and (
        end.count(_ZIP_RECORD) > MAX_RECORDS
        or sum(record.file_size for record in zipfile.ZipFile(path).infolist()) > 1.5 * size + MAX_EXTRA_BYTES
    ):
        fault = "is a zip archive that unpacks to far more than its size"
    if fault:
        raise ValueError(f"{path} ({size:,} bytes) {fault}; {FETCH}")


def check_published(name: str, path: Path, sha256: str, root: Path, folder: str = "clip") -> bool:
    """Whether `folder/file` is listed; ValueError when it is and the file, which goes by `name`, has another sha256."""
    expected = checksums(root).get(f"{folder}/{path.name}")
    if expected not in (None, sha256):
        sums = f"its sha256 is {sha256}, expected {expected} ({_checksum_file(root)})"
        what = f"{path} ({path.stat().st_size:,} bytes) is not the published {name}"
        raise ValueError(f"{what}: {sums}; {FETCH}, or name your own file by its path")
    return expected is not None


def checksums(root: Path) -> dict[str, str]:
    """{path under the folder of weights: sha256} from its own `checksums.sha256`, else from the repository's."""
    file = _checksum_file(root)
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    pairs = [line.split(maxsplit=1) for line in lines if re.match(r"[0-9a-fA-F]{64}\s", line)]
    return {os.path.normpath(path.strip().removeprefix("*")): digest.lower() for digest, path in pairs}


def _checksum_file(root: Path) -> Path:
    return root / CHECKSUMS if (root / CHECKSUMS).is_file() else _OWN_CHECKSUMS


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()
