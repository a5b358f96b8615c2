"""Blocks of open_clip's towers, rewritten to do less for the same numbers. Parameters and their names stay."""

import ctypes
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from clipscore.models.backends import open_clip

VisionTransformer = open_clip.transformer.VisionTransformer

Copies = list[tuple[Tensor, Tensor]]  # tuned weights, and what a model computes with in their place
QUICK_GELU_SLOPE = 1.702
FLAT = 40.0  # sigmoid of this is 1 in every precision
PRODUCTS = (nn.Linear, nn.Conv1d, nn.Conv2d)
PROJECTIONS = ("proj", "text_projection")  # open_clip's are parameters of the towers themselves


class _QuickGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        # The derivative of softplus is the sigmoid, and the backward of softplus takes the factor and the slope.
        return torch.ops.aten.softplus_backward(x, x, QUICK_GELU_SLOPE, FLAT)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return torch.ops.aten.silu_backward(grad, QUICK_GELU_SLOPE * ctx.saved_tensors[0])  # x s(a x) = silu(a x) / a


class LeanQuickGelu(nn.Module):
    """x * sigmoid(1.702 x) in one pass over memory, two in the backward pass; only x is kept."""

    def forward(self, x: Tensor) -> Tensor:
        """[...] -> [...]"""
        return _QuickGelu.apply(x)


class LeanBlock(open_clip.transformer.ResidualAttentionBlock):
    """A block whose attention is plain linear layers around one fused operation.

    nn.MultiheadAttention, on CUDA under autocast with frozen weights, makes L products of B rows of the one product of
    B * L rows, and copies queries, keys, values and the result.
    """

    is_causal = False  # whether the mask it is given is the causal one, which the fused operation makes itself

    def attention(
        self, q_x: Tensor, k_x: Tensor | None = None, v_x: Tensor | None = None, attn_mask: Tensor | None = None
    ) -> Tensor:
        """What the positions read from each other. [B, L, W] -> [B, L, W]"""
        queries, keys, values = self.project(q_x).chunk(3, dim=-1)
        return self._mix(queries, keys, values, attn_mask, self.is_causal)

    def project(self, normed: Tensor) -> Tensor:
        """Queries, keys, values side by side. [B, L, W] -> [B, L, 3 W]"""
        return F.linear(normed, self.attn.in_proj_weight, self.attn.in_proj_bias)

    def projections(self) -> list[tuple[Tensor, Tensor | None]]:
        """Weight and bias of the queries, and of keys and values: [W, W] and [W], [2 W, W] and [2 W]"""
        weight, bias = self.attn.in_proj_weight, self.attn.in_proj_bias
        sizes = [weight.shape[1], 2 * weight.shape[1]]
        biases = (None, None) if bias is None else bias.split(sizes)
        return list(zip(weight.split(sizes), biases, strict=True))

    def attend(self, queries: Tensor, keys_values: Tensor, mask: Tensor | None, is_causal: bool = False) -> Tensor:
        """What queries read from keys and values. [B, Q, W], [B, L, 2 W], mask [Q, L] or [B, 1, Q, L] -> [B, Q, W]"""
        keys, values = keys_values.chunk(2, dim=-1)
        return self._mix(queries, keys, values, mask, is_causal)

    def _mix(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
        heads = (self.attn.num_heads, self.attn.head_dim)
        # [B, L, W] -> [B, heads, L, W / heads]
        q, k, v = (x.unflatten(-1, heads).transpose(1, 2) for x in (queries, keys, values))
        mask = None if mask is None or is_causal else mask.to(q.dtype)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal)
        return self.attn.out_proj(mixed.transpose(1, 2).flatten(2))

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """What stands behind the attention. [B, Q, W] -> [B, Q, W]"""
        x = x + self.ls_1(attended)
        return x + self.ls_2(self.mlp(self.ln_2(x)))


class ClassTokenBlock(LeanBlock):
    """The last block of an image tower of which only the class token is read: no other position is computed."""

    def forward(
        self, q_x: Tensor, k_x: Tensor | None = None, v_x: Tensor | None = None, attn_mask: Tensor | None = None
    ) -> Tensor:
        """[B, L, W] -> [B, 1, W]"""
        normed, (queries, keys_values) = self.ln_1(q_x), self.projections()
        attended = self.attend(F.linear(normed[:, :1], *queries), F.linear(normed, *keys_values), attn_mask)
        return self.finish(q_x[:, :1], attended)


