"""Train a captioner's mapper, or go on with it: `python -m scripts.train_mapper --config configs/... key=value ...`.

The run folder OUTPUT/NAME__DATASET__seedSEED gets, beside config.yaml, env.json, summary.json and log.txt:

    ckpt-latest.pt    the mapper after the last epoch, in the form of the released checkpoints
    resume.pt         the same with the optimizer, to go on after a kill
    losses.jsonl      the mean loss of every so many updates, to plot or to read
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from captioning.build import find_checkpoint, language_model_digest, load_language_model
from captioning.checkpoints import CHECKPOINT, LM_KEYS, MAPPER_KEYS
from captioning.config import TrainConfig
from captioning.training.feature_files import CaptionFeatures, load_features
from captioning.training.train import Report, Training, fresh_captioner
from clipscore.cli import print_text
from clipscore.config.fields import RunConfig
from clipscore.config.load import available_configs, load_config
from clipscore.models.devices import autocast_dtype, choose_device, prepare_torch
from clipscore.models.files import file_digest
from clipscore.models.load import load_clip
from clipscore.models.pickles import load_tensors
from scripts.runs.command_line import describe_keys
from scripts.runs.compare_configs import config_differences
from scripts.runs.folder import RunFolder
from scripts.runs.process import command, describe_environment, log_file
from scripts.runs.rows import whole_file
from scripts.runs.trackers import module, tracker

TASK = "train_mapper"
RESUME, LOSSES = "resume.pt", "losses.jsonl"

log = logging.getLogger("scripts.train_mapper")  # __name__ is __main__ under python -m


class TrainingFolder:
    """The files of one training, each whole or not there; resume.pt decides which epochs count."""

    def __init__(self, path: Path, config: TrainConfig, fingerprint: dict[str, str]) -> None:
        self.path, self.save_llm, self.num_epochs = path, config.save_llm, config.epochs
        keys = {"limit": config.limit, **fingerprint}  # of features counts what they hold, not where they lie
        self.identity = config.model_dump(mode="json", exclude={"features"}) | keys

    def check(self) -> dict[str, Any]:
        """The state to go on from, empty at first; ValueError when the folder holds another training."""
        if not (self.path / RESUME).is_file():
            return {}
        state: dict[str, Any] = load_tensors(self.path / RESUME)
        found = config_differences(state["identity"], self.identity, TrainConfig)
        if state["identity"]["limit"] != self.identity["limit"]:
            found.append(f"limit is {state['identity']['limit']} there and {self.identity['limit']} here")
        if found:
            differing = "; ".join(found)
            raise ValueError(f"{self.path} holds another training: {differing}. Give name=OTHER, or delete the folder")
        return state

    def begin(self, state: dict[str, Any], training: Training) -> int:
        """Go back to the end of the last whole epoch, by the state from `check`; the epoch's number, 0 at first."""
        with open(self.path / LOSSES, "ab") as file:
            file.truncate(state.get("bytes", 0))
        if not state:
            return 0
        training.load_state_dict(state["training"])
        self._publish(state["epoch"], training)  # a kill may have come before it
        log.info("%s: %d of %d epochs are done already", self.path, state["epoch"], self.num_epochs)
        return state["epoch"]

    def write(self, report: Report) -> None:
        """Add a line to the losses."""
        with open(self.path / LOSSES, "a", encoding="utf-8") as file:
            file.write(json.dumps(report) + "\n")

    def finish_epoch(self, epoch: int, training: Training) -> None:
        """Keep the state, then publish the mapper."""
        size = (self.path / LOSSES).stat().st_size
        state = {"identity": self.identity, "epoch": epoch, "bytes": size, "training": training.state_dict()}
        with whole_file(self.path / RESUME) as file:
            torch.save(state, file)
        self._publish(epoch, training)
        log.info("epoch %d of %d: loss %.4f", epoch, self.num_epochs, epoch_losses(self.path)[-1])

    def _publish(self, epoch: int, training: Training) -> None:
        state = {MAPPER_KEYS + key: tensor for key, tensor in training.captioner.mapper.state_dict().items()}
        if self.save_llm:
            state |= {LM_KEYS + key: tensor for key, tensor in training.captioner.lm.state_dict().items()}
        with whole_file(self.path / CHECKPOINT) as file:
            torch.save({"epoch": epoch, "state_dict": state}, file)


