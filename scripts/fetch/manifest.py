"""The files that `python -m scripts.fetch` knows: weights, and annotation files of the data sets.

Addresses and sizes are those of the pages named here, sha256 those of pretrained/checksums.sha256; pretrained/DATA.md
has the same figures, and the image archives. Sizes or checksums that nobody publishes are None.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from classification.data.layouts import COOP_PAGE, SplitLayout
from classification.data.layouts import LAYOUTS as IMAGE_LAYOUTS
from clipscore.config.load import REPOSITORY
from clipscore.data.caption_layouts import LAYOUTS as CAPTION_LAYOUTS
from clipscore.data.caption_layouts import NOCAPS_FILE
from clipscore.models.files import checksums


@dataclass(frozen=True)
class RemoteFile:
    """One file, where it comes from and where it goes."""

    group: str  # name under which several files are fetched together
    path: str  # relative to the weights folder; an annotation file's is relative to the data folder
    page: str  # that offers it
    address: str | None  # what is downloaded; None when it takes a person
    needed_by: str  # rows of the paper's tables; empty for extras, which are fetched only when they are named
    size: int | None = None  # bytes
    checksum: str | None = None  # "sha256:<hex>" or "md5:<hex>"
    other_paths: Sequence[str] = ()  # further places where a run finds it
    by_hand: str = ""  # what a person does with the download
    is_archived: bool = False  # the address is a zip archive that holds it, in a folder of its name or at the top
    is_annotation: bool = False  # it belongs to a data set, so it is written only when that is asked for


OPENAI_PAGE = "https://github.com/openai/CLIP"
OPENAI_FILES = "https://openaipublic.azureedge.net/clip/models"
OPT_PAGE = "https://huggingface.co/facebook/opt-125m"
OPT_REVISION = "27dcfa74d334bc871f3234de431e71c6eeba5dd6"
COOP_WEIGHTS = "https://drive.google.com/file/d/18ypxfd82RR0pizc5MM1ZWDYDk4j0BtPF/view"
COCOOP_PAGE = "https://github.com/KaiyangZhou/CoOp/blob/main/COCOOP.md"
RLCF_PAGE = "https://github.com/mzhaoshuai/RLCF"
BLIP_PAGE = "https://github.com/salesforce/BLIP"
BLIP_FILES = "https://storage.googleapis.com/sfr-vision-language-research/datasets"
NOCAPS_PAGE = "https://nocaps.org/download"
NOCAPS_FILES = "https://nocaps.s3.amazonaws.com"
_SHA256 = checksums(REPOSITORY / "pretrained")


def _clip(name: str, needed_by: str = "", size: int | None = None) -> RemoteFile:
    path, sha256 = f"clip/{name}", _SHA256[f"clip/{name}"]
    address = f"{OPENAI_FILES}/{sha256}/{name}"
    return RemoteFile("clip", path, OPENAI_PAGE, address, needed_by, size, f"sha256:{sha256}", other_paths=(name,))


def _opt(name: str, size: int | None = None) -> RemoteFile:
    path, address = f"opt-125m/{name}", f"{OPT_PAGE}/resolve/{OPT_REVISION}/{name}"
    checksum = f"sha256:{_SHA256[path]}" if path in _SHA256 else None
    return RemoteFile("opt", path, OPT_PAGE, address, "captioning", size, checksum)


def _prompts(group: str, folder: str, epoch: int, page: str, needed_by: str, by_hand: str) -> RemoteFile:
    path = f"{group}/{folder}/prompt_learner/model.pth.tar-{epoch}"
    return RemoteFile(group, path, page, None, needed_by, other_paths=(f"{group}/{folder}",), by_hand=by_hand)


def _mapper(kind: str) -> RemoteFile:
    folder = f"{kind}_opt125m_transformer_coco_01"
    address = f"{RLCF_PAGE}/releases/download/0.0.1/{folder}.zip"
    return RemoteFile("mappers", f"{folder}/ckpt-latest.pt", RLCF_PAGE, address, "captioning", is_archived=True)


def _captions(dataset: str, name: str, page: str, files: str, needed_by: str, md5: str | None = None) -> RemoteFile:
    folders = CAPTION_LAYOUTS[dataset].folders
    path, *others = (f"{folder}/{at}{name}" for folder in folders for at in ("annotations/", ""))
    address, checksum = f"{files}/{name}", f"md5:{md5}" if md5 else None
    return RemoteFile(dataset, path, page, address, needed_by, None, checksum, others, is_annotation=True)


def _blip(dataset: str, prefix: str, split: str, needed_by: str) -> RemoteFile:
    md5 = CAPTION_LAYOUTS[dataset].md5.get(split)
    return _captions(dataset, f"{prefix}_{split}.json", BLIP_PAGE, BLIP_FILES, needed_by, md5)


def _split(dataset: str, drive_id: str) -> RemoteFile:
    layout = IMAGE_LAYOUTS[dataset]
    assert isinstance(layout, SplitLayout)
    path, *others = (f"{folder}/{layout.split_file}" for folder in layout.folders)
    address = f"https://drive.google.com/uc?export=download&id={drive_id}"
    return RemoteFile("splits", path, COOP_PAGE, address, "fine-grained sets", other_paths=others, is_annotation=True)


_TRAINING = "Table 3's mappers, when they are trained here"

FILES: tuple[RemoteFile, ...] = (
    _clip("ViT-B-16.pt", "every row", 350_837_078),
    _clip("ViT-L-14.pt", "RLCF, KD, DKD, ATKD, zero-shot L/14", 932_768_134),
    _clip("ViT-L-14-336px.pt", "RLCF-S, RLCF-S-M, ensembles", 934_088_680),
    _clip("RN50x64.pt", "RLCF-S, RLCF-S-M, ensembles"),
    _clip("ViT-B-32.pt", "CLIPScore of captions", 353_976_522),
    *map(_clip, ("RN50.pt", "RN101.pt", "RN50x4.pt", "RN50x16.pt")),
    _opt("config.json", 651),
    _opt("generation_config.json", 137),
    _opt("merges.txt"),
    _opt("pytorch_model.bin", 250_540_281),
    _opt("special_tokens_map.json", 441),
    _opt("tokenizer_config.json", 685),
    _opt("vocab.json"),
    _mapper("clipcap"),
    _mapper("capdec"),
    _prompts("coop", "coop_16shots_nctx4_cscFalse_ctpend_vitb16_seed1", 50, COOP_WEIGHTS, "rows with CoOp",
             "unpack it and copy vit_b16_ep50_16shots/nctx4_cscFalse_ctpend/seed1/prompt_learner/model.pth.tar-50"),
    _prompts("cocoop", "cocoop_16shots_nctx4_ctxinit_vitb16_seed1", 10, COCOOP_PAGE, "CoCoOp rows",
             "the authors have not published it: train it with scripts/cocoop/xd_train.sh 1 of that repository"),
    _blip("coco", "coco_karpathy", "test", "Table 2"),
    _blip("coco", "coco_karpathy", "train", _TRAINING),
    _blip("coco", "coco_karpathy", "val", ""),
    _blip("flickr30k", "flickr30k", "test", "Tables 2 and 3"),
    _blip("flickr30k", "flickr30k", "train", _TRAINING),
    _captions("nocaps", NOCAPS_FILE, NOCAPS_PAGE, NOCAPS_FILES, "Table 3"),
    _split("caltech101", "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN"),
    _split("oxford_pets", "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs"),
    _split("stanford_cars", "1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT"),
    _split("flower102", "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT"),
    _split("food101", "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl"),
    _split("sun397", "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq"),
    _split("dtd", "1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x"),
    _split("eurosat", "1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o"),
    _split("ucf101", "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y"),
)  # fmt: skip
