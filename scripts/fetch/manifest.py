"""The files that `python -m scripts.fetch` knows: weights, and annotation files of the data sets.

Addresses, sizes and checksums are those of the pages named here; pretrained/DATA.md has the same figures, and the image
archives. Sizes or checksums that nobody publishes are None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from classification.data.layouts import COOP_PAGE, SplitLayout
from classification.data.layouts import LAYOUTS as IMAGE_LAYOUTS
from clipscore.data.caption_layouts import LAYOUTS as CAPTION_LAYOUTS
from clipscore.data.caption_layouts import NOCAPS_FILE


@dataclass(frozen=True)
class RemoteFile:
    """One file, where it comes from and where it goes.

    Attributes:
        group: name under which several files are fetched together.
        path: where it goes, relative to the weights folder; an annotation file's is relative to the data folder.
        page: the page that offers it.
        address: what is downloaded; None when it takes a person.
        needed_by: rows of the paper's tables; empty for extras, which are fetched only when they are named.
        size: bytes.
        checksum: "sha256:<hex>" or "md5:<hex>".
        other_paths: further places where a run finds it.
        by_hand: what a person does with the download.
        is_archived: the address is a zip archive that holds the file, in a folder of its name or at the top.
        is_annotation: it belongs to a data set, so it is written only when that is asked for.
    """

    group: str
    path: str
    page: str
    address: str | None
    needed_by: str
    size: int | None = None
    checksum: str | None = None
    other_paths: Sequence[str] = ()
    by_hand: str = ""
    is_archived: bool = False
    is_annotation: bool = False


OPENAI_PAGE = "https://github.com/openai/CLIP"
OPENAI_FILES = "https://openaipublic.azureedge.net/clip/models"
OPT_PAGE = "https://huggingface.co/facebook/opt-125m"
OPT_REVISION = "27dcfa74d334bc871f3234de431e71c6eeba5dd6"
COOP_WEIGHTS = "https://drive.google.com/file/d/18ypxfd82RR0pizc5MM1ZWDYDk4j0BtPF/view"
COCOOP_PAGE = "https://github.com/KaiyangZhou/CoOp/blob/main/COCOOP.md"
RLCF_PAGE = "https://github.com/mzhaoshuai/RLCF"
RLCF_FILES = f"{RLCF_PAGE}/releases/download/0.0.1"
BLIP_PAGE = "https://github.com/salesforce/BLIP"
BLIP_FILES = "https://storage.googleapis.com/sfr-vision-language-research/datasets"
NOCAPS_PAGE = "https://nocaps.org/download"
NOCAPS_FILES = "https://nocaps.s3.amazonaws.com"
DRIVE_FILES = "https://drive.google.com/uc?export=download&id="


def _clip(name: str, sha256: str, needed_by: str = "", size: int | None = None) -> RemoteFile:
    return RemoteFile(
        "clip", f"clip/{name}", OPENAI_PAGE, f"{OPENAI_FILES}/{sha256}/{name}", needed_by, size, f"sha256:{sha256}",
        other_paths=(name,),
    )  # fmt: skip


def _opt(name: str, size: int | None = None, checksum: str | None = None) -> RemoteFile:
    address = f"{OPT_PAGE}/resolve/{OPT_REVISION}/{name}"
    return RemoteFile("opt", f"opt-125m/{name}", OPT_PAGE, address, "captioning", size, checksum)


def _prompts(group: str, folder: str, epoch: int, page: str, by_hand: str) -> RemoteFile:
    path = f"{group}/{folder}/prompt_learner/model.pth.tar-{epoch}"
    needed_by = {"coop": "rows with CoOp", "cocoop": "CoCoOp rows"}[group]
    return RemoteFile(group, path, page, None, needed_by, other_paths=(f"{group}/{folder}",), by_hand=by_hand)


def _mapper(kind: str) -> RemoteFile:
    folder = f"{kind}_opt125m_transformer_coco_01"
    return RemoteFile(
        "mappers", f"{folder}/ckpt-latest.pt", RLCF_PAGE, f"{RLCF_FILES}/{folder}.zip", "captioning", is_archived=True
    )


def _captions(dataset: str, name: str, page: str, address: str, needed_by: str, md5: str | None = None) -> RemoteFile:
    folders = CAPTION_LAYOUTS[dataset].folders
    paths = [f"{folder}/{place}{name}" for folder in folders for place in ("annotations/", "")]
    checksum = f"md5:{md5}" if md5 else None
    return RemoteFile(
        dataset, paths[0], page, address, needed_by, checksum=checksum, other_paths=paths[1:], is_annotation=True
    )  # fmt: skip


def _coco(split: str, needed_by: str) -> RemoteFile:
    name = f"coco_karpathy_{split}.json"
    md5 = CAPTION_LAYOUTS["coco"].md5[split]
    return _captions("coco", name, BLIP_PAGE, f"{BLIP_FILES}/{name}", needed_by, md5)


def _flickr30k(split: str, needed_by: str) -> RemoteFile:
    name = f"flickr30k_{split}.json"
    return _captions("flickr30k", name, BLIP_PAGE, f"{BLIP_FILES}/{name}", needed_by)


def _split(dataset: str, drive_id: str) -> RemoteFile:
    layout = IMAGE_LAYOUTS[dataset]
    assert isinstance(layout, SplitLayout)
    paths = [f"{folder}/{layout.split_file}" for folder in layout.folders]
    address = DRIVE_FILES + drive_id
    return RemoteFile(
        "splits", paths[0], COOP_PAGE, address, "fine-grained sets", other_paths=paths[1:], is_annotation=True
    )


_TRAINING = "Table 3's mappers, when they are trained here"

FILES: tuple[RemoteFile, ...] = (
    _clip("ViT-B-16.pt", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f", "every row", 350_837_078),
    _clip("ViT-L-14.pt", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
          "RLCF, KD, DKD, ATKD, zero-shot L/14", 932_768_134),
    _clip("ViT-L-14-336px.pt", "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
          "RLCF-S, RLCF-S-M, ensembles", 934_088_680),
    _clip("RN50x64.pt", "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c",
          "RLCF-S, RLCF-S-M, ensembles"),
    _clip("ViT-B-32.pt", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
          "CLIPScore of captions", 353_976_522),
    _clip("RN50.pt", "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762"),
    _clip("RN101.pt", "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599"),
    _clip("RN50x4.pt", "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd"),
    _clip("RN50x16.pt", "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa"),
    _opt("config.json", 651),
    _opt("generation_config.json", 137),
    _opt("merges.txt"),
    _opt("pytorch_model.bin", 250_540_281,
         "sha256:2d74da6615135c58cf3cf9ad4cb11e7c613ff9e55fe658a47ab83b6c8d1174a9"),
    _opt("special_tokens_map.json", 441),
    _opt("tokenizer_config.json", 685),
    _opt("vocab.json"),
    _mapper("clipcap"),
    _mapper("capdec"),
    _prompts("coop", "coop_16shots_nctx4_cscFalse_ctpend_vitb16_seed1", 50, COOP_WEIGHTS,
             "unpack it and copy vit_b16_ep50_16shots/nctx4_cscFalse_ctpend/seed1/prompt_learner/model.pth.tar-50"),
    _prompts("cocoop", "cocoop_16shots_nctx4_ctxinit_vitb16_seed1", 10, COCOOP_PAGE,
             "the authors have not published it: train it with scripts/cocoop/xd_train.sh 1 of that repository"),
    _coco("test", "Table 2"),
    _coco("train", _TRAINING),
    _coco("val", ""),
    _flickr30k("test", "Tables 2 and 3"),
    _flickr30k("train", _TRAINING),
    _captions("nocaps", NOCAPS_FILE, NOCAPS_PAGE, f"{NOCAPS_FILES}/{NOCAPS_FILE}", "Table 3"),
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
