"""Replay of the classification traces (kinds A, B and C): official arguments to our config, then our own run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from classification.adapt import Episode, adapt
from classification.build import build_objective, build_policy
from classification.config import ClassificationConfig
from classification.policy import EncoderPolicy, PromptPolicy
from classification.prompt_learner import class_prompts
from clipscore.objectives import RlcfStep, Step
from clipscore.task import build_state
from tests.golden_files import Golden, checksum

ADAMW_DEFAULT_DECAY = 0.01  # where the official script passes none


def replay(golden: Golden, trace: str) -> dict[str, Any]:
    """Every quantity of a trace of kind A, B or C."""
    meta = golden.meta(trace)
    inputs = golden.arrays(f"inputs_cls_{meta.get('views', 'vit')}")
    config = config_of(meta, num_views=inputs["views"].shape[1])
    names = meta["classnames"]
    start = _prompt_start(golden, meta, inputs)
    policy = build_policy(config, golden.clip(meta["policy"]), names, start)
    rewards = [golden.clip(model.name) for model in config.reward.models] if config.reward else []
    objective = build_objective(config, rewards, names)
    state = build_state(config, policy)
    recorder = Recorder(meta, config, policy, objective, state)
    for views in inputs["views"][: meta["n_samples"]]:
        recorder.run(golden.tensor(views))
    return recorder.result()


def config_of(meta: dict[str, Any], num_views: int) -> ClassificationConfig:
    """Our config of an official run."""
    args, script = meta["args"], meta["script"]
    prompt_tuning = "tpt_cls" in script
    method = "rlcf" if "_rl.py" in script else args["kd_loss"].lower() if "_kd.py" in script else "tpt"
    optimizer = meta["optimizer"] or {"lr": args["lr"], "weight_decay": ADAMW_DEFAULT_DECAY, "eps": 1e-8}
    momentum = {"decay": args["tta_momentum"], "update_interval": args["update_freq"], "mix": args["update_w"]}
    return ClassificationConfig.model_validate(
        {
            "dataset": "golden", "dataset_files": {"images": ""},
            "data_root": "", "pretrained_root": "", "output_root": "",
            "method": method,
            "tune": "prompt" if prompt_tuning else "norm" if args["tune_norm"] else "encoder",
            "policy": meta["policy"],
            "prompt": args["ctx_init"],
            "class_position": meta.get("class_token_position", "end"),
            "views": {"num_views": num_views, "select_fraction": args["selection_p"]},
            "steps": args["tta_steps"],
            "lr": optimizer["lr"], "weight_decay": optimizer["weight_decay"], "eps": optimizer["eps"],
            **({"num_candidates": args["sample_k"]} if method == "rlcf" else {}),
            "entropy_weight": args["min_entropy_w"] if args["min_entropy_reg"] else 0.0,
            "bn_prior": float(args["prior_strength"]) if args["prior_strength"] >= 0 else None,
            "momentum": momentum if args["momentum_update"] else None,
            "reward": reward_of(meta),
        }
    )  # fmt: skip


def reward_of(meta: dict[str, Any]) -> dict[str, Any] | None:
    """The reward section of an official run."""
    args, reward = meta["args"], meta["reward"]
    if reward is None:
        return None
    names = [reward] if isinstance(reward, str) else reward
    confidences = meta["confidences"] or {}
    return {
        "models": [{"name": name, "weight": confidences.get(name, 1)} for name in names],
        "weighted": bool(args["weighted_scores"]),
        "baseline": "mean" if args["reward_process"] else "none",
        "baseline_over": "batch" if args["process_batch"] else "view",
        "standardize": bool(args["reward_amplify"]),
    }


def _prompt_start(
    golden: Golden, meta: dict[str, Any], inputs: dict[str, Any]
) -> tuple[Tensor, dict[str, Tensor]] | None:
    if meta["coop_ctx"]:
        return golden.tensor(inputs["coop_ctx"]), {}
    if meta["cocoop"]:
        prefix = "cocoop/meta_net."
        net = {key.removeprefix(prefix): golden.tensor(v) for key, v in inputs.items() if key.startswith(prefix)}
        return golden.tensor(inputs["cocoop/ctx"]), net
    return None


class Recorder:
    """Runs episodes and collects the quantities of the golden format."""

    def __init__(
        self, meta: dict[str, Any], config: ClassificationConfig, policy: Any, objective: Any, state: Any
    ) -> None:
        self.meta, self.config, self.policy, self.objective, self.state = meta, config, policy, objective, state
        self.samples: dict[str, list[Any]] = {}
        self.fixed: dict[str, Any] = {}
        self._fixed_quantities()

    def run(self, views: Tensor) -> None:
        """One sample."""
        steps: list[dict[str, Any]] = []
        config = self.config
        if self.meta["cocoop"]:
            self._conditional_context(views)
        episode = adapt(
            self.policy, self.state, self.objective, views, config.views.num_selected, config.steps,
            config.entropy_weight, on_step=lambda step: steps.append(self._step(step)),
        )  # fmt: skip
        self._episode(episode, views)
        if steps:
            for name in steps[0]:
                self._add(name, torch.stack([step[name] for step in steps]))
        self._carried_state()

    def result(self) -> dict[str, Any]:
        """All quantities, samples stacked."""
        stacked = {
            name: torch.stack(values) if isinstance(values[0], Tensor) else values
            for name, values in self.samples.items()
        }
        return {**self.fixed, **stacked}

    def _add(self, name: str, value: Any) -> None:
        self.samples.setdefault(name, []).append(value)

    def _fixed_quantities(self) -> None:
        policy, names = self.policy, self.meta["classnames"]
        if isinstance(policy, PromptPolicy):
            self.fixed["ctx_initial"] = policy.learner.context.detach().clone()
            self.fixed["tokenized_prompts"] = policy.learner.token_ids
            self.fixed["text_features_initial"] = policy.class_features().detach()
        else:
            self.fixed["tokenized_prompts"] = policy.clip.tokenize(class_prompts(self.config.prompt_words, names))
            self.fixed["class_features"] = policy.class_features
        for index, features in enumerate(getattr(self.objective, "features", [])):
            self.fixed["reward_text_features" + self._suffix(index)] = features

    def _suffix(self, index: int) -> str:
        return f"_{index}" if isinstance(self.meta["reward"], list) else ""

    def _step(self, step: Step) -> dict[str, Tensor]:
        row = {"logits_sel": step.logits, "loss": step.loss.detach()}
        if isinstance(step, RlcfStep):
            row |= {"topk_idx": step.candidates, "clipscore": step.rewards.flatten()}
            row["rewards"] = step.advantages.flatten()
        if isinstance(self.policy, EncoderPolicy):
            gradients = {name: p.grad for name, p in self.policy.tuned.items()}
            row["grad_norm"] = torch.stack([gradients[name].norm() for name in self.meta["tuned_param_names"]])
            row |= {f"grad/{name}": gradient.clone() for name, gradient in gradients.items()}
        else:
            context = self.policy.learner.context
            lead = 1 if self.meta["cocoop"] else 0  # CoCoOp contexts are recorded with a batch axis
            row["ctx_grad"] = context.grad.clone().view(*[1] * lead, *context.shape)
            row["ctx_after"] = context.detach().clone()
        return row

    def _episode(self, episode: Episode, views: Tensor) -> None:
        self._add("logits_final", episode.after)
        self._add("logits_all", episode.view_logits)
        self._add("selected_idx", episode.selected)
        if self.config.reward is None:
            return
        anchor = self.objective.encode_images(views[episode.selected])
        observed = self.objective.observe(anchor)
        if self.config.method == "rlcf":
            for index, features in enumerate(observed):
                self._add("reward_image_features" + self._suffix(index), features)
        else:
            self._add("teacher_logits", observed)
            self._add("reward_image_features", anchor[0])

    def _conditional_context(self, views: Tensor) -> None:
        self._add("image_features_views", self.policy.clip.project_images(views))
        self.policy.prepare(views)
        self._add("ctx_generated", self.policy.learner.context.detach().clone().unsqueeze(0))

    def _carried_state(self) -> None:
        if not isinstance(self.policy, EncoderPolicy):
            return
        full = self.policy.clip.visual.state_dict()
        sets = {"visual": full, "initial": {**full, **self._untuned(), **self.state.start}}
        if self.config.momentum is not None:
            sets["momentum"] = {**full, **self._untuned(), **self.state.average}
        for prefix, tensors in sets.items():
            self._add(f"{prefix}_checksum", torch.stack([checksum(tensors[n]) for n in self.meta["state_names"]]))
            for name in self.meta["state_names"]:
                self._add(f"{prefix}/{name}", tensors[name].detach().clone())
        self._add("update_counter", self.state.num_samples)

    def _untuned(self) -> dict[str, Tensor]:
        return {n: t for n, t in self.policy.clip.visual.state_dict().items() if n not in self.state.tensors}
