"""Tiny captioners in float64: the recorded OPT, and a GPT-2 with random weights."""

from collections.abc import Callable

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from captioning.captioner import Captioner
from captioning.mapper import TransformerMapper
from tests.parity_captioning import in_float64, tiny_captioner

CLIP_WIDTH, PREFIX_LENGTH = 32, 4


@pytest.fixture
def captioner(golden) -> Callable[[str], Captioner]:
    """A fresh captioner around "opt" or "gpt2"; both have the recorded tokenizer."""

    def build(kind: str = "opt") -> Captioner:
        opt = tiny_captioner(golden, golden.meta("E_tta_base"), "transformer")
        if kind == "opt":
            return opt
        torch.manual_seed(0)
        sizes = {"vocab_size": len(opt.tokenizer), "n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 128}
        lm = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=2, eos_token_id=2, initializer_range=0.5))
        return Captioner(
            in_float64(lm), opt.tokenizer, TransformerMapper(CLIP_WIDTH, 64, PREFIX_LENGTH, num_layers=1).double()
        )

    return build


@pytest.fixture
def features() -> torch.Tensor:
    """CLIP features of two images. [2, D]"""
    generator = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(2, CLIP_WIDTH, generator=generator, dtype=torch.float64), dim=-1)
