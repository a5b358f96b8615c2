"""One CLIP behind one face: encode images, token ids or prompt embeddings to unit-length features.

The only module that knows the attribute names of open_clip's models. Weights are found and read in `models.load`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._functorch import config as functorch

from clipscore import lean_blocks
from clipscore.lean_blocks import Copies
from clipscore.shared_prefix import SharedPrefix, can_share

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# On CUDA a common beginning is encoded once only if that spares more positions: below, the launches cost more.
CUDA_SHARED_POSITIONS = 8192


class Form(NamedTuple):
    """How a model wants a picture: the side in pixels, and how it comes to that."""

    size: int
    resize_mode: str = "shortest"  # side to the size, then a centre crop; longest: then a border; squash: both sides
    interpolation: str = "bicubic"

    def is_seen_as(self, other: Form) -> bool:
        """Whether a picture for the other model, resized, is what this one wants, as in the official code."""
        return self[1:] == other[1:]

    @property
    def how(self) -> str:
        """In words, for records and cache keys."""
        plain = "short side bicubic, centre crop, CLIP mean and deviation"
        return plain if self.is_seen_as(Form(self.size)) else f"{self.resize_mode}, {self.interpolation}, as the model"


class ClipModel(nn.Module):
    """A CLIP with fp32 (or fp64) weights, optionally computed under autocast.

    Args:
        backend: an open_clip `CLIP` or `CustomTextCLIP`.
        name: how the user called it; used in messages and records.
        sha256: of the weight file, for records and cache keys.
        tokenizer: list of strings -> token ids [B, L], cut at L with the end token put back.
        autocast_dtype: fp16 or bf16 to compute under autocast, None for the weights' own precision.
        lean: rewrite some of the backend's blocks in place, see `lean_blocks`; False keeps open_clip's own, to compare.
        seen: mean, std, interpolation and resize_mode of its images where they are not OpenAI's, as open_clip has them.
    """

    _fixed_scale: Tensor | None
    _gain: Tensor
    _shift: Tensor

    def __init__(
        self,
        backend: nn.Module,
        name: str,
        sha256: str,
        tokenizer: Callable[[list[str]], Tensor],
        autocast_dtype: torch.dtype | None = None,
        lean: bool = True,
        seen: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if lean:
            lean_blocks.make_lean(backend)
        self.backend: Any = backend
        self.name = name
        self.sha256 = sha256
        self.tokenizer = tokenizer
        self.autocast_dtype = autocast_dtype
        self.images_under_autocast = True
        self.is_compiled = False
        self._graphs: dict[int, Any] = {}  # by the number of images
        visual: Any = backend.visual
        self.image_size: int = visual.image_size if isinstance(visual.image_size, int) else visual.image_size[0]
        seen = seen or {}
        self.form = Form(self.image_size, *(seen.get(key) or Form._field_defaults[key] for key in Form._fields[1:]))
        mean, std = torch.tensor(seen.get("mean") or CLIP_MEAN), torch.tensor(seen.get("std") or CLIP_STD)
        self.own_normalisation = not (
            torch.allclose(mean, torch.tensor(CLIP_MEAN)) and torch.allclose(std, torch.tensor(CLIP_STD))
        )
        self.register_buffer("_fixed_scale", None, persistent=False)
        self.register_buffer("_gain", (torch.tensor(CLIP_STD) / std).view(3, 1, 1), persistent=False)
        self.register_buffer("_shift", ((torch.tensor(CLIP_MEAN) - mean) / std).view(3, 1, 1), persistent=False)

    @property
    def visual(self) -> nn.Module:
        """The image tower, projection included."""
        return self.backend.visual

    @property
    def text(self) -> Any:
        """The module that holds the text tower's parts."""
        return getattr(self.backend, "text", self.backend)

    @property
    def token_width(self) -> int:
        """W: width of the text tower's token embeddings."""
        return self.text.token_embedding.weight.shape[1]

    @property
    def feature_width(self) -> int:
        """D: width of the features. timm's image towers do not say it, then the text tower does."""
        towers: tuple[Any, ...] = self.visual, self.text
        for tower in towers:
            if hasattr(tower, "output_dim"):
                return int(tower.output_dim)
        return self.text.text_projection.shape[1]

    @property
    def logit_scale(self) -> Tensor:
        """Scalar that multiplies a cosine to give a logit (already exponentiated)."""
        return self.backend.logit_scale.exp() if self._fixed_scale is None else self._fixed_scale

    @property
    def device(self) -> torch.device:
        return self.backend.logit_scale.device

    @property
    def dtype(self) -> torch.dtype:
        return self.backend.logit_scale.dtype

    @property
    def has_clip_text_tower(self) -> bool:
        """Whether the text tower is CLIP's: causal, read at the end token. Needed to encode prompt embeddings."""
        return lean_blocks.has_clip_text_tower(self.backend)

    def cast_frozen(self, images: bool = True) -> None:
        """Cast the frozen weights of products to the autocast type, once instead of at each use: the same numbers.

        To be called when what is tuned requires its gradient. With `images` false the image tower stays as it is, and
        computes outside autocast from here on. On a CPU, without autocast, image towers take half the memory instead.
        """
        self.images_under_autocast = images
        if not self.backend.logit_scale.requires_grad:
            self._fixed_scale = self.logit_scale.detach()
        if self.autocast_dtype is not None:
            whole = self.backend if self.has_clip_text_tower else self.visual
            lean_blocks.cast_frozen(whole, self.autocast_dtype, () if images else self.visual.modules())
        elif self.device.type == "cpu":  # a tower of texts makes many small passes
            lean_blocks.keep_halves(self.visual)

    def cast_tuned(self) -> Copies:
        """See `lean_blocks.cast_tuned`; nothing happens without autocast."""
        return [] if self.autocast_dtype is None else lean_blocks.cast_tuned(self.backend, self.autocast_dtype)

    def compile_visual(self) -> ClipModel:
        """Put the image tower through torch.compile, for each batch size by itself; other last digits."""
        functorch.donated_buffer = False  # a step that overflows goes backward again
        self.visual.compile(dynamic=False)
        self.is_compiled = True
        return self

    def graph_visual(self, num_images: int) -> None:
        """Replay passes of so many images that need a gradient, and the way back, as CUDA graphs: the same numbers.

        To be called when what is tuned requires its gradient and has its copies, and before other threads use CUDA. One
        pass has to go back before the next begins. ValueError: BatchNorm, whose statistics the capture would move.
        """
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.visual.modules()):
            raise ValueError(f"{self.name} has BatchNorm in its image tower; leave out cuda_graphs=true")
        size, dtype = self.image_size, self.autocast_dtype
        images = self.cast_images(torch.zeros(num_images, 3, size, size, dtype=self.dtype, device=self.device))
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None, cache_enabled=False):
            tower = nn.Sequential(self.visual)  # the passes of others stay the tower's own
            self._graphs[num_images] = torch.cuda.make_graphed_callables(tower, (images,), allow_unused_input=True)

    def free_text_tower(self) -> None:
        """Give back the memory of a text tower that is no longer needed; from here on the model encodes images only."""
        if self.has_clip_text_tower:
            for part in (self.text.token_embedding, self.text.transformer):
                part.to("meta")

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token ids [B, L] on the model's device; a text that is too long is cut and ends with the end token."""
        return self.tokenizer(list(texts)).to(self.device)

    def project_images(self, images: Tensor) -> Tensor:
        """Image features before normalisation.

        Args:
            images: normalised with CLIP's mean and standard deviation, at the model's size. [B, 3, H, W]

        Returns:
            [B, D], in the weights' precision.

        Raises:
            ValueError: the size is not the model's.
        """
        graph = self._graphs.get(len(images)) if torch.is_grad_enabled() else None
        return self._project(images, graph or self.visual)

    def _project(self, images: Tensor, tower: Callable[[Tensor], Tensor]) -> Tensor:
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"{self.name} takes images [B, 3, {self.image_size}, {self.image_size}], got {list(images.shape)}; "
                "resize them with clipscore.reward.resize_images"
            )
        if self.own_normalisation:  # models whose training did not use CLIP's mean and deviation
            images = images * self._gain + self._shift
        with self._autocast() if self.images_under_autocast else contextlib.nullcontext():
            return tower(images).to(self.dtype)

    def project_patches(self, images: Tensor) -> Tensor:
        """Features of the class token and of every patch, before normalisation. [B, 3, H, W] -> [B, C, D]

        ValueError: no plain ViT as OpenAI's are, or another size.
        """
        return self._project(images, lean_blocks.all_tokens(self.visual, self.name))

    def cast_images(self, images: Tensor) -> Tensor:
        """Images that several passes read, in the type in which each would read them. [B, 3, H, W]"""
        if self.autocast_dtype is None or self.own_normalisation or not self.images_under_autocast:
            return images
        return images.to(self.autocast_dtype)

    def encode_images(self, images: Tensor) -> Tensor:
        """`project_images`, scaled to unit length. [B, 3, H, W] -> [B, D]"""
        return unit(self.project_images(images))

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Token embeddings without positions. [B, L] -> [B, L, W]; RuntimeError: the text tower was given back."""
        if self.text.token_embedding.weight.is_meta:
            raise RuntimeError(f"{self.name} gave its text tower back; encode texts before `free_text_tower`")
        return self.text.token_embedding(ids).to(self.dtype)

    def project_embeddings(self, embeddings: Tensor, eot: Tensor, num_shared: int = 0, num_groups: int = 1) -> Tensor:
        """Text features before normalisation, from token embeddings.

        The tower is causal: positions behind the last end token cannot matter, so the caller may leave them out.

        Args:
            embeddings: token embeddings without positions. [B, L, W]
            eot: position of each text's end token, int64. [B]
            num_shared: so many leading positions, all in front of the end tokens, hold the same embeddings in every
                text of a group; where the tower allows, their work is done once.
            num_groups: of as many texts each, one after the other.

        Returns:
            [B, D], in the weights' precision.

        Raises:
            ValueError: the model's text tower is not CLIP's.
        """
        if not self.has_clip_text_tower:
            raise ValueError(
                f"{self.name} has no causal CLIP text tower, so prompts cannot be tuned through it; "
                "use an OpenAI CLIP or an open_clip model with the same text tower"
            )
        length = embeddings.shape[1]
        text, mask = self.text, self.text.attn_mask[:length, :length]
        eot = eot.to(embeddings.device, non_blocking=True)
        with self._autocast():
            x = embeddings + text.positional_embedding[:length].to(embeddings.dtype)  # [B, L, W]
            is_worth_it = not x.is_cuda or len(x) * num_shared > CUDA_SHARED_POSITIONS
            if num_shared and is_worth_it and can_share(text.transformer):
                prefix = SharedPrefix(text.transformer, mask, x[:: len(x) // num_groups, :num_shared])
                x = prefix.read_ends(x[:, num_shared:], eot - num_shared)  # [B, W]
            else:
                x = text.transformer(x, attn_mask=mask)[torch.arange(len(x), device=x.device), eot]  # [B, W]
            x = text.ln_final(x)
            projection = text.text_projection
            x = projection(x) if isinstance(projection, nn.Module) else x @ projection  # [B, W] -> [B, D]
        return x.to(self.dtype)

    def encode_embeddings(self, embeddings: Tensor, eot: Tensor, num_shared: int = 0, num_groups: int = 1) -> Tensor:
        """`project_embeddings`, scaled to unit length. [B, L, W], [B] -> [B, D]"""
        return unit(self.project_embeddings(embeddings, eot, num_shared, num_groups))

    def project_token_ids(self, ids: Tensor) -> Tensor:
        """Text features before normalisation. [B, L] -> [B, D]"""
        if self.has_clip_text_tower:
            eot = end_of_text(ids)
            return self.project_embeddings(self.embed_tokens(ids[:, : int(eot.max()) + 1]), eot)
        with self._autocast():
            return self.backend.encode_text(ids).to(self.dtype)

    def encode_token_ids(self, ids: Tensor) -> Tensor:
        """`project_token_ids`, scaled to unit length. [B, L] -> [B, D]"""
        return unit(self.project_token_ids(ids))

    @contextlib.contextmanager
    def full_precision(self) -> Iterator[None]:
        """Compute in the weights' precision meanwhile; only before `cast_frozen`."""
        dtype, self.autocast_dtype = self.autocast_dtype, None
        try:
            yield
        finally:
            self.autocast_dtype = dtype

    def _autocast(self) -> contextlib.AbstractContextManager[None]:
        if self.autocast_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast_dtype)


def unit(features: Tensor) -> Tensor:
    """Scaled to unit length; a vector of zeros, which has no direction, becomes NaN. [..., D]"""
    return features / torch.linalg.vector_norm(features, dim=-1, keepdim=True)


def end_of_text(ids: Tensor) -> Tensor:
    """Position of the end token: the highest id of CLIP's vocabulary. [B, L] -> [B]"""
    return ids.argmax(dim=-1)
