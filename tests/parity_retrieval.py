"""Replay of the retrieval traces (kind D): official arguments to our config, then our own run."""

import json
from typing import Any

import torch
from torch import Tensor

from clipscore.clip_model import end_of_text
from clipscore.models.group import Models
from clipscore.objectives import RlcfStep, Step
from clipscore.reward import resize_images
from clipscore.text_encoder import encode_texts
from retrieval import metrics
from retrieval.adapt import adapt
from retrieval.build import build_method
from retrieval.captions import clean_caption
from retrieval.config import RetrievalConfig
from retrieval.policy import TextTowerPolicy
from tests.golden_files import Golden, Samples, official_settings

NOT_ADAPTED = -100.0  # what the official score matrix of the other direction is filled with
TABLE = "token_embedding.weight"


def replay_metrics(golden: Golden, trace: str) -> dict[str, Any]:
    """The figures of given score matrices, both directions."""
    arrays, figures = golden.arrays(trace), {}
    for number in range(len(golden.meta(trace)["metrics"])):
        owners = arrays[f"txt_owner_{number}"].tolist()
        for direction, name in (("txt", "i2t"), ("img", "t2i")):
            scores = torch.from_numpy(arrays[f"{name}_{number}"])
            figures |= _recalls(f"metrics/{number}_{direction}_", scores, owners, by_image=direction == "txt")
    return figures


def _recalls(prefix: str, scores: Tensor, owners: list[int], by_image: bool) -> dict[str, float]:
    positives = [[owner] for owner in owners]
    if by_image:
        positives = [[text for text, owner in enumerate(owners) if owner == image] for image in range(len(scores))]
    found = metrics.recalls(metrics.best_ranks(scores, positives).tolist())
    return {prefix + name: value for name, value in found.items()}


def config_of(meta: dict[str, Any]) -> RetrievalConfig:
    """Our config of an official run."""
    args, method = meta["args"], "kd" if "kd" in meta["script"] else "rlcf"
    direction = {"image2text": "image_to_text", "text2image": "text_to_image"}[args["retrieval_task"]]
    own = {"method": method, "direction": direction, "policy": meta["policy"]}
    own |= {"num_candidates": args["sample_k"]} if method == "rlcf" else {}
    return RetrievalConfig.of(official_settings(meta) | own)


class Replay:
    """One trace: builds what a run builds, runs its queries, collects the quantities of the golden format."""

    def __init__(self, golden: Golden, trace: str) -> None:
        self.meta = golden.meta(trace)
        self.config = config_of(self.meta)
        pairs = json.loads((golden.folder / "inputs_ret.json").read_text())
        images = golden.tensor(golden.arrays("inputs_ret")["images"])
        texts = [clean_caption(text) for text in pairs["captions"]]
        self.owners = [pairs["txt2img"][str(number)] for number in range(len(texts))]
        self.by_image = self.config.direction == "image_to_text"
        self.clip = golden.clip(self.meta["policy"])
        rewards = [golden.clip(model.name) for model in self.config.reward.models]
        self.queries = images if self.by_image else self.clip.tokenize(texts)
        _, self.gallery = self._sides(self.clip, images, texts)
        sides = [self._sides(model, images, texts) for model in rewards]
        self.reward_queries, self.reward_galleries = [queries for queries, _ in sides], [items for _, items in sides]
        models = Models(self.clip, rewards, [], self.clip.device, None)
        method: Any = build_method(self.config, models, [self.gallery, *self.reward_galleries])
        self.policy, self.objective, self.state = method.policy, method.objective, method.state
        self.samples = Samples()

    def run(self) -> dict[str, Any]:
        """All queries."""
        scores = torch.stack([self._query(number) for number in range(len(self.queries))])
        adapted, other, kind = ("i2t", "t2i", "txt") if self.by_image else ("t2i", "i2t", "img")
        several = isinstance(self.meta["reward"], list)
        return {
            f"score_matrix_{adapted}": scores,
            f"score_matrix_{other}": torch.full(scores.T.shape, NOT_ADAPTED, dtype=scores.dtype),
            "cached_features": self.gallery,
            **_recalls(f"metrics/{kind}_", scores, self.owners, self.by_image),
            **{
                "reward_cached_features" + (f"_{number}" if several else ""): gallery
                for number, gallery in enumerate(self.reward_galleries)
            },
            **self.samples.stacked(),
        }

    @torch.no_grad()
    def _sides(self, model: Any, images: Tensor, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Query and gallery features of one model."""
        of_images = model.encode_images(resize_images(images, model.image_size))
        of_texts = encode_texts(model, texts)
        return (of_images, of_texts) if self.by_image else (of_texts, of_images)

    def _query(self, number: int) -> Tensor:
        steps, one = Samples(), slice(number, number + 1)
        anchor = [queries[one] for queries in self.reward_queries]
        answer, _ = adapt(
            self.policy, self.state, self.objective, self.queries[one], anchor, self.gallery,
            self.config.steps, on_step=lambda step: steps.add(self._step(step)),
        )  # fmt: skip
        self.samples.add(steps.stacked())
        if self.config.method == "kd":
            self.samples.add({"teacher_logits": self.objective.observe(anchor)[0]})
        self._weights(self.queries[number])
        return answer

    def _step(self, step: Step) -> dict[str, Tensor]:
        gradients = [self.policy.tuned[name].grad.norm() for name in self.meta["tuned_param_names"]]
        row = {"logits": step.logits[0], "loss": step.loss, "grad_norm": torch.stack(gradients)}
        if isinstance(step, RlcfStep):
            row |= {"topk_idx": step.candidates[0], "clipscore": step.rewards[0], "rewards": step.advantages[0]}
        return row

    def _weights(self, query: Tensor) -> None:
        source = {"visual." + n: t for n, t in self.clip.visual.state_dict().items()}
        source |= dict(self.clip.backend.named_parameters())
        sets = {"state": {**source, **self.state.tensors}, "reset": {**source, **self.state.start}}
        if self.config.momentum is not None:
            sets["momentum"] = {**source, **self.state.average}
        elif isinstance(self.policy, TextTowerPolicy):
            sets["state"][TABLE], sets["reset"][TABLE] = self._whole_table(query), source[TABLE]
        for prefix, tensors in sets.items():
            self.samples.add_weights(prefix, tensors, self.meta["state_names"])
            self.samples.values.pop(f"{prefix}/{TABLE}", None)  # only its checksum is recorded
        self.samples.add({"update_counter": self.state.num_samples})

    def _whole_table(self, query: Tensor) -> Tensor:
        """The token table that the official code has after tuning: rows that the query does not read only decay."""
        table = self.clip.text.token_embedding.weight.detach().clone()
        ids = query[: int(end_of_text(query)) + 1].unique()
        read = self.policy.tuned[TABLE][: len(ids)].detach()
        table *= (1 - self.config.lr * self.config.weight_decay) ** self.config.steps
        table[ids] = read
        return table
