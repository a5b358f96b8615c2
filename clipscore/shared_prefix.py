"""A causal text tower over prompts that begin alike: the work on the common beginning is done once.

A position of a causal tower sees only those before it, so positions that hold the same embeddings in every prompt have
the same keys and values in every prompt. They are computed once per layer, for one prompt, and the rest of each prompt
attends to them and to itself. Of the layers' outputs only the one at the end token is read, so the last layer computes
that position alone. Same formula, summed in another order.
"""

from __future__ import annotations

from typing import Any

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

KeysValues = tuple[Tensor, Tensor]  # of one layer, each [R, heads, L, W / heads]


def can_share(transformer: Any) -> bool:
    """Whether the tower is made of open_clip's plain blocks, the layout of OpenAI's CLIPs."""
    return all(
        type(block) is ResidualAttentionBlock
        and not hasattr(block, "ln_1_kv")
        and isinstance(block.attn, nn.MultiheadAttention)
        and block.attn.in_proj_weight is not None
        and block.attn.bias_k is None
        and not block.attn.add_zero_attn
        for block in getattr(transformer, "resblocks", [None])
    )


class SharedPrefix:
    """The common beginning of some prompts, run through the tower once.

    Args:
        transformer: of a tower for which `can_share` holds, in eval mode.
        mask: the tower's causal mask, added to the attention logits. [L, L]
        prefix: embeddings of the common positions, with positional embeddings. [P, W]
    """

    def __init__(self, transformer: Any, mask: Tensor, prefix: Tensor) -> None:
        self.blocks = transformer.resblocks
        self.mask, self.length = mask, len(prefix)
        self.keys_values: list[KeysValues] = []
        x, causal = prefix[None], mask[: self.length, : self.length]  # [P, W] -> [1, P, W]
        for block in self.blocks[:-1]:
            normed = block.ln_1(x)
            self.keys_values.append(_keys_values(block, normed))
            x = _after_attention(block, x, _attend(block, normed, self.keys_values[-1], causal))
        self.keys_values.append(_keys_values(self.blocks[-1], self.blocks[-1].ln_1(x)))  # its outputs are never read

    def read_ends(self, rest: Tensor, ends: Tensor) -> Tensor:
        """The tower's output at the end token of each prompt.

        Args:
            rest: embeddings behind the common positions, with positional embeddings. [R, T, W]
            ends: place of each end token in `rest`, int64. [R]

        Returns:
            [R, W]
        """
        num_rows, num_tokens = rest.shape[:2]
        rows = torch.arange(num_rows, device=rest.device)
        mask = self.mask[self.length : self.length + num_tokens, : self.length + num_tokens]  # [T, P + T]
        x = rest
        for block, prefix in zip(self.blocks, self.keys_values, strict=True):
            normed = block.ln_1(x)
            own = _keys_values(block, normed)
            every: Any = tuple(
                torch.cat([p.expand(num_rows, -1, -1, -1), o], dim=2) for p, o in zip(prefix, own, strict=True)
            )  # [R, heads, P + T, W / heads]
            if block is self.blocks[-1]:
                x, normed, mask = x[rows, ends, None], normed[rows, ends, None], mask[ends, None, None]  # [R, 1, W]
            x = _after_attention(block, x, _attend(block, normed, every, mask))
        return x[:, 0]


def _keys_values(block: Any, normed: Tensor) -> KeysValues:
    """[R, L, W] -> 2 x [R, heads, L, W / heads]"""
    attn, width = block.attn, normed.shape[-1]
    bias = None if attn.in_proj_bias is None else attn.in_proj_bias[width:]
    keys, values = F.linear(normed, attn.in_proj_weight[width:], bias).chunk(2, dim=-1)
    return _heads(attn, keys), _heads(attn, values)


def _attend(block: Any, normed: Tensor, keys_values: KeysValues, mask: Tensor) -> Tensor:
    """[R, L, W] -> [R, L, W]"""
    attn, width = block.attn, normed.shape[-1]
    bias = None if attn.in_proj_bias is None else attn.in_proj_bias[:width]
    queries = _heads(attn, F.linear(normed, attn.in_proj_weight[:width], bias))
    mixed = F.scaled_dot_product_attention(queries, *keys_values, attn_mask=mask.to(queries.dtype))
    return attn.out_proj(mixed.transpose(1, 2).flatten(2))  # [R, heads, L, W / heads] -> [R, L, W]


def _after_attention(block: Any, x: Tensor, attended: Tensor) -> Tensor:
    """[R, L, W] -> [R, L, W]"""
    x = x + block.ls_1(attended)
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def _heads(attn: nn.MultiheadAttention, x: Tensor) -> Tensor:
    return x.unflatten(-1, (attn.num_heads, attn.head_dim)).transpose(1, 2)  # [R, L, W] -> [R, heads, L, W / heads]
