"""Time and memory of one adapted image at the paper's sizes: `python -m scripts.bench classification`."""

from __future__ import annotations

import argparse
import logging
import resource
import time

import torch

from classification.adapt import adapt
from classification.class_names import class_names
from classification.config import ClassificationConfig
from classification.methods import build_objective, build_policy, build_state
from clipscore.devices import choose_device
from scripts.bench_models import random_clip

log = logging.getLogger(__name__)

LEARNING_RATE = {"prompt": 7e-3, "encoder": 1e-5, "norm": 1e-5}  # of the official runs


def bench_config(options: argparse.Namespace) -> ClassificationConfig:
    """The paper's RLCF run, for models made here."""
    return ClassificationConfig.model_validate(
        {
            "dataset": "random",
            "dataset_files": {"images": ""},
            "data_root": "",
            "pretrained_root": "",
            "output_root": "",
            "method": "rlcf",
        }
        | {"tune": options.tune, "policy": options.policy, "steps": options.steps, "lr": LEARNING_RATE[options.tune]}
        | {"views": {"num_views": options.views}, "reward": {"models": [{"name": options.reward}]}}
    )


def main(arguments: list[str]) -> int:
    """Adapt some random images; print seconds per image and peak memory."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench classification",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--tune", choices=list(LEARNING_RATE), default="prompt")
    parser.add_argument("--policy", default="ViT-B-16", help="open_clip architecture")
    parser.add_argument("--reward", default="ViT-L-14", help="open_clip architecture")
    parser.add_argument("--classes", type=int, default=1000, help="the first so many classes of ImageNet")
    parser.add_argument("--views", type=int, default=64)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args(arguments)
    device = choose_device(options.device)
    torch.manual_seed(0)
    config, names = bench_config(options), class_names("imagenet")[: options.classes]
    policy_clip, reward_clip = (random_clip(n, device, options.precision) for n in (options.policy, options.reward))

    started = time.perf_counter()
    policy = build_policy(config, policy_clip, names)
    objective = build_objective(config, [reward_clip], names)
    state = build_state(config, policy, scale_loss=policy_clip.autocast_dtype is torch.float16)
    log.info("once per data set: %.1f s", time.perf_counter() - started)
    for _ in range(options.images):
        views = torch.randn(options.views, 3, policy_clip.image_size, policy_clip.image_size, device=device)
        started = time.perf_counter()
        episode = adapt(policy, state, objective, views, config.views.num_selected, config.steps)
        losses = [round(step.loss.item(), 6) for step in episode.steps]
        log.info("one image: %.2f s, losses %s", time.perf_counter() - started, losses)
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    log.info("peak memory of the process: %.2f GiB", peak_gb)
    if device.type == "cuda":
        log.info("peak memory of the GPU: %.2f GiB", torch.cuda.max_memory_allocated() / 2**30)
    return 0
