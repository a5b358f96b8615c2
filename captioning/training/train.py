"""Train a mapper on pairs of CLIP feature and caption: ClipCap on image features, CapDec on noisy text features.

Source: official caption/image_llm/train.py, datasets/coco_cap.py.
"""

import hashlib
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from captioning.captioner import Captioner, embedding_width
from captioning.checkpoints import load_mapper, read_checkpoint
from captioning.config import TrainConfig
from captioning.mapper import build_mapper, inject_noise
from captioning.training.feature_files import CaptionFeatures
from clipscore.models.pickles import load_tensors

REPORT_STEPS = 50  # updates between two looks at the loss
SCALE = 1000.0  # first factor of the loss under fp16; official GradScaler(init_scale=1000)

Report = dict[str, float | int]


def training_loss(captioner: Captioner, features: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy of all real tokens of a batch, the start token included, nats. [B, D], 2 x [B, T] -> scalar

    Here padding is no target: the official data set pads with 0, which its loss ignores. `features` are what the mapper
    reads, noise included; `tokens` begin with the start token; `mask` is 1 where a token is real.
    """
    losses = captioner.token_losses(captioner.prefix(features), tokens, mask)  # [B, T]
    return (losses * mask).sum() / mask.sum()


def learning_rate_share(iteration: int, num_warmup: int, num_iterations: int) -> float:
    """The part of the full learning rate that an iteration, from 0, has: linear warm-up, then linear decay.

    The official loop moves the schedule on before the update: the first iteration has the rate of step 1, the last 0.
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


class TrainingSet:
    """Captions as tokens, and the feature that each is written from; ValueError for ClipCap without image features."""

    def __init__(self, config: TrainConfig, features: CaptionFeatures, captioner: Captioner) -> None:
        captions = features.captions[: config.limit]
        if config.kind == "clipcap":
            if features.images is None:
                raise ValueError("kind=clipcap needs image features, but only captions were encoded; use kind=capdec")
            self.features, self.rows = features.images, features.image_index  # [I, D] or [I, C, D], [N]
            if (features.images.ndim == 3) != (config.clip_length == "patches"):
                found = f"clip_length={config.clip_length}, but the features are {list(features.images.shape)}"
                mend = "patches needs those of captioning.features --patches [I, C, D], all else [I, D]"
                raise ValueError(f"{found}; {mend}")
        else:
            self.features, self.rows = features.texts, torch.arange(len(captions))  # [N, D], [N]
        if config.normalize_prefix:
            self.features = F.normalize(self.features, dim=-1)
        tokens = captioner.tokenizer(captions, add_special_tokens=False).input_ids
        longest = longest_caption([1 + len(text) for text in tokens])
        self.tokens = [[captioner.bos, *text][:longest] for text in tokens]

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, chosen: Tensor, pad: int) -> tuple[Tensor, Tensor, Tensor]:
        """Features [B, D], tokens and mask [B, T] of some captions; T is that of the longest of them."""
        texts = [torch.tensor(self.tokens[index]) for index in chosen.tolist()]
        tokens = pad_sequence(texts, batch_first=True, padding_value=pad)
        mask = pad_sequence([torch.ones_like(text) for text in texts], batch_first=True)
        return self.features[self.rows[chosen]], tokens, mask


def longest_caption(lengths: Sequence[int]) -> int:
    """Tokens that a caption may have: ten standard deviations above the mean; what is longer is cut."""
    if len(lengths) == 1:
        return lengths[0]
    numbers = torch.tensor(lengths, dtype=torch.float64)
    return min(int(numbers.mean() + 10 * numbers.std()), max(lengths))


def fresh_captioner(
    config: TrainConfig, clip_width: int, lm: nn.Module, tokenizer: Any, autocast: torch.dtype | None = None
) -> Captioner:
    """A captioner whose mapper has first weights by the seed; ValueError: a prefix longer than the language model."""
    limit = getattr(lm.config, "max_position_embeddings", config.prefix_length + 2)
    if config.prefix_length + 1 >= limit:
        raise ValueError(f"prefix_length={config.prefix_length} is too long: the language model has {limit} positions")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        lengths = config.prefix_length, config.mapper_layers, config.clip_length
        mapper = build_mapper(config.mapper, clip_width, embedding_width(lm), *lengths)
    return Captioner(lm, tokenizer, mapper.to(next(lm.parameters()).device), autocast)


