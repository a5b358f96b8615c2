"""Replay of the classification traces (kinds A, B and C): official arguments to our config, then our own run."""

from typing import Any

import torch
from torch import Tensor

from classification.adapt import Episode, adapt
from classification.build import build_method
from classification.config import ClassificationConfig
from classification.policy import EncoderPolicy, PromptPolicy
from classification.prompt_learner import class_prompts
from classification.seen import Views
from clipscore.models.group import Models
from clipscore.objectives import RlcfStep, Step
from tests.golden_files import Golden, Samples, official_settings


def config_of(meta: dict[str, Any], num_views: int) -> ClassificationConfig:
    """Our config of an official run."""
    args, script = meta["args"], meta["script"]
    method = "rlcf" if "_rl.py" in script else args["kd_loss"].lower() if "_kd.py" in script else "tpt"
    own = {
        "dataset_files": {"images": ""}, "method": method, "policy": meta["policy"], "prompt": args["ctx_init"],
        "tune": "prompt" if "tpt_cls" in script else "norm" if args["tune_norm"] else "encoder",
        "class_position": meta.get("class_token_position", "end"),
        "views": {"num_views": num_views, "select_fraction": args["selection_p"]},
        "entropy_weight": args["min_entropy_w"] if args["min_entropy_reg"] else 0.0,
        "bn_prior": float(args["prior_strength"]) if args["prior_strength"] >= 0 else None,
    }  # fmt: skip
    own |= {"num_candidates": args["sample_k"]} if method == "rlcf" else {}
    return ClassificationConfig.of(official_settings(meta) | own)


class Replay:
    """One trace: builds what a run builds, adapts to its samples, collects the quantities of the golden format."""

    def __init__(self, golden: Golden, trace: str) -> None:
        self.meta = meta = golden.meta(trace)
        inputs = golden.arrays(f"inputs_cls_{meta.get('views', 'vit')}")
        self.views = golden.tensor(inputs["views"][: meta["n_samples"]])
        self.config = config = config_of(meta, self.views.shape[1])
        start: tuple[Tensor, dict[str, Tensor]] | None = None
        if meta["coop_ctx"]:
            start = golden.tensor(inputs["coop_ctx"]), {}
        elif meta["cocoop"]:
            prefix = "cocoop/meta_net."
            net = {key.removeprefix(prefix): golden.tensor(v) for key, v in inputs.items() if key.startswith(prefix)}
            start = golden.tensor(inputs["cocoop/ctx"]), net
        clip = golden.clip(meta["policy"])
        rewards = [golden.clip(model.name) for model in config.reward.models] if config.reward else []
        method: Any = build_method(config, Models(clip, rewards, [], clip.device, None), meta["classnames"], start)
        self.policy, self.objective, self.state = method.policy, method.objective, method.state
        self.samples = Samples()

    def run(self) -> dict[str, Any]:
        """All samples."""
        fixed = self._fixed()
        for views in self.views:
            self._sample(views)
        return fixed | self.samples.stacked()

    def _fixed(self) -> dict[str, Tensor]:
        policy = self.policy
        if isinstance(policy, PromptPolicy):
            fixed = {
                "ctx_initial": policy.learner.context.detach().clone(),
                "tokenized_prompts": policy.learner.token_ids,
                "text_features_initial": policy.class_features().detach(),
            }
        else:
            prompts = class_prompts(self.config.prompt_words, self.meta["classnames"])
            fixed = {"tokenized_prompts": policy.clip.tokenize(prompts), "class_features": policy.class_features()}
        return fixed | self._of_each("reward_text_features", getattr(self.objective, "features", []))

    def _of_each(self, name: str, features: Any) -> dict[str, Tensor]:
        """A quantity of every reward model."""
        several = isinstance(self.meta["reward"], list)
        return {name + (f"_{number}" if several else ""): tensor for number, tensor in enumerate(features)}

    def _sample(self, pixels: Tensor) -> None:
        steps, config = Samples(), self.config
        views = Views(pixels, self.policy, getattr(self.objective, "reward", None))
        if self.meta["cocoop"]:
            self.samples.add({"image_features_views": views.projected})
            self.policy.prepare(views)
            self.samples.add({"ctx_generated": self.policy.learner.context[None]})
        episode = adapt(
            self.policy, self.state, self.objective, views, config.views.num_selected, config.steps,
            config.entropy_weight, on_step=lambda step: steps.add(self._step(step)),
        )  # fmt: skip
        self._episode(episode, views)
        self.samples.add(steps.stacked())
        if isinstance(self.policy, EncoderPolicy):
            self._carried_state()

    def _step(self, step: Step) -> dict[str, Tensor]:
        row = {"logits_sel": step.logits, "loss": step.loss}
        if isinstance(step, RlcfStep):
            row |= {"topk_idx": step.candidates, "clipscore": step.rewards.flatten()}
            row["rewards"] = step.advantages.flatten()
        if isinstance(self.policy, EncoderPolicy):
            gradients = {name: p.grad for name, p in self.policy.tuned.items()}
            row["grad_norm"] = torch.stack([gradients[name].norm() for name in self.meta["tuned_param_names"]])
            return row | {f"grad/{name}": gradient for name, gradient in gradients.items()}
        context = self.policy.learner.context
        gradient = context.grad[None] if self.meta["cocoop"] else context.grad  # CoCoOp's have a batch axis
        return row | {"ctx_grad": gradient, "ctx_after": context}

    def _episode(self, episode: Episode, views: Views) -> None:
        self.samples.add({"logits_final": episode.after, "logits_all": episode.view_logits})
        self.samples.add({"selected_idx": episode.selected})
        if self.config.reward is None:
            return
        anchor = views.reward_features(episode.selected)
        observed = self.objective.observe(anchor)
        if self.config.method == "rlcf":
            self.samples.add(self._of_each("reward_image_features", observed))
        else:
            self.samples.add({"teacher_logits": observed, "reward_image_features": anchor[0]})

    def _carried_state(self) -> None:
        full = self.policy.clip.visual.state_dict()
        sets = {"visual": full, "initial": {**full, **self.state.start}}
        if self.config.momentum is not None:
            sets["momentum"] = {**full, **self.state.average}
        for prefix, tensors in sets.items():
            self.samples.add_weights(prefix, tensors, self.meta["state_names"])
        self.samples.add({"update_counter": self.state.num_samples})
