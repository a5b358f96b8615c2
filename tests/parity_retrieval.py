"""Replay of the retrieval traces (kind D): official arguments to our config, then our own run."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from clipscore.clip_model import end_of_text
from clipscore.objectives import RlcfStep, Step
from clipscore.reward import resize_images
from clipscore.task import build_state
from clipscore.text_encoder import encode_texts
from retrieval import metrics
from retrieval.adapt import adapt
from retrieval.build import build_objective, build_policy
from retrieval.captions import clean_caption
from retrieval.config import RetrievalConfig
from retrieval.policy import TextTowerPolicy
from tests.golden_files import Golden, checksum
from tests.parity_classification import reward_of

NOT_ADAPTED = -100.0  # what the official score matrix of the other direction is filled with
TABLE = "token_embedding.weight"


def replay(golden: Golden, trace: str) -> dict[str, Any]:
    """Every quantity of a trace of kind D that has a model."""
    meta = golden.meta(trace)
    pairs = json.loads((golden.folder / "inputs_ret.json").read_text())
    images = golden.tensor(golden.arrays("inputs_ret")["images"])
    texts = [clean_caption(text) for text in pairs["captions"]]
    owners = [pairs["txt2img"][str(number)] for number in range(len(texts))]
    return Replay(golden, meta, images, texts, owners).run()


def replay_metrics(golden: Golden, trace: str) -> dict[str, Any]:
    """The figures of given score matrices, both directions."""
    arrays, figures = golden.arrays(trace), {}
    for number in range(len(golden.meta(trace)["metrics"])):
        i2t, t2i = (torch.from_numpy(arrays[f"{name}_{number}"]) for name in ("i2t", "t2i"))
        owners = arrays[f"txt_owner_{number}"].tolist()
        for direction, scores in (("txt", i2t), ("img", t2i)):
            for name, value in _recalls(scores, owners, by_image=direction == "txt").items():
                figures[f"metrics/{number}_{direction}_{name}"] = value
    return figures


def _recalls(scores: Tensor, owners: list[int], by_image: bool) -> dict[str, float]:
    positives = [[owner] for owner in owners]
    if by_image:
        positives = [[text for text, owner in enumerate(owners) if owner == image] for image in range(len(scores))]
    return metrics.recalls(metrics.best_ranks(scores, positives).tolist())


class Replay:
    """One trace: builds what a run builds, runs its queries, collects the quantities of the golden format."""

    def __init__(
        self, golden: Golden, meta: dict[str, Any], images: Tensor, texts: list[str], owners: list[int]
    ) -> None:
        self.meta, self.config, self.owners = meta, config_of(meta), owners
        self.by_image = self.config.direction == "image_to_text"
        self.clip = golden.clip(meta["policy"])
        self.rewards = [golden.clip(model.name) for model in self.config.reward.models]
        self.queries = images if self.by_image else self.clip.tokenize(texts)
        sides = [self._sides(model, images, texts) for model in (self.clip, *self.rewards)]
        (_, self.gallery), *self.reward_sides = sides
        self.policy = build_policy(self.config, self.clip)
        self.objective = build_objective(self.config, self.rewards, [gallery for _, gallery in self.reward_sides])
        self.state = build_state(self.config, self.policy)
        self.samples: dict[str, list[Any]] = {}

    def run(self) -> dict[str, Any]:
        """All queries."""
        answers = [self._query(number) for number in range(len(self.queries))]
        adapted, other = ("i2t", "t2i") if self.by_image else ("t2i", "i2t")
        scores = torch.stack(answers)
        result = {
            f"score_matrix_{adapted}": scores,
            f"score_matrix_{other}": torch.full(scores.T.shape, NOT_ADAPTED, dtype=scores.dtype),
            "cached_features": self.gallery,
        }
        for name, value in _recalls(scores, self.owners, self.by_image).items():
            result[f"metrics/{'txt' if self.by_image else 'img'}_{name}"] = value
        several = isinstance(self.meta["reward"], list)
        for number, (_, gallery) in enumerate(self.reward_sides):
            result["reward_cached_features" + (f"_{number}" if several else "")] = gallery
        return result | {
            name: torch.stack(values) if isinstance(values[0], Tensor) else values
            for name, values in self.samples.items()
        }

    def _sides(self, model: Any, images: Tensor, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Query and gallery features of one model."""
        with torch.no_grad():
            of_images = model.encode_images(resize_images(images, model.image_size))
        of_texts = encode_texts(model, texts)
        return (of_images, of_texts) if self.by_image else (of_texts, of_images)

    def _query(self, number: int) -> Tensor:
        rows: list[dict[str, Tensor]] = []
        anchor = [queries[number : number + 1] for queries, _ in self.reward_sides]
        answer, _ = adapt(
            self.policy, self.state, self.objective, self.queries[number : number + 1], anchor, self.gallery,
            self.config.steps, on_step=lambda step: rows.append(self._step(step)),
        )  # fmt: skip
        for name in rows[0]:
            self._add(name, torch.stack([row[name] for row in rows]))
        if self.config.method == "kd":
            self._add("teacher_logits", self.objective.observe(anchor)[0])
        self._weights(number)
        return answer

    def _step(self, step: Step) -> dict[str, Tensor]:
        gradients = [self.policy.tuned[name].grad.norm() for name in self.meta["tuned_param_names"]]
        row = {"logits": step.logits[0], "loss": step.loss.detach(), "grad_norm": torch.stack(gradients)}
        if isinstance(step, RlcfStep):
            row |= {"topk_idx": step.candidates[0], "clipscore": step.rewards[0], "rewards": step.advantages[0]}
        return row

    def _weights(self, number: int) -> None:
        source = {"visual." + n: t for n, t in self.clip.visual.state_dict().items()} | dict(
            self.clip.backend.named_parameters()
        )
        adapted, start = {**source, **self.state.tensors}, {**source, **self.state.start}
        if isinstance(self.policy, TextTowerPolicy) and not self.config.momentum:
            adapted[TABLE], start[TABLE] = self._whole_table(number), source[TABLE]
        sets = {"state": adapted, "reset": start}
        if self.config.momentum is not None:
            sets["momentum"] = {**source, **self.state.average}
        for prefix, tensors in sets.items():
            self._add(f"{prefix}_checksum", torch.stack([checksum(tensors[n]) for n in self.meta["state_names"]]))
            for name in self.meta["state_names"]:
                self._add(f"{prefix}/{name}", tensors[name].detach().clone() if name != TABLE else torch.zeros(1))
        self._add("update_counter", self.state.num_samples)

    def _whole_table(self, number: int) -> Tensor:
        """The token table that the official code has after tuning: rows that the query does not read only decay."""
        table = self.clip.text.token_embedding.weight.detach().clone()
        query = self.queries[number]
        ids = query[: int(end_of_text(query)) + 1].unique()
        read = self.policy.tuned[TABLE][: len(ids)].detach()
        for _ in range(self.config.steps):
            table *= 1 - self.config.lr * self.config.weight_decay
        table[ids] = read
        return table

    def _add(self, name: str, value: Any) -> None:
        self.samples.setdefault(name, []).append(value)


def config_of(meta: dict[str, Any]) -> RetrievalConfig:
    """Our config of an official run."""
    args, optimizer = meta["args"], meta["optimizer"]
    method = "kd" if "kd" in meta["script"] else "rlcf"
    momentum = {"decay": args["tta_momentum"], "update_interval": args["update_freq"], "mix": args["update_w"]}
    return RetrievalConfig.model_validate(
        {
            "dataset": "golden", "dataset_files": {"annotations": ""},
            "data_root": "", "pretrained_root": "", "output_root": "",
            "method": method,
            "direction": {"image2text": "image_to_text", "text2image": "text_to_image"}[args["retrieval_task"]],
            "policy": meta["policy"],
            "steps": args["tta_steps"],
            "lr": optimizer["lr"], "weight_decay": optimizer["weight_decay"], "eps": optimizer["eps"],
            **({"num_candidates": args["sample_k"]} if method == "rlcf" else {}),
            "momentum": momentum if args["momentum_update"] else None,
            "reward": reward_of(meta),
        }
    )  # fmt: skip
