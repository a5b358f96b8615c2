"""Classification: one adapted image, by the official schedule of work and by ours."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from classification.adapt import adapt
from classification.build import build_objective, build_policy, free_texts
from classification.config import ClassificationConfig
from classification.data.class_names import class_names
from classification.policy import Policy, PromptPolicy
from classification.prompt_learner import class_prompts
from classification.views import make_views
from clipscore.clip_model import ClipModel, end_of_text
from clipscore.data.images import open_image
from clipscore.models.devices import choose_device
from clipscore.task import StageTimes, build_state
from clipscore.text_encoder import encode_texts
from scripts.bench.models import Pictures, bench_clip, demo_class_names, lean
from scripts.bench.plain import Answer, PlainEncoder, PlainEpisode, PlainPrompt
from scripts.bench.steps import text_step, tower_step
from scripts.bench.timing import Form

LEARNING_RATE = {"prompt": 7e-3, "encoder": 1e-5, "norm": 1e-5}  # of the official runs
NUM_SELECTED = 6  # of 64 views, in the paper; all, when there are fewer


class ClassificationBench:
    """See `scripts.bench.timing.Bench`. A case is what is tuned, and the number of classes."""

    task = "classification"
    memory_steps = {"plain": 1, "fast": 2}  # the plain form's first step is its greatest
    defaults = {
        "demo": {"policy": "policy", "reward": "reward", "classes": [60], "images": 5},
        "B16": {"policy": "ViT-B-16", "reward": "ViT-L-14", "classes": [100, 1000], "images": 2},
    }

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.options, self.device = options, choose_device(options.device)
        self.policy = bench_clip(options.policy, self.device, options.precision)
        self.reward = bench_clip(options.reward, self.device, options.precision)
        self.rate_dtype = self.policy.autocast_dtype or self.policy.dtype
        self.pictures = Pictures(options.size)
        self.num_selected = self._config("prompt").views.num_selected

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        """The command line's options for this task alone."""
        parser.add_argument("--tune", nargs="+", choices=list(LEARNING_RATE), default=["prompt", "encoder"])
        parser.add_argument("--policy", help="open_clip architecture")
        parser.add_argument("--reward", help="open_clip architecture")
        parser.add_argument("--classes", type=int, nargs="+", help="of prompt tuning; the first is the encoder's too")
        parser.add_argument(
            "--plain-classes", type=int, default=100, metavar="N",
            help="above N classes, the plain form is run on a quarter of N, and its time with texts is scaled",
        )  # fmt: skip
        parser.add_argument("--views", type=int, default=64)
        parser.add_argument("--steps", type=int, default=3)

    def cases(self) -> list[str]:
        """For example "prompt, 100 classes"."""
        classes = self.options.classes
        return [
            f"{tune}, {number} classes"
            for tune in self.options.tune
            for number in (classes if tune == "prompt" else classes[:1])
        ]

    def growth(self, case: str) -> float:
        """Classes of the case over those that the plain form is run on."""
        names = self._names(case)
        return len(names) / len(self._few(names)) if case.startswith("prompt") else 1.0

    def sample(self, case: str, number: int, small: bool = False) -> tuple[Tensor, dict[str, float]]:
        """The views of a picture, [N, 3, H, W]; small: no more of them than are trusted."""
        path, times = self.pictures.path(number), StageTimes(torch.device("cpu"))
        with times.stage("data"):
            picture = open_image(path)
        with times.stage("views"):
            num_views = self.num_selected if small else self.options.views
            views = make_views(picture, num_views, self.policy.image_size, seed=number)
        stages = times.take()
        return views.to(self.device), {name: stages[name] for name in ("data", "views")}

    def form(self, case: str, which: str, alone: bool = False) -> Form:
        """The plain or the fast form; alone it takes the bench's models, otherwise copies."""
        config, names, times = self._config(case.split(",")[0]), self._names(case), StageTimes(self.device)
        clips = (self.policy, self.reward) if alone else copy.deepcopy((self.policy, self.reward))
        if which == "fast":
            return self._fast(config, *map(lean, clips), names, times)
        return Form(self._plain(config, *clips, names, times).run, times)

    def compare(self, case: str, plain: Answer, fast: Answer) -> dict[str, bool | float]:
        """Top-1, trusted views, how far apart the logits of unlike candidates are in any step, and adapted logits."""
        if self.growth(case) != 1:
            return {}
        return {
            "top-1": bool(plain.logits.argmax() == fast.logits.argmax()),
            "views": torch.equal(plain.selected, fast.selected),
            "candidates": max(map(_gap, plain.step_logits, plain.candidates, fast.candidates)),
            "logits": float((plain.logits - fast.logits).abs().max()),
        }

    def details(self, case: str, fast: Form, rate: float) -> dict[str, Any]:
        """Prompt tuning: the text tower's step at most classes. Encoder tuning: the update of the trusted views."""
        if case.startswith("prompt") and len(self._names(case)) < max(self.options.classes):
            return {}
        config, names, clip = self._config(case.split(",")[0]), self._names(case), copy.deepcopy(self.policy)
        policy = build_policy(config, lean(copy.deepcopy(self.policy)), names)
        if isinstance(policy, PromptPolicy):
            plain = self._plain(config, clip, self.reward, names, StageTimes(self.device))
            num_rows = min(self.num_selected * config.num_candidates, len(names))
            return {"text_step": text_step(plain, policy, num_rows)}
        views = self.sample(case, 0, small=True)[0]
        return {"tower_step": tower_step(policy, views, rate)}

    def _names(self, case: str) -> list[str]:
        names = class_names("imagenet") if self.options.size == "B16" else demo_class_names()
        return names[: int(case.split()[1])]

    def _few(self, names: Sequence[str]) -> Sequence[str]:
        """The classes that the plain form of prompt tuning is run on."""
        most = self.options.plain_classes
        return names if len(names) <= most else names[: max(most // 4, 1)]

    def _fast(
        self, config: ClassificationConfig, clip: ClipModel, reward: ClipModel, names: Sequence[str], times: StageTimes
    ) -> Form:
        policy: Policy = build_policy(config, clip, names)
        objective = build_objective(config, [reward], names)
        free_texts([policy], [reward])
        state = build_state(config, policy, scale_loss=clip.autocast_dtype is torch.float16)
        for owner, method, stage in [
            (policy, "prepare", "policy"),
            (policy, "logits", "policy"),
            (policy, "class_features", "text"),
            (objective, "encode_images", "reward"),
            (objective, "observe", "reward"),
            (objective, "step", "reward"),
            (state, "step", "update"),
            (state, "restore", "reset"),
        ]:
            if callable(getattr(owner, method, None)):  # of an encoder policy, class_features is a tensor
                times.watch(owner, method, stage)

        def run(views: Tensor, steps: int) -> Answer:
            episode = adapt(policy, state, objective, views, self.num_selected, steps)
            candidates, logits = zip(*((step.candidates, step.logits) for step in episode.steps), strict=True)
            return Answer(episode.after, episode.selected, list(candidates), list(logits))

        return Form(run, times)

    def _plain(
        self, config: ClassificationConfig, clip: ClipModel, reward: ClipModel, names: Sequence[str], times: StageTimes
    ) -> PlainEpisode:
        names = self._few(names) if config.tune == "prompt" else names
        objective, prompts = build_objective(config, [reward], names), class_prompts(config.prompt, names)
        if config.tune != "prompt":
            return PlainEncoder(clip, config, objective, times, encode_texts(clip, prompts))
        num_context = int(end_of_text(clip.tokenize([config.prompt]))[0]) - 1
        return PlainPrompt(clip, config, objective, times, prompts, num_context)

    def _config(self, tune: str) -> ClassificationConfig:
        """The paper's RLCF run, for models made here; six trusted views, however many there are."""
        num_views = self.options.views
        nothing = {"dataset": "random", "dataset_files": {"images": ""}, "data_root": "", "pretrained_root": ""}
        return ClassificationConfig.model_validate(
            {**nothing, "output_root": "", "method": "rlcf", "tune": tune, "reward": {"models": ["random"]}}
            | {"steps": self.options.steps, "lr": LEARNING_RATE[tune]}
            | {"views": {"num_views": num_views, "select_fraction": min(1.0, (NUM_SELECTED + 0.5) / num_views)}}
        )


def _gap(logits: Tensor, ours: Tensor, theirs: Tensor) -> float:
    """Largest difference between the logits of two choices of candidates; 0 when they are the same, small in a tie.

    [S, C], [S, K], [S, K]
    """
    return float((logits.gather(1, ours) - logits.gather(1, theirs)).abs().max())
