"""Classification: one adapted image, by the official schedule of work and by ours."""

import argparse
import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from classification.adapt import adapt
from classification.build import build_method
from classification.config import ClassificationConfig
from classification.data.class_names import class_names
from classification.method import TunedMethod
from classification.prompt_learner import class_prompts
from classification.seen import Views
from classification.view_bank import ViewBank
from classification.views import make_views
from clipscore.clip_model import ClipModel
from clipscore.lean_blocks import make_lean
from clipscore.metrics.stage_times import StageTimes
from clipscore.models.group import Models
from clipscore.objectives import RlcfObjective
from clipscore.task import build_reward
from scripts.bench.plain import Answer, plain_encoder, plain_prompt
from scripts.bench.timing import NOWHERE, Bench, Run, bench_clip, random_picture

LEARNING_RATE = {"prompt": 7e-3, "cached": 7e-3}  # of the official runs; of encoders 1e-5
NUM_SELECTED = 6  # of 64 views, in the paper; all, when there are fewer

Clips = tuple[ClipModel, ClipModel]  # policy and reward


class ClassificationBench(Bench):
    """A case is for example "prompt, 100 classes"; of `classes`, the encoder has the first only.

    "cached" is a second run of prompt tuning on the same views, from the bank of their features; its plain form has no
    bank. Above `plain_classes`, the plain form of prompt tuning is run on a quarter of these, its text time is scaled.
    """

    task = "classification"
    defaults = {
        "policy": "ViT-B-16", "reward": "ViT-L-14", "tune": ["prompt", "encoder", "cached"], "classes": [100, 1000],
        "plain_classes": 100, "views": 64, "steps": 3, "images": 2,
    }  # fmt: skip
    demo = {"policy": "policy", "reward": "reward", "classes": [60], "images": 5}

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        names, self.folder = (options.policy, options.reward), tempfile.TemporaryDirectory()
        self.models = tuple(bench_clip(name, self.device, options.precision) for name in names)
        self.names: Sequence[str] = class_names("imagenet")
        if options.size == "demo":
            from scripts.demo.scenes import CLASS_NAMES  # scikit-learn would count as memory of the episode

            self.names = CLASS_NAMES

    def cases(self) -> list[str]:
        options = self.options
        counts = {tune: options.classes[: None if tune in LEARNING_RATE else 1] for tune in options.tune}
        return [f"{tune}, {number} classes" for tune in counts for number in counts[tune]]

    def growth(self, case: str) -> float:
        return len(self._names(case)) / len(self._few(case))

    def sample(self, case: str, number: int) -> Tensor:
        """The views of a picture, [N, 3, H, W]."""
        views = make_views(random_picture(number), self.options.views, self.models[0].image_size, seed=number)
        return views.to(self.device)

    def plain(self, case: str, clips: Clips, times: StageTimes) -> Run:
        if case.startswith("cached"):
            return self.fast(case.replace("cached", "prompt"), clips, times)
        config, names, reward = self._config(case), self._few(case), build_reward(self._config(case), clips[1:])
        features = reward.encode_texts(class_prompts(config.prompt_words, names))
        objective = RlcfObjective(reward, features, config.num_candidates, config.reward_options)
        make = plain_prompt if config.tune == "prompt" else plain_encoder
        episode = make(clips[0], config, objective, names, times)
        return lambda views, steps: episode.run((views, None), steps)

    def fast(self, case: str, clips: Clips, times: StageTimes) -> Run:
        config, (clip, reward) = self._config(case), clips
        for model in clips:
            make_lean(model.backend)  # as in a run
        reward.cast_frozen()
        method = build_method(config, Models(clip, [reward], [], self.device, clip.autocast_dtype), self._names(case))
        assert isinstance(method, TunedMethod) and isinstance(method.objective, RlcfObjective)
        policy, state, objective = method.policy, method.state, method.objective
        banks: list[ViewBank] = []
        for owner, function, stage in [
            (policy, "prepare", "policy"), (policy, "logits", "policy"), (objective.reward, "encode_images", "reward"),
            *([(policy, "class_features", "text")] if config.tune == "prompt" else []), *method.stages(),
        ]:  # fmt: skip
            times.watch(owner, function, stage)

        def run(views: Tensor, steps: int) -> Answer:
            key = f"{float(views.double().sum())!r}"
            bank = functools.partial(banks[0].projected, key) if banks else None
            seen = Views(views, policy, objective.reward, objective.features, bank)
            episode = adapt(policy, state, objective, seen, config.views.num_selected, steps)
            return Answer.of(episode.after, episode.selected, episode.steps)

        if case.startswith("cached"):
            banks.append(ViewBank(Path(self.folder.name), clips, {}, self.options.views, 1))
            for number in range(self.options.images + 1):
                run(self.sample(case, number), self.options.steps)
        return run

    def compare(self, case: str, plain: Answer, fast: Answer) -> dict[str, bool | float]:
        """Top-1 and trusted views, and what `apart` says."""
        if self.growth(case) != 1:
            return {}
        top = bool(plain.logits.argmax() == fast.logits.argmax())
        return {"top-1": top, "views": torch.equal(plain.selected, fast.selected)} | plain.apart(fast)

    def _names(self, case: str) -> Sequence[str]:
        return self.names[: int(case.split()[1])]

    def _few(self, case: str) -> Sequence[str]:
        """The classes that the plain form is run on."""
        names, most = self._names(case), self.options.plain_classes
        return names if len(names) <= most or not case.startswith("prompt") else names[: max(most // 4, 1)]

    def _config(self, case: str) -> ClassificationConfig:
        """The paper's RLCF run, for models made here; six trusted views, however many there are."""
        tune, num_views = case.split(",")[0].replace("cached", "prompt"), self.options.views
        return ClassificationConfig.of(NOWHERE | {
            "dataset_files": {"images": ""}, "reward": {"models": ["random"]}, "steps": self.options.steps,
            "tune": tune, "lr": LEARNING_RATE.get(tune, 1e-5),
            "cuda_graphs": self.options.cuda_graphs and tune != "prompt",
            "views": {"num_views": num_views, "select_fraction": min(1.0, (NUM_SELECTED + 0.5) / num_views)},
        })  # fmt: skip
