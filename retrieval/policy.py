"""The models that are adapted: one tower of a CLIP, against a gallery that the other tower encoded before.

Source: paper Sec. 4.2; official retrieval/custom_models.py.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clipscore.clip_model import ClipModel, end_of_text
from clipscore.lean_blocks import Copies


class ImageTowerPolicy:
    """Image-to-text: all parameters of the CLIP's image tower are tuned; the captions are the gallery.

    BatchNorm, of ResNet towers, takes the statistics of the one image while adapting, as in the official code, and the
    running ones, which that has moved, for the answer.
    """

    def __init__(self, clip: ClipModel) -> None:
        self.clip = clip
        self.tuned: dict[str, Tensor] = dict(clip.visual.named_parameters(prefix="visual"))
        self.written: Sequence[str] = ()
        self._norms = [module for module in clip.visual.modules() if isinstance(module, nn.BatchNorm2d)]
        buffers = {f"visual.{n}": t for n, t in clip.visual.state_dict(keep_vars=True).items()} if self._norms else {}
        self.state: dict[str, Tensor] = {**buffers, **self.tuned}
        self.copies = _unfreeze(clip, self.tuned)

    def prepare(self, query: Tensor) -> Tensor:
        """What can be computed once per query, on the policy's device. [1, 3, H, W], unchanged"""
        return self.clip.cast_images(query.to(self.clip.device, non_blocking=True))

    def encode(self, inputs: Tensor) -> Tensor:
        """Unit-length feature of the prepared query. [1, 3, H, W] -> [1, D]"""
        return self.clip.encode_images(inputs)

    def set_adapting(self, adapting: bool) -> None:
        """Switch between adapting and answering: only BatchNorm differs."""
        for norm in self._norms:
            norm.train(adapting)


class TextTowerPolicy:
    """Text-to-image: all but the image tower is tuned, embeddings and logit scale included; of CLIP's own kind only.

    A caption reads a few rows of the token table. The others get no gradient, so that AdamW only shrinks them, and an
    episode never sees that: its rows are tuned in a small table of their own, which gives the same numbers without
    49,408 rows of optimizer state. Momentum's running average does see it, so `whole_table` tunes them all.
    """

    def __init__(self, clip: ClipModel, whole_table: bool) -> None:
        self.clip = clip
        parameters = {n: p for n, p in clip.backend.named_parameters() if not n.startswith("visual.")}
        self._table = clip.text.token_embedding.weight
        self._rows: nn.Parameter | None = None
        self.written: Sequence[str] = ()
        if not whole_table:
            name = next(name for name, parameter in parameters.items() if parameter is self._table)
            max_tokens = clip.text.positional_embedding.shape[0]
            self._rows = nn.Parameter(torch.zeros_like(self._table[:max_tokens]))
            parameters[name] = self._rows
            self.written = [name]
        self.tuned: dict[str, Tensor] = parameters
        self.state = self.tuned
        self.copies = _unfreeze(clip, self.tuned)

    @torch.no_grad()
    def prepare(self, query: Tensor) -> Tensor:
        """Token ids up to the end token, numbers of the small table's rows if there is one. [1, L] -> [1, T]"""
        ids, device = query[:, : int(end_of_text(query)) + 1], self.clip.device
        if self._rows is not None:
            used, ids = ids.unique(return_inverse=True)  # sorted, so the end token stays the highest
            self._rows[: len(used)] = self._table[used.to(device, non_blocking=True)]
        return ids.to(device, non_blocking=True)

    def encode(self, inputs: Tensor) -> Tensor:
        """[1, T] -> [1, D]"""
        table = self._table if self._rows is None else self._rows
        embeddings = nn.functional.embedding(inputs, table)  # [1, T] -> [1, T, W]
        return self.clip.encode_embeddings(embeddings, end_of_text(inputs))

    def set_adapting(self, adapting: bool) -> None: ...  # nothing in CLIP's text tower differs


Policy = ImageTowerPolicy | TextTowerPolicy  # a tower that encodes the query


def logits(policy: Policy, inputs: Tensor, gallery: Tensor) -> Tensor:
    """How well each gallery item fits the query. [1, ...], [G, D] -> [1, G]"""
    return policy.clip.logit_scale * policy.encode(inputs) @ gallery.T


def _unfreeze(clip: ClipModel, parameters: dict[str, Tensor]) -> Copies:
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    clip.cast_frozen()
    return clip.cast_tuned()
