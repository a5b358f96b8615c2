"""Train a mapper on pairs of CLIP feature and caption: ClipCap on image features, CapDec on noisy text features.

Source: official caption/image_llm/train.py, datasets/coco_cap.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from captioning.captioner import Captioner


def training_loss(captioner: Captioner, features: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy of all real tokens of a batch, the start token included, nats.

    Here padding is no target: the official data set pads with 0, which its loss ignores.

    Args:
        captioner: its mapper is trained.
        features: what the mapper reads, noise included. [B, D]
        tokens: start token and caption, padded on the right with any token. [B, T]
        mask: 1 where a token is real. [B, T]

    Returns:
        Scalar.
    """
    losses = captioner.token_losses(captioner.prefix(features), tokens, mask)  # [B, T]
    return (losses * mask).sum() / mask.sum()


def learning_rate_share(iteration: int, num_warmup: int, num_iterations: int) -> float:
    """The part of the full learning rate that an iteration has: linear warm-up, then linear decay.

    The official loop moves the schedule on before the update: the first iteration has the rate of step 1, the last 0.

    Args:
        iteration: from 0.
        num_warmup: steps of warm-up.
        num_iterations: of the whole training.
    """
    step = iteration + 1
    if step < num_warmup:
        return step / max(1, num_warmup)
    return max(0.0, (num_iterations - step) / max(1, num_iterations - num_warmup))


def build_optimizer(
    captioner: Captioner, lr: float, weight_decay: float, eps: float, num_warmup: int, num_iterations: int
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW over the mapper, and the schedule that is moved on after each update."""
    optimizer = torch.optim.AdamW(captioner.mapper.parameters(), lr=lr, weight_decay=weight_decay, eps=eps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda iteration: learning_rate_share(iteration, num_warmup, num_iterations)
    )
    return optimizer, schedule
