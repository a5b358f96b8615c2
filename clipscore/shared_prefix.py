"""A causal text tower over prompts that begin alike: the work on the common beginning is done once.

A position of a causal tower sees only those before it, so positions that hold the same embeddings in every prompt have
the same keys and values in every prompt. They are computed once per layer, for one prompt, and the rest of each prompt
attends to them and to itself. Of the layers' outputs only the one at the end token is read, so the last layer computes
that position alone. Same formula, summed in another order.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clipscore.lean_blocks import LeanBlock


def can_share(transformer: Any) -> bool:
    """Whether the tower is made of open_clip's plain blocks, the layout of OpenAI's CLIPs, made lean."""
    return all(type(block) is LeanBlock for block in getattr(transformer, "resblocks", [None]))


class SharedPrefix:
    """The common beginning of some prompts, run through the tower once.

    Args:
        transformer: of a tower for which `can_share` holds, in eval mode.
        mask: the tower's causal mask, added to the attention logits. [L, L]
        prefix: embeddings of the common positions, with positional embeddings, for each of G groups. [G, P, W]
    """

    def __init__(self, transformer: Any, mask: Tensor, prefix: Tensor) -> None:
        self.blocks = transformer.resblocks
        self.mask, self.length = mask, prefix.shape[1]
        self.keys_values: list[Tensor] = []  # of each layer, [G, P, 2 W]
        x, width = prefix, prefix.shape[2]
        for block in self.blocks[:-1]:
            queries, keys_values = block.project(block.ln_1(x)).split([width, 2 * width], dim=-1)
            self.keys_values.append(keys_values)
            x = block.finish(x, block.attend(queries, keys_values, None, is_causal=True))
        last = self.blocks[-1]  # its outputs are never read
        self.keys_values.append(F.linear(last.ln_1(x), *last.projections()[1]))

    def read_ends(self, rest: Tensor, ends: Tensor) -> Tensor:
        """The tower's output at the end token of each prompt.

        Args:
            rest: embeddings behind the common positions, with positional embeddings, group by group. [R, T, W]
            ends: place of each end token in `rest`, int64. [R]

        Returns:
            [R, W]
        """
        num_rows, num_tokens, width = rest.shape
        rows = torch.arange(num_rows, device=rest.device)
        mask = self.mask[self.length : self.length + num_tokens, : self.length + num_tokens]  # [T, P + T]
        x = rest
        for block, prefix in zip(self.blocks, self.keys_values, strict=True):
            queries, own = block.project(block.ln_1(x)).split([width, 2 * width], dim=-1)
            mask = mask.to(queries.dtype)  # once: all layers have the first one's type
            spread = prefix.unsqueeze(1).expand(-1, num_rows // len(prefix), -1, -1).flatten(0, 1)  # [R, P, 2 W]
            every = torch.cat([spread, own], dim=1)  # [R, P + T, 2 W]
            if block is self.blocks[-1]:
                x, queries, mask = x[rows, ends, None], queries[rows, ends, None], mask[ends, None, None]  # [R, 1, W]
            x = block.finish(x, block.attend(queries, every, mask))
        return x[:, 0]