def epoch_losses(folder: Path) -> list[float]:
    """Mean loss of each epoch, nats per token, from losses.jsonl."""
    totals: dict[int, list[float]] = {}
    for line in map(json.loads, (folder / LOSSES).read_text(encoding="utf-8").splitlines()):
        total = totals.setdefault(line["epoch"], [0.0, 0.0])
        total[0] += line["loss"] * line["updates"]
        total[1] += line["updates"]
    return [total / count for total, count in totals.values()]


def check_policy(config: TrainConfig, features: CaptionFeatures) -> None:
    """ValueError for features of another CLIP than the policy; a warning when the policy's weights are not there."""
    try:
        clip = load_clip(config.policy, config.pretrained_root)
    except FileNotFoundError:
        log.warning("the weights of %s are not there, so the features are taken to be its own", config.policy)
        return
    found, policy = f"the features in {config.features}", f"policy={config.policy}"
    mend = "set policy to the CLIP that made them, or extract them again"
    if features.weights not in (None, clip.sha256):
        of = f"{found} are of a CLIP with sha256 {features.weights}"
        raise ValueError(f"{of}, but {policy} has {clip.sha256}; {mend}")
    if (width := clip.feature_width) != features.width:
        raise ValueError(f"{found} have width {features.width}, but {policy} makes width {width}; {mend}")


def run_training(config: TrainConfig) -> Path:
    """One training from its configuration to its summary, from where an earlier call was stopped; returns the folder.

    The numbers are those of a call that was not stopped. FileNotFoundError: no features, or no language model;
    ValueError: features of another CLIP, a shard, and all that `Training` refuses.
    """
    if config.shard is not None:
        raise ValueError(f"a training has no shards, got shard={config.shard}; leave it out")
    module(config)
    device = choose_device(config.device)
    dtype = autocast_dtype(config.precision, device)
    features = load_features(config.features, [config.output_root, config.data_root])
    check_policy(config, features)
    with RunFolder(config) as folder, log_file(folder.path / "log.txt"):
        prepare_torch(config.num_threads, config.device)
        lm, tokenizer = load_language_model(config.llm, Path(config.pretrained_root))
        fingerprint = {"features": features.digest, "language_model": language_model_digest(lm, tokenizer)}
        fingerprint["computed_in"] = str(dtype or torch.float32)
        start = config.start and find_checkpoint(config.start, [Path(config.pretrained_root), Path(config.output_root)])
        if start:
            fingerprint["start"] = file_digest(start)
        files = TrainingFolder(folder.path, config, fingerprint)
        state = files.check()
        captioner = fresh_captioner(config, features.width, lm.to(device), tokenizer, dtype)
        training = Training(config, captioner, features)
        folder.begin(fingerprint, describe_environment(config.device), {})
        done = files.begin(state, training) or (training.start_from(start) if start else 0)
        with tracker(config, folder.path) as add:
            for epoch in range(done + 1, config.epochs + 1):
                for report in training.run_epoch(epoch):
                    files.write(report)
                    add({"loss": report["loss"]}, (epoch - 1) * training.num_batches + int(report["update"]))
                files.finish_epoch(epoch, training)
        folder.finish({"dataset": config.dataset, "name": config.name, "loss": epoch_losses(folder.path)})
        log.info("wrote %s", folder.path / CHECKPOINT)
        return folder.path


def config_class(task: str) -> type[RunConfig]:
    """The config class of this command's only task; ValueError for another."""
    if task != TASK:
        raise ValueError(f"{task!r} is started by python -m scripts.run; here task must be {TASK}")
    return TrainConfig


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.train_mapper", description=__doc__.splitlines()[0], add_help=False
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of the configuration")
    parser.add_argument("--config", metavar="FILE", help="configs/captioning/train_*.yaml")
    parser.add_argument("-h", "--help", action="store_true", help="show this, and with --config all keys and values")
    args = parser.parse_intermixed_args(arguments)
    files = [file for file in available_configs() if "/train_" in file]
    if args.config is None and not args.help:
        parser.error(f"--config FILE is missing; there are: {', '.join(files)}")
    return command(lambda: _run(parser, files, args), "from the last whole epoch")


def _run(parser: argparse.ArgumentParser, files: Sequence[str], args: argparse.Namespace) -> None:
    if args.help:
        keys = describe_keys(args.config, args.overrides, config_class) if args.config else files
        return print_text("\n".join([parser.format_help(), *keys]))
    config = load_config(args.config, args.overrides, config_class)
    assert isinstance(config, TrainConfig)
    run_training(config)


if __name__ == "__main__":
    sys.exit(main())