def make_lean(backend: nn.Module) -> None:
    """Rewrite, in place, those blocks of a CLIP that can be rewritten."""
    for module in list(backend.modules()):
        if _is_plain(module):
            module.__class__ = LeanBlock
        for name, child in module.named_children():
            if type(child) is open_clip.transformer.QuickGELU:
                setattr(module, name, LeanQuickGelu())
    if has_clip_text_tower(backend):
        for block in _text(backend).transformer.modules():
            if type(block) is LeanBlock:
                block.is_causal = True
    visual: Any = backend.visual
    if type(visual) is VisionTransformer and visual.pool_type == "tok":
        last = visual.transformer.resblocks[-1]
        if visual.attn_pool is None and not visual.output_tokens and type(last) is LeanBlock:
            last.__class__ = ClassTokenBlock


def all_tokens(visual: Any, name: str) -> Callable[[Tensor], Tensor]:
    """An image tower that gives the features of its tokens, the class token first. [B, 3, H, W] -> [B, C, D]"""
    if type(visual) is not VisionTransformer or visual.pool_type != "tok" or visual.attn_pool is not None:
        raise ValueError(f"{name} has no features of patches, only a ViT with a class token has; use another policy")
    for block in visual.transformer.resblocks:
        if type(block) is ClassTokenBlock:
            block.__class__ = LeanBlock
    return lambda images: visual.ln_post(visual.transformer(visual._embeds(images))) @ visual.proj


def has_clip_text_tower(backend: nn.Module) -> bool:
    """Whether the text tower is CLIP's: causal, read at the end token."""
    text = _text(backend)
    pool = getattr(text, "pool_type", getattr(text, "text_pool_type", None))
    return pool == "argmax" and text.attn_mask is not None and getattr(text, "cls_emb", None) is None


@torch.no_grad()
def cast_frozen(module: nn.Module, dtype: torch.dtype, spared: Iterable[nn.Module] = ()) -> None:
    """Cast the frozen fp32 weights that autocast would cast at each use, once and in place: the same numbers.

    What stays fp32 otherwise stays: norms, embeddings of words, scales. So does what requires a gradient, and `spared`.
    """
    for owner, name, weight in _products(module, spared):
        if not weight.requires_grad and weight.dtype == torch.float32:
            owner._parameters[name] = nn.Parameter(weight.to(dtype), requires_grad=False)


class _Widened(nn.Module):
    """What a weight is for those who read it, and what it is kept as."""

    def forward(self, kept: Tensor) -> Tensor:
        return kept.float()

    def right_inverse(self, weight: Tensor) -> tuple[Tensor]:
        return (weight.half(),)  # several may have another type, one may not


def keep_halves(module: nn.Module) -> None:
    """Keep frozen fp32 weights that fp16 holds exactly, as OpenAI's, in half the memory; read, they are fp32."""
    for owner, name in [(owner, name) for owner, name, _ in _products(module)]:
        weight = getattr(owner, name)
        if not weight.requires_grad and weight.dtype == torch.float32 and torch.equal(weight.half().float(), weight):
            parametrize.register_parametrization(owner, name, _Widened(), unsafe=True)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; without it the holes stay the process's
    if trim is not None:
        trim(0)


@torch.no_grad()
def cast_tuned(module: nn.Module, dtype: torch.dtype) -> Copies:
    """Let the module compute with copies, in the autocast type, of the fp32 weights that require a gradient.

    The same numbers as under autocast, which copies each weight at each use, and its gradient back. `Updates` keeps the
    copies up.
    """
    copies: Copies = []
    for owner, name, weight in _products(module):
        assert weight.dtype != dtype or not weight.requires_grad, f"{name} is a copy already"
        if weight.requires_grad and weight.dtype == torch.float32:
            copy = owner._parameters[name] = nn.Parameter(weight.to(dtype))
            copies.append((weight, copy))
    return copies


def _products(module: nn.Module, spared: Iterable[nn.Module] = ()) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    """Weights that autocast would cast: their module, their name in it, and themselves."""
    for owner in set(module.modules()).difference(spared):
        names: tuple[str, ...] = PROJECTIONS
        if isinstance(owner, PRODUCTS):
            names = ("weight", "bias")
        elif isinstance(owner, nn.MultiheadAttention):
            names = ("in_proj_weight", "in_proj_bias")
        elif isinstance(owner, VisionTransformer):
            names = (*PROJECTIONS, "positional_embedding")  # which open_clip casts itself
        for name in names:
            weight = owner._parameters.get(name)
            if weight is not None:
                yield owner, name, weight


def _text(backend: nn.Module) -> Any:
    return getattr(backend, "text", backend)


def _is_plain(block: Any) -> bool:
    """Whether a module is the block of OpenAI's CLIPs."""
    return (
        type(block) is open_clip.transformer.ResidualAttentionBlock
        and not hasattr(block, "ln_1_kv")
        and isinstance(block.attn, nn.MultiheadAttention)
        and block.attn.batch_first
        and block.attn.in_proj_weight is not None
        and block.attn.bias_k is None
        and not block.attn.add_zero_attn
    )
