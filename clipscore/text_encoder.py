"""Exact fast text encoding: the numbers of the plain form, without the work that cannot change them.

Three facts are used. CLIP's text tower is causal, so positions behind the end token cannot matter: prompts are sorted
by length, encoded in chunks, and each chunk is cut at its longest prompt. For the same reason the positions that all
prompts begin with are encoded once, see `shared_prefix`. And a loss that depends on few classes has a zero gradient at
all others: the forward pass keeps no graph, and the backward pass encodes again, with a graph, only the rows whose
gradient is not zero. Memory does not grow with the number of classes.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clipscore.clip_model import ClipModel, end_of_text

CHUNK_POSITIONS = 512  # text positions per pass on a CPU: what its caches hold; measured
CUDA_CHUNK_POSITIONS = 8192  # a GPU wants few, large passes: some hundred MB of activations

# (context [..., n_ctx, W], rows [..., R]) -> token embeddings, those of the first context first [... * R, L, W]
PromptBuilder = Callable[[Tensor, Tensor], Tensor]


def length_chunks(eot: Tensor, positions: int | None = None) -> list[Tensor]:
    """Row numbers grouped into chunks of similar length.

    Args:
        eot: position of the end token of each text, on the CPU. [R]
        positions: no chunk holds more than so many text positions, unless it holds one text only; CHUNK_POSITIONS
            when None, see also `chunk_positions`.

    Returns:
        int64 row numbers, shortest texts first; all of them as they are where one chunk holds them.
    """
    return _length_chunks(tuple(eot.tolist()), positions or CHUNK_POSITIONS)


@functools.lru_cache(maxsize=4)  # the classes of a run are the same for every image
def _length_chunks(ends: tuple[int, ...], positions: int) -> list[Tensor]:
    if ends and len(ends) * (max(ends) + 1) <= positions:
        return [torch.arange(len(ends))]
    chunks: list[list[int]] = []
    for row, end in sorted(enumerate(ends), key=lambda pair: pair[1]):
        if not chunks or (len(chunks[-1]) + 1) * (end + 1) > positions:
            chunks.append([])
        chunks[-1].append(row)
    return [torch.tensor(chunk) for chunk in chunks]


def chunk_positions(device: torch.device) -> int:
    """How many text positions a pass takes best on a device."""
    return CUDA_CHUNK_POSITIONS if device.type == "cuda" else CHUNK_POSITIONS


@torch.no_grad()
def encode_texts(clip: ClipModel, texts: Sequence[str]) -> Tensor:
    """Unit-length features of fixed texts, in chunks. C strings -> [C, D]"""
    if not clip.has_clip_text_tower:  # no cut at the end token is possible
        return torch.cat([clip.encode_token_ids(clip.tokenize(texts[i : i + 64])) for i in range(0, len(texts), 64)])
    ids = clip.tokenizer(list(texts))
    eot, num_shared = end_of_text(ids), num_equal_columns(ids)
    chunks = length_chunks(eot - num_shared, chunk_positions(clip.device))
    parts = []
    for rows in chunks:
        cut = ids[rows, : int(eot[rows].max()) + 1].to(clip.device, non_blocking=True)
        parts.append(clip.encode_embeddings(clip.embed_tokens(cut), eot[rows], num_shared))
    return _in_row_order(parts, chunks)


def num_equal_columns(ids: Tensor) -> int:
    """How many leading tokens all texts have in common, the end token not counted. [C, L], on the CPU"""
    same = (ids == ids[0]).all(dim=0)  # [L]
    return min(int(same.cumprod(dim=0).sum()), int(end_of_text(ids).min()))


def encode_prompts(
    clip: ClipModel,
    build: PromptBuilder,
    context: Tensor,
    eot: Tensor,
    known: Tensor | None = None,
    num_shared: int = 0,
    max_used: int | None = None,
) -> Tensor:
    """Unit-length features of all prompts as a differentiable function of their shared context.

    Args:
        clip: its text tower is frozen.
        build: makes the token embeddings of some rows from the context.
        context: tuned context vectors, of one or of several images. [..., n_ctx, W]
        eot: position of the end token of each prompt, on the CPU. [C]
        known: the result, if it was computed before for this very context; the forward pass is then skipped.
        num_shared: so many leading positions are the same in all prompts.
        max_used: no loss depends on more rows than this. The backward pass then encodes so many, without asking the
            device which of them have a gradient; None asks, and encodes no more than needed.

    Returns:
        [..., C, D]; its gradient with respect to the context is exact.
    """
    return _EncodePrompts.apply(context, _Prompts(clip, build, eot, num_shared), known, max_used)


@dataclass(frozen=True)
class _Prompts:
    clip: ClipModel
    build: PromptBuilder
    eot: Tensor
    num_shared: int

    def chunks(self, rows: Tensor) -> list[Tensor]:
        """Rows of similar length; any where only the device knows which they are, or each image has its own."""
        positions = chunk_positions(self.clip.device)
        if rows.ndim > 1:
            length = int(self.eot.max()) + 1 - self.num_shared
            return list(rows.split(max(positions // (len(rows) * length), 1), dim=1))
        if rows.is_cpu:
            return [rows[chunk] for chunk in length_chunks(self.eot[rows] - self.num_shared, positions)]
        return [rows]

    def encode(self, context: Tensor, rows: Tensor) -> Tensor:
        """[..., n_ctx, W], [R] or [..., R] -> [..., R, D]"""
        images = context.shape[:-2]
        rows = rows.expand(*images, rows.shape[-1])
        eot = self.eot.to(rows.device, non_blocking=True)[rows]  # copied only where the device chose the rows
        prompts = self.build(context, rows)
        features = self.clip.encode_embeddings(prompts, eot.flatten(), self.num_shared, images.numel())
        return features.unflatten(0, rows.shape)


class _EncodePrompts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, context: Tensor, prompts: _Prompts, known: Tensor | None, max_used: int | None) -> Tensor:
        ctx.save_for_backward(context)
        ctx.prompts, ctx.max_used = prompts, max_used
        if known is not None:
            return known.clone()
        chunks = prompts.chunks(torch.arange(len(prompts.eot)))
        return _in_row_order([prompts.encode(context, rows) for rows in chunks], chunks)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        context = ctx.saved_tensors[0].detach().requires_grad_()
        total = torch.zeros_like(context)
        for rows in ctx.prompts.chunks(_used_rows(grad, ctx.max_used)):
            with torch.enable_grad():
                features = ctx.prompts.encode(context, rows)
            used = grad.take_along_dim(rows.to(grad.device).unsqueeze(-1), dim=-2)  # [..., R, D]
            total += torch.autograd.grad(features, context, used)[0]
        return total, None, None, None


def _used_rows(grad: Tensor, max_used: int | None) -> Tensor:
    """Numbers of all rows with a gradient, on the CPU; with `max_used`, of so many rows, on the gradient's device.

    Several images have as many each: where one has fewer, others of its rows are added. [..., C, D] -> [..., R]
    """
    used = grad.any(dim=-1)  # [..., C]
    if max_used is None and used.ndim == 1:
        return used.nonzero().squeeze(1).cpu()
    most = max(int(used.sum(dim=-1).max()), 1) if max_used is None else min(max_used, used.shape[-1])
    rows = used.float().topk(most).indices
    return rows.cpu() if max_used is None else rows


def _in_row_order(parts: list[Tensor], chunks: list[Tensor]) -> Tensor:
    if len(parts) == 1:
        return parts[0]  # see `length_chunks`
    order = torch.cat(chunks).argsort().to(parts[0].device, non_blocking=True)
    return torch.cat(parts, dim=-2).index_select(-2, order)