class Training:
    """All that moves while a mapper is trained, but for random numbers: each epoch has generators of its own.

    ValueError for fewer captions than a batch, or no image features; see `TrainingSet`.
    """

    def __init__(self, config: TrainConfig, captioner: Captioner, features: CaptionFeatures) -> None:
        self.config, self.captioner, self.data = config, captioner, TrainingSet(config, features, captioner)
        self.num_batches = len(self.data) // config.batch  # official: what is left of an epoch is not used
        if self.num_batches == 0:
            raise ValueError(f"{len(self.data)} captions are less than one batch of {config.batch}; lower batch")
        self.optimizer, self.schedule = build_optimizer(
            captioner, config.lr, config.weight_decay, config.eps, config.warmup, config.epochs * self.num_batches
        )
        is_fp16 = captioner.autocast_dtype == torch.float16
        self.scaler = torch.amp.GradScaler(captioner.device.type, init_scale=SCALE, enabled=is_fp16)
        self._parts = {
            "mapper": captioner.mapper, "optimizer": self.optimizer, "schedule": self.schedule, "scaler": self.scaler
        }  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """What a later process needs to go on with the same numbers."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])

    def start_from(self, path: Path) -> int:
        """Take up a mapper, and an official one's optimizer; the epochs done. ValueError: other sizes, or none left."""
        config, mapper = self.config, self.captioner.mapper
        sizes = mapper.clip_width, mapper.lm_width, config.prefix_length, config.mapper_layers, config.clip_length
        mapper.load_state_dict(load_mapper(config.mapper, read_checkpoint(path)[0], *sizes).state_dict())
        stored = load_tensors(path)
        if "optimizer" not in stored:
            return 0
        if stored["epoch"] >= config.epochs:
            raise ValueError(f"{path} has done {stored['epoch']} epochs of {config.epochs}; raise epochs")
        self.optimizer.load_state_dict(stored["optimizer"])
        self.schedule.load_state_dict(stored["scheduler"])
        if stored.get("scaler"):
            self.scaler.load_state_dict(stored["scaler"])
        return int(stored["epoch"])

    def run_epoch(self, epoch: int) -> Iterator[Report]:
        """A pass over the captions; a report every REPORT_STEPS updates. FloatingPointError: the loss is not finite."""
        config, captioner, data = self.config, self.captioner, self.data
        order = torch.randperm(len(data), generator=_generator(config.seed, epoch, "order"))
        batches = order[: self.num_batches * config.batch].split(config.batch)
        noise, total, count = _generator(config.seed, epoch, "noise"), torch.zeros((), device=captioner.device), 0
        captioner.train()
        bar = tqdm(batches, f"epoch {epoch}/{config.epochs}", dynamic_ncols=True, disable=not sys.stderr.isatty())
        for number, chosen in enumerate(bar, start=1):
            features, tokens, mask = (part.to(captioner.device) for part in data.batch(chosen, captioner.pad))
            if config.kind == "capdec":
                normal = torch.randn(features.shape, generator=noise, dtype=features.dtype)
                ball = torch.rand(len(features), generator=noise, dtype=features.dtype) if config.uniform_ball else None
                features = inject_noise(features, config.noise_variance, normal, ball, not config.normalize_prefix)
            loss = training_loss(captioner, features, tokens, mask)
            self.optimizer.zero_grad()
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.schedule.step()
            total, count = total + loss.detach(), count + 1
            if count == REPORT_STEPS or number == self.num_batches:
                mean = float(total) / count
                if not math.isfinite(mean):
                    raise FloatingPointError(f"epoch {epoch}, update {number}: loss {mean}; lower lr or use fp32")
                bar.set_postfix(loss=f"{mean:.3f}")
                yield {"epoch": epoch, "update": number, "updates": count, "loss": mean}
                total, count = torch.zeros_like(total), 0
        captioner.eval()


def _generator(seed: int, epoch: int, what: str) -> torch.Generator:
    """On the CPU, so that all devices draw the same numbers; each epoch has its own, so that none has to be kept."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{what}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
