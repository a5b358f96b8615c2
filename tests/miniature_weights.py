"""Tiny weight files in their real forms and places; see `tests.miniatures`.

Widths that files must agree on are the real ones where they are cheap: CoOp's context [4, 512] goes with a ViT-B/16
whose text tower and features have width 512. Token embeddings are overlapping windows of one short row of numbers, so
that a file takes kilobytes.
"""

import shutil
from pathlib import Path

import open_clip
import torch
from torch import Tensor
from transformers import AutoTokenizer, OPTConfig, OPTForCausalLM

from captioning.mapper import build_mapper
from clipscore.models.files import CHECKSUMS, file_digest
from tests.golden_files import Golden

GOLDEN = Path(__file__).parent / "golden"
VOCABULARY, CONTEXT = 49408, 77
CLIP_WIDTH, LM_WIDTH, PREFIX, LAYERS = 512, 64, 40, 8
VISION_TOWERS = {  # file -> feature width, text width, image size, patch size
    "ViT-B-16": (CLIP_WIDTH, 512, 32, 16),
    "ViT-B-32": (64, 64, 64, 32),
    "ViT-L-14": (128, 64, 28, 14),
    "ViT-L-14-336px": (128, 64, 42, 14),
}
COOP = "coop/coop_16shots_nctx4_cscFalse_ctpend_vitb16_seed1/prompt_learner/model.pth.tar-50"
COCOOP = "cocoop/cocoop_16shots_nctx4_ctxinit_vitb16_seed1/prompt_learner/model.pth.tar-10"
MAPPERS = ("clipcap_opt125m_transformer_coco_01/ckpt-latest.pt", "capdec_opt125m_transformer_coco_01/ckpt-latest.pt")


def build(root: Path) -> None:
    """All weight files of the tables, and a checksums.sha256 of the CLIPs and OPT as the repository has it."""
    generator_state = torch.get_rng_state()
    torch.manual_seed(0)
    (root / "clip").mkdir(parents=True)
    for name, sizes in VISION_TOWERS.items():
        torch.save(_clip(*sizes), root / f"clip/{name}.pt")
    torch.save(_resnet(), root / "clip/RN50x64.pt")
    _save(root / COOP, {"state_dict": {"ctx": 0.02 * torch.randn(4, CLIP_WIDTH)}, "epoch": 50})
    meta_net = {"linear1": (CLIP_WIDTH // 16, CLIP_WIDTH), "linear2": (CLIP_WIDTH, CLIP_WIDTH // 16)}
    state = {f"meta_net.{key}.weight": 0.02 * torch.randn(shape) for key, shape in meta_net.items()}
    state |= {f"meta_net.{key}.bias": torch.zeros(shape[0]) for key, shape in meta_net.items()}
    _save(root / COCOOP, {"state_dict": {"ctx": 0.02 * torch.randn(4, CLIP_WIDTH), **state}, "epoch": 10})
    _save_opt(root / "opt-125m")
    for file in MAPPERS:
        mapper = build_mapper("transformer", CLIP_WIDTH, LM_WIDTH, PREFIX, LAYERS).state_dict()
        _save(root / file, {"state_dict": {f"clip_project.{key}": value for key, value in mapper.items()}, "epoch": 9})
    torch.set_rng_state(generator_state)
    listed = [*sorted((root / "clip").iterdir()), root / "opt-125m/pytorch_model.bin"]
    lines = [f"{file_digest(file)}  {file.relative_to(root).as_posix()}\n" for file in listed]
    (root / CHECKSUMS).write_text("".join(lines))


def _save(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True)
    torch.save(content, path)


def _clip(width: int, text_width: int, image_size: int, patch_size: int) -> dict[str, Tensor]:
    """State dict in OpenAI layout: one layer in each tower."""
    vision = open_clip.CLIPVisionCfg(layers=1, width=64, patch_size=patch_size, image_size=image_size)
    sizes = {"context_length": CONTEXT, "vocab_size": 1, "width": text_width, "heads": text_width // 64, "layers": 1}
    text = open_clip.CLIPTextCfg(**sizes)
    state = open_clip.CLIP(width, vision, text, quick_gelu=True).state_dict()
    return _halved({key: value for key, value in state.items() if key != "attn_mask"}, text_width)


def _resnet() -> dict[str, Tensor]:
    """A tiny ResNet tower with recorded weights."""
    state = Golden(GOLDEN).clip("RN").backend.state_dict()
    return _halved({key: value for key, value in state.items() if key != "attn_mask"}, 64)


def _halved(state: dict[str, Tensor], text_width: int) -> dict[str, Tensor]:
    state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    numbers = 0.02 * torch.randn(VOCABULARY + text_width)
    state["token_embedding.weight"] = numbers.half().as_strided((VOCABULARY, text_width), (1, 1))
    return state


def _save_opt(folder: Path) -> None:
    """A tiny OPT in the files of facebook/opt-125m."""
    shutil.copytree(GOLDEN / "opt_tokenizer", folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, clean_up_tokenization_spaces=False)
    config = OPTConfig(
        hidden_size=LM_WIDTH, word_embed_proj_dim=LM_WIDTH, ffn_dim=LM_WIDTH, max_position_embeddings=128,
        vocab_size=len(tokenizer), num_hidden_layers=1, num_attention_heads=2, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    lm = OPTForCausalLM(config)
    config.save_pretrained(folder)
    torch.save(lm.state_dict(), folder / "pytorch_model.bin")
