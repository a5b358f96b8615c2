"""What methods for a stream keep of the images that they have seen."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Cache:
    """At most K items of each class: those of lowest entropy, in its order; or, not `ranked`, the last, in their own
    order.

    Empty places are of infinite entropy. `like` are class features [C, D], `capacity` is K, and `width` that of what is
    kept of an item besides its feature.
    """

    def __init__(self, like: Tensor, capacity: int, width: int = 0, ranked: bool = True) -> None:
        num_classes, feature_width = like.shape
        self.ranked = ranked
        self.entropy = like.new_full((num_classes, capacity), torch.inf)  # [C, K]
        self.features = like.new_zeros(num_classes, capacity, feature_width)  # [C, K, D]
        self.extra = like.new_zeros(num_classes, capacity, width)  # [C, K, width]

    @property
    def tensors(self) -> list[Tensor]:
        """Its whole state."""
        return [self.entropy, self.features, self.extra]

    def load(self, tensors: Sequence[Tensor]) -> None:
        """Take over the `tensors` of a cache that is as large, or smaller."""
        for here, saved in zip(self.tensors, tensors, strict=True):
            here[:, : saved.shape[1]].copy_(saved)

    def add(self, label: int, entropy: Tensor, feature: Tensor, extra: Tensor | None = None) -> None:
        """Take an item in; of too many one leaves: of the ranked the last, else the first. [], [D], [width]"""
        if not entropy.isfinite():  # it would spoil the answers for all images to come
            raise FloatingPointError(f"not finite: the entropy of an image is {float(entropy)}")
        row = self.entropy[label]
        place = int((row <= entropy).sum() if self.ranked else row.isfinite().sum())
        first = 0 if self.ranked else max(0, place + 1 - len(row))
        for kept, new in zip(self.tensors, (entropy, feature, feature[:0] if extra is None else extra), strict=True):
            kept[label] = torch.cat([kept[label, :place], new[None], kept[label, place:]])[first : first + len(row)]

    def affinities(self, feature: Tensor, beta: float) -> Tensor:
        """How near each item is, 0 where there is none. [D] -> [C, K]"""
        return (-beta * (1 - self.features @ feature)).exp() * self.entropy.isfinite()
