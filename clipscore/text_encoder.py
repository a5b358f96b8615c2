"""Exact fast text encoding: the numbers of the plain form, without the work that cannot change them.

Two facts are used. CLIP's text tower is causal, so positions behind the end token cannot matter: prompts are sorted by
length, encoded in chunks, and each chunk is cut at its longest prompt. And a loss that depends on few classes has a
zero gradient at all others: the forward pass keeps no graph, and the backward pass encodes again, with a graph, only
the rows whose gradient is not zero. Memory does not grow with the number of classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from clipscore.clip_model import ClipModel, end_of_text

CHUNK_POSITIONS = 2048  # text positions per pass: a few hundred MB of activations for a tower of width 512

PromptBuilder = Callable[[Tensor, Tensor], Tensor]  # (context, rows [R]) -> token embeddings [R, L, W]


def length_chunks(eot: Tensor, positions: int | None = None) -> list[Tensor]:
    """Row numbers grouped into chunks of similar length.

    Args:
        eot: position of the end token of each text, on the CPU. [R]
        positions: no chunk holds more than so many text positions, unless it holds one text only; CHUNK_POSITIONS
            when None.

    Returns:
        int64 row numbers, shortest texts first.
    """
    positions = positions or CHUNK_POSITIONS
    chunks: list[list[int]] = []
    for row in eot.argsort(stable=True).tolist():
        length = int(eot[row]) + 1
        if not chunks or (len(chunks[-1]) + 1) * length > positions:
            chunks.append([])
        chunks[-1].append(row)
    return [torch.tensor(chunk) for chunk in chunks]


@torch.no_grad()
def encode_texts(clip: ClipModel, texts: Sequence[str]) -> Tensor:
    """Unit-length features of fixed texts, in chunks. C strings -> [C, D]"""
    if not clip.has_clip_text_tower:  # no cut at the end token is possible
        return torch.cat([clip.encode_token_ids(clip.tokenize(texts[i : i + 64])) for i in range(0, len(texts), 64)])
    ids = clip.tokenize(texts)
    chunks = length_chunks(end_of_text(ids).cpu())
    return _in_row_order([clip.encode_token_ids(ids[chunk.to(ids.device)]) for chunk in chunks], chunks)


def encode_prompts(
    clip: ClipModel, build: PromptBuilder, context: Tensor, eot: Tensor, known: Tensor | None = None
) -> Tensor:
    """Unit-length features of all prompts as a differentiable function of their shared context.

    Args:
        clip: its text tower is frozen.
        build: makes the token embeddings of some rows from the context.
        context: tuned context vectors. [n_ctx, W]
        eot: position of the end token of each prompt, on the CPU. [C]
        known: the result, if it was computed before for this very context; the forward pass is then skipped. [C, D]

    Returns:
        [C, D]; its gradient with respect to the context is exact.
    """
    return _EncodePrompts.apply(context, clip, build, eot, known)


class _EncodePrompts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, context: Tensor, clip: ClipModel, build: PromptBuilder, eot: Tensor, known: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(context)
        ctx.clip, ctx.build, ctx.eot = clip, build, eot
        if known is not None:
            return known.clone()
        chunks = length_chunks(eot)
        return _in_row_order([clip.encode_embeddings(build(context, rows), eot[rows]) for rows in chunks], chunks)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        context = ctx.saved_tensors[0].detach().requires_grad_()
        used = grad.any(dim=1).nonzero().squeeze(1).cpu()  # [C, D] -> [R]
        total = torch.zeros_like(context)
        for chunk in length_chunks(ctx.eot[used]):
            rows = used[chunk]
            with torch.enable_grad():
                features = ctx.clip.encode_embeddings(ctx.build(context, rows), ctx.eot[rows])
            total += torch.autograd.grad(features, context, grad[rows.to(grad.device)])[0]
        return total, None, None, None, None


def _in_row_order(parts: list[Tensor], chunks: list[Tensor]) -> Tensor:
    joined = torch.cat(parts)
    return joined[torch.cat(chunks).argsort().to(joined.device)]
