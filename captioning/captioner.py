"""The captioner: a frozen language model that reads prefix embeddings and then the caption.

The only module that knows the language model's interface. Works with any Hugging Face causal language model that takes
`inputs_embeds`; OPT derives its positions from the attention mask, so that a masked position is row 1 of its table.

Source: official caption/image_llm/models/modules.py, caption/capdec_tta.py.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.opt.modeling_opt import OPTAttention

from captioning.mapper import Mapper
from clipscore.lean_blocks import Copies, cast_frozen, cast_tuned

# Marks that transformers 4.26, which the released numbers come from, joins to the word before; newer versions differ.
SPACED_MARKS = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")

Cache = Any  # keys and values: tuples of tensors, or a Cache object in newer versions of transformers


class Captioner(nn.Module):
    """Mapper, language model and tokenizer; the mapper is the only part with gradient.

    Args:
        lm: a causal language model; frozen here and kept in eval mode.
        tokenizer: the language model's.
        mapper: makes the prefix.
        autocast_dtype: fp16 or bf16 to compute under autocast, None for the weights' own precision.

    Raises:
        ValueError: the mapper's width is not the language model's, or the tokenizer has no start or newline token.
    """

    def __init__(
        self, lm: nn.Module, tokenizer: Any, mapper: Mapper, autocast_dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.lm: Any = lm.requires_grad_(False)
        self.mapper: Any = mapper
        self.tokenizer, self.autocast_dtype = tokenizer, autocast_dtype
        parameters = inspect.signature(lm.forward).parameters
        self._can_spare_logits, self._takes_positions = "logits_to_keep" in parameters, "position_ids" in parameters
        self._numbers = torch.empty(0)  # 0, 1, 2, ...; made when they are needed
        self.eval()
        if mapper.lm_width != (width := embedding_width(lm)):
            widths = f"embeddings of width {mapper.lm_width}, but the language model reads width {width}"
            raise ValueError(f"the mapper makes {widths}; use the llm that the mapper was trained with")
        self.bos, self.stop = outer_tokens(tokenizer)
        self.pad: int = self.bos if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    @property
    def device(self) -> torch.device:
        return self.lm.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.lm.get_input_embeddings().weight.dtype

    def cast_frozen(self) -> None:
        """Cast the language model's weights to the autocast type, see `ClipModel.cast_frozen`, and join OPT's."""
        if self.autocast_dtype is not None:
            cast_frozen(self.lm, self.autocast_dtype)
            join_projections(self.lm)

    def cast_tuned(self) -> Copies:
        """See `lean_blocks.cast_tuned`; of the mapper, and nothing happens without autocast."""
        return [] if self.autocast_dtype is None else cast_tuned(self.mapper, self.autocast_dtype)

    def train(self, mode: bool = True) -> Captioner:
        """Train mode for the mapper; the language model's dropout stays off."""
        super().train(mode)
        self.lm.eval()
        return self

    def prefix(self, features: Tensor) -> Tensor:
        """Prefix embeddings of CLIP features. [B, D] -> [B, P, W]; ValueError: they are not of the mapper's CLIP."""
        if features.shape[-1] != self.mapper.clip_width:
            widths = f"CLIP features of width {self.mapper.clip_width}, got {list(features.shape)}"
            raise ValueError(f"the mapper reads {widths}; use the policy that the mapper was trained with")
        with self._autocast():
            return self.mapper(features).to(self.dtype)

    def tokenize(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask of real tokens, int64: start token first, no end token, padding on the right. -> 2 x [K, T]"""
        texts = [[self.bos, *self.tokenizer(text, add_special_tokens=False).input_ids] for text in captions]
        width = max(map(len, texts))
        ids = [text + [self.pad] * (width - len(text)) for text in texts]
        mask = [[1] * len(text) + [0] * (width - len(text)) for text in texts]
        both = torch.tensor([ids, mask]).to(self.device, non_blocking=True)  # [2, K, T]
        return both[0], both[1]

    def decode(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """Texts without special tokens and outer white space."""
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for mark in SPACED_MARKS:  # "a dog 's" -> "a dog's"
            texts = [text.replace(mark, mark.strip()) for text in texts]
        return [text.strip() for text in texts]

    def embed(self, tokens: Tensor) -> Tensor:
        """Token embeddings without positions. [R, L] -> [R, L, W]"""
        return self.lm.get_input_embeddings()(tokens)

    def run(
        self, embeddings: Tensor, mask: Tensor | None, cache: Cache | None = None, last_only: bool = False
    ) -> tuple[Tensor, Cache]:
        """The language model on embeddings, after what the cache holds.

        Args:
            embeddings: [R, L, W]
            mask: 1 where a position is real, the cached ones first; None where all are. [R, cached + L]
            cache: keys and values of earlier positions; used up by the call.
            last_only: only the last position's logits are read, so that a model which can spare the others does.

        Returns:
            Logits of the next token after each position [R, L, V], or at least after the last one; and the new cache.
        """
        extras: dict[str, Any] = {"logits_to_keep": 1} if last_only and self._can_spare_logits else {}
        past = num_cached(cache)
        end = past + embeddings.shape[1]
        if mask is None and self._takes_positions:  # a mask would be looked at by the host, which waits for it
            if len(self._numbers) < end or self._numbers.device != embeddings.device:
                self._numbers = torch.arange(2 * end, device=embeddings.device)
            extras["position_ids"] = self._numbers[None, past:end]  # [1, L]
        elif mask is None:
            mask = embeddings.new_ones(len(embeddings), end, dtype=torch.int64)
        with self._autocast():
            output = self.lm(
                inputs_embeds=embeddings, attention_mask=mask, past_key_values=cache, use_cache=True, **extras
            )
        return output.logits.to(self.dtype), output.past_key_values

    def token_logits(self, prefix: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Logits from which each token is predicted, given the prefix and the tokens before it.

        The captions of an image share their prefix: it is run once, and its keys and values serve them all, backward
        too. [B, P, W], captions [R, T], R / B in a row for each prefix, mask of real tokens [R, T] -> [R, T, V]
        """
        rows = torch.arange(len(prefix), device=prefix.device).repeat_interleave(len(tokens) // len(prefix))  # [R]
        logits, cache = self.run(prefix, None, last_only=True)
        first = logits[rows, -1:]  # [B, 1 or P, V] -> [R, 1, V]
        if tokens.shape[1] == 1:
            return first
        inputs, mask = self.embed(tokens[:, :-1]), F.pad(mask[:, :-1], (prefix.shape[1], 0), value=1)
        return torch.cat([first, self.run(inputs, mask, select_rows(cache, rows))[0]], dim=1)

    def token_losses(self, prefix: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy of every token, the start token and padding included, nats; see `token_logits`. [R, T]"""
        logits = self.token_logits(prefix, tokens, mask)
        return F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view(tokens.shape)

    def start(self, prefix: Tensor) -> Continuation:
        """Begin to write after a prefix and the start token. [B, P, W]"""
        return Continuation(self, prefix)

    def _autocast(self) -> contextlib.AbstractContextManager[None]:
        if self.autocast_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast_dtype)


def join_projections(lm: nn.Module) -> None:
    """Let the attention layers of an OPT make queries, keys and values by one product: a third of the launches."""
    for module in lm.modules():
        if isinstance(module, OPTAttention):
            joined = _Joined((module.q_proj, module.k_proj, module.v_proj))
            for name in ("q_proj", "k_proj", "v_proj"):
                setattr(module, name, joined)


class _Joined(nn.Module):
    """Queries, keys and values by one product. It stands in three places and is called in their order."""

    def __init__(self, parts: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.cat([part.weight for part in parts]), requires_grad=False)
        bias = None if parts[0].bias is None else nn.Parameter(torch.cat([part.bias for part in parts]))
        self.bias = None if bias is None else bias.requires_grad_(False)
        self._input: Tensor | None = None  # of the product whose parts are not yet all taken
        self._parts: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, W] -> [B, L, W]"""
        if x is not self._input:
            self._input, self._parts = x, list(F.linear(x, self.weight, self.bias).chunk(3, dim=-1))
        part = self._parts.pop(0)
        if not self._parts:
            self._input = None
        return part


class Continuation:
    """Texts in the making: logits of their next token, and the keys and values of everything before it."""

    def __init__(self, captioner: Captioner, prefix: Tensor) -> None:
        self.captioner = captioner
        bos = torch.full((len(prefix), 1), captioner.bos, device=prefix.device)
        embeddings = torch.cat([prefix, captioner.embed(bos)], dim=1)  # [B, P + 1, W]
        logits, self._cache = captioner.run(embeddings, None, last_only=True)
        self.logits = logits[:, -1]  # [B, P + 1, V] -> [B, V]

    def advance(self, rows: Tensor, tokens: Tensor) -> None:
        """Go on with some of the texts, any of them several times, each with one more token. int64 [R], [R]"""
        inputs = self.captioner.embed(tokens[:, None])  # [R] -> [R, 1, W]
        logits, self._cache = self.captioner.run(inputs, None, select_rows(self._cache, rows), last_only=True)
        self.logits = logits[:, -1]  # [R, 1, V] -> [R, V]


def select_rows(cache: Cache, rows: Tensor) -> Cache:
    """Keys and values of these rows of the batch, in this order; differentiable. The given cache is used up."""
    layers = getattr(cache, "layers", [])
    if rows.is_cuda and {type(layer).__name__ for layer in layers} == {"DynamicLayer"}:  # one operation for all layers
        stacked = torch.stack([tensor for layer in layers for tensor in (layer.keys, layer.values)])
        chosen = iter(stacked.index_select(1, rows))
        for layer in layers:
            layer.keys, layer.values = next(chosen), next(chosen)
        return cache
    if hasattr(cache, "reorder_cache"):
        cache.reorder_cache(rows)
        return cache
    return tuple(tuple(tensor.index_select(0, rows) for tensor in layer) for layer in cache)


def num_cached(cache: Cache | None) -> int:
    """How many positions keys and values are kept of."""
    if cache is None:
        return 0
    return int(cache.get_seq_length()) if hasattr(cache, "get_seq_length") else cache[0][0].shape[2]


def embedding_width(lm: Any) -> int:
    """W: width of a language model's token embeddings."""
    return lm.get_input_embeddings().weight.shape[1]


def outer_tokens(tokenizer: Any) -> tuple[int, int]:
    r"""The tokens that a caption begins and ends with; ValueError: none, or "\n", the end, is not one token."""
    if tokenizer.bos_token_id is None:
        raise ValueError("the language model's tokenizer has no start token (bos_token); use another llm")
    ids = tokenizer("\n", add_special_tokens=False).input_ids
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        found = f"the language model's tokenizer makes {ids} of it"
        raise ValueError(f"captions end with a newline, which must be one token; {found}; use another llm")
    return tokenizer.bos_token_id, ids[0]
