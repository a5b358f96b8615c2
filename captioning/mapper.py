"""The mapper: turns one CLIP feature into the prefix embeddings that a language model reads before the caption.

Source: ClipCap, Mokady et al. 2021 (arXiv 2111.09734); CapDec, Nukrai et al. 2022 (arXiv 2211.00575); official
caption/image_llm/models/modules.py. Parameter names are those of the released checkpoints.
"""

import math
from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NUM_HEADS = 8
MLP_RATIO = 2

ClipLength = int | Literal["patches"] | None


class Mapper(nn.Module):
    """CLIP features [B, D] -> prefix embeddings [B, P, W]."""

    clip_width: int  # D
    lm_width: int  # W
    prefix_length: int  # P


class TransformerMapper(Mapper):
    """ClipCap's transformer: the feature becomes some tokens, P learned constants stand behind them and are read out.

    Args:
        clip_width: D, width of the CLIP feature.
        lm_width: W, width of the language model's token embeddings.
        prefix_length: P, number of prefix embeddings.
        num_layers: of the transformer.
        clip_length: C, number of tokens that the feature becomes; P when None. "patches": the input is a sequence of
            features [B, C, D], one token each (official --clip_patch).
    """

    def __init__(
        self, clip_width: int, lm_width: int, prefix_length: int, num_layers: int, clip_length: ClipLength = None
    ) -> None:
        super().__init__()
        self.clip_width, self.lm_width, self.prefix_length = clip_width, lm_width, prefix_length
        # In the order of the released checkpoints, whose optimizer state goes by position.
        self.prefix_const = nn.Parameter(torch.randn(prefix_length, lm_width))
        layers = nn.Sequential(*(_Layer(lm_width) for _ in range(num_layers)))
        self.transformer = nn.Sequential(OrderedDict(layers=layers))
        num_tokens = 1 if clip_length == "patches" else clip_length or prefix_length  # of each feature
        self.linear = nn.Linear(clip_width, num_tokens * lm_width)

    def forward(self, features: Tensor) -> Tensor:
        """[B, D], or [B, C, D] for patches -> [B, P, W]"""
        tokens = self.linear(features).view(len(features), -1, self.lm_width)  # [B, C * W] -> [B, C, W]
        constants = self.prefix_const.expand(len(features), -1, -1)
        x = self.transformer(torch.cat([tokens, constants], dim=1))  # [B, C + P, W]
        return x[:, -self.prefix_length :]


class MlpMapper(Mapper):
    """Two linear layers with tanh between them; see `TransformerMapper` for the arguments."""

    def __init__(self, clip_width: int, lm_width: int, prefix_length: int) -> None:
        super().__init__()
        self.clip_width, self.lm_width, self.prefix_length = clip_width, lm_width, prefix_length
        width = prefix_length * lm_width
        self.model = nn.Sequential(nn.Linear(clip_width, width // 2), nn.Tanh(), nn.Linear(width // 2, width))

    def forward(self, features: Tensor) -> Tensor:
        """[B, D] -> [B, P, W]"""
        return self.model(features).view(len(features), self.prefix_length, self.lm_width)


class _Layer(nn.Module):
    """Pre-norm attention and MLP, each with a skip connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), _Attention(width)
        fc1, fc2 = nn.Linear(width, MLP_RATIO * width), nn.Linear(MLP_RATIO * width, width)
        self.norm2, self.mlp = nn.LayerNorm(width), nn.Sequential(OrderedDict(fc1=fc1, relu=nn.ReLU(), fc2=fc2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_queries = nn.Linear(width, width, bias=False)
        self.to_keys_values = nn.Linear(width, 2 * width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        heads = (NUM_HEADS, x.shape[-1] // NUM_HEADS)
        keys, values = self.to_keys_values(x).chunk(2, dim=-1)
        q, k, v = (t.unflatten(-1, heads).transpose(1, 2) for t in (self.to_queries(x), keys, values))  # [B, H, L, W/H]
        x = F.scaled_dot_product_attention(q, k, v)
        return self.project(x.transpose(1, 2).flatten(2))  # [B, H, L, W/H] -> [B, L, W]


def build_mapper(
    kind: str, clip_width: int, lm_width: int, prefix_length: int, num_layers: int, clip_length: ClipLength = None
) -> Mapper:
    """A fresh mapper of a kind, for features of width D and embeddings of width W; see the classes.

    ValueError: an unknown kind, or a width that the heads do not divide.
    """
    if kind == "mlp":
        return MlpMapper(clip_width, lm_width, prefix_length)
    if kind != "transformer":
        raise ValueError(f"mapper must be transformer or mlp, got {kind!r}")
    if lm_width % NUM_HEADS:
        fault = f"has {NUM_HEADS} heads, which do not divide the language model's width {lm_width}"
        raise ValueError(f"the transformer mapper {fault}; use mapper=mlp or another llm")
    return TransformerMapper(clip_width, lm_width, prefix_length, num_layers, clip_length)


def inject_noise(
    features: Tensor, variance: float, normal: Tensor, uniform: Tensor | None = None, normalize_first: bool = True
) -> Tensor:
    """CapDec's noise, from numbers already drawn: a text feature becomes one that could be an image's. [B, D] -> [B, D]

    Args:
        variance: of the noise, per coordinate; 0 returns the features unchanged, else the result has unit length.
        normal: standard normal numbers; on any device. [B, D]
        uniform: when given, numbers in [0, 1] that make the noise uniform in a ball of radius sqrt(variance). [B]
        normalize_first: scale the features to unit length before.

    Source: official caption/image_llm/datasets (noise_injection, get_uniform_ball_noise).
    """
    if variance == 0:
        return features
    if normalize_first:
        features = F.normalize(features, dim=-1)
    std, normal = math.sqrt(variance), normal.to(features.device)
    if uniform is None:
        return F.normalize(features + std * normal, dim=-1)
    # The share u of a ball's volume lies within u^(1/D) of it.
    radius = std * uniform.to(features.device) ** (1 / features.shape[-1])
    return F.normalize(features + radius[:, None] * F.normalize(normal, dim=-1), dim=-1)
