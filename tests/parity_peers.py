"""Replay of the traces of other methods (ZERO, MTA, TPS, TDA, BoostAdapter, C-TPT, O-TPT), by their json's `method`.

Inputs are features, not images: a run's method is built over a policy that is given them, and answers image by image.
"""

import re
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from classification import metrics
from classification.adapt import adapt, averaged_entropy
from classification.build import build_method
from classification.cache import Cache
from classification.config import ClassificationConfig
from classification.method import Context
from classification.methods.ctpt import dispersion
from classification.methods.mta import bandwidths, mean_shift
from classification.methods.tps import mix
from classification.methods.zero import Count, count_votes
from classification.policy import FixedPolicy, PrototypePolicy
from classification.seen import Views, confident_views, entropies
from classification.task import top_classes
from classification.texts import mean_feature
from clipscore.config.methods import find_method
from clipscore.models.group import Models
from clipscore.reward import ClipReward
from scripts.tables.figures import bin_edges, calibration_error, reliability_bins
from tests.golden_files import Golden, Samples

TOLERANCE, TOLERANCE_AUTOCAST = 1e-9, 2e-5  # absolute, in float64 and in the emulated half precision
Found = dict[str, Any]


class GivenReward(ClipReward):
    """A reward whose images are their features already."""

    def encode_images(self, images: Tensor) -> list[Tensor]:
        return [images]


class Peer:
    """One trace: its inputs, and the method that a run would build over them."""

    def __init__(self, golden: Golden, trace: str) -> None:
        self.golden, self.meta, self.recorded = golden, golden.meta(trace), golden.recorded(trace)
        self.own = {k.removeprefix("input/"): v for k, v in golden.arrays(trace).items() if k.startswith("input/")}
        shared = re.search(r"inputs_\w+", self.meta.get("inputs", ""))
        self.inputs = golden.arrays(shared[0]) if shared else {}
        self.count = self.meta.get("n_samples", 0)
        scale = golden.tensor(np.array(self.meta.get("logit_scale", 1.0)))
        self.clip: Any = SimpleNamespace(logit_scale=scale, cast_frozen=lambda: None)

    def unit(self, name: str) -> Tensor:
        """Unit-length features of the shared inputs."""
        return F.normalize(self.golden.tensor(self.inputs[name]), dim=-1)

    def config(self, method: str, **options: Any) -> ClassificationConfig:
        """The configuration of a run of ours."""
        optimizer, roots = self.meta.get("optimizer", {}), dict.fromkeys(("data_root", "pretrained_root"), "")
        tuning = {"steps": self.meta["tta_steps"]} if "tta_steps" in self.meta else {}
        tuning |= {name: optimizer[name] for name in ("lr", "weight_decay", "eps") if name in optimizer}
        data = {"dataset": "golden", "dataset_files": {"images": ""}, "output_root": "", "method": method}
        return ClassificationConfig.of(roots | data | tuning | options)

    def build(self, policy: Any, name: str, fraction: float = 1.0, **options: Any) -> tuple[Any, list[Views]]:
        """A run's method over a policy, and the images."""
        method, z = find_method("classification", name), self.unit("views")[: self.count]
        z = z[:, : self.meta.get("n_views")] if self.meta.get("several_views", True) else z[:, :1]
        rewards, texts, pixels = None, [], z
        if "reward" in method.reads:
            rewards, pixels = GivenReward([self.clip], [1.0]), self.unit("reward_views")
            texts = [self.unit("reward_class_features")]
            options["reward"] = {"models": "given"}
        config = self.config(name, views={"num_views": z.shape[1], "select_fraction": fraction}, **options)
        names = [str(label) for label in range(len(self.inputs["class_features"]))]
        built = method(Context(config, names, policy, rewards, texts))
        seen = [Views(images, built.context.policy, rewards, texts) for images in pixels[: self.count]]
        for views, features in zip(seen, z, strict=True):
            views.features = features
        return built, seen


def replay_zero(peer: Peer) -> Found:
    """Votes in three arithmetics."""
    policy, meta, found = FixedPolicy(peer.clip, peer.unit("class_features")), peer.meta, {}
    for kind in {name.split("/")[0] for name in peer.recorded}:
        eps, samples = meta["eps"]["epsdtype float64" if kind == "float64_epsdtype" else "epsfp16"], Samples()
        theirs = {k.split("/")[1]: torch.from_numpy(v) for k, v in peer.recorded.items() if k.startswith(kind)}
        method, seen = peer.build(policy, meta["method"], meta["gamma"], vote_temperature=eps)
        for number, views in enumerate(seen[: len(theirs["output"])]):
            order, count = views.confident(1.0), method.count(views)
            if kind.startswith("autocast"):
                given = {name: theirs[name][number].float() for name in theirs if name.endswith("logits")}
                count, order = _in_half(given, peer.clip.logit_scale, meta["gamma"], eps)
            source = 0 if count.decided_for is None else 1 if count.by_view else 2
            samples.add({
                "sorted_idx": order, "selected_idx": order[: int(len(order) * meta["gamma"])], "output": count.votes,
                "prediction": count.votes.argmax(), "tie_classes": count.tied, "tie_source": source,
                "tie_answer": -1 if count.decided_for is None else count.decided_for,
            })  # fmt: skip
        fragile = meta["quality"]["fragile_images"].get(kind, [])
        rows = _without_free_parts(samples.stacked(), theirs, fragile)
        found |= {f"{kind}/{name}": values for name, values in rows.items()}
    return found


def _in_half(given: dict[str, Tensor], scale: Tensor, gamma: float, eps: float) -> tuple[Count, Tensor]:
    """As under CUDA autocast, from the recorded cosines on: the quotient is rounded to float16, the rest is float32."""
    order = entropies((given["logits"] / (1 / scale.float()).half().float()).half().float()).argsort()
    ballots = given.get("reward_logits", given["logits"][order[: int(len(order) * gamma)]])
    return count_votes(given["logits"], ballots, order, eps), order


def _without_free_parts(ours: Found, theirs: Found, fragile_images: Sequence[int]) -> Found:
    """Ours, with theirs where a right replay is free: of fragile images only the votes count."""
    width = theirs["tie_classes"].shape[1] - ours["tie_classes"].shape[1]
    ours["tie_classes"] = F.pad(ours["tie_classes"], (0, width), value=-1)
    fragile = torch.zeros(len(ours["output"]), dtype=torch.bool)
    fragile[list(fragile_images)] = True
    for rows, sign in ((theirs, 1), (ours, -1)):  # their vote that breaks a tie in the place of ours
        vote = F.one_hot(rows["tie_answer"].clamp(min=0).long(), rows["output"].shape[1])
        ours["output"] = ours["output"] + sign * fragile[:, None] * vote * (rows["tie_source"] > 0)[:, None]
    is_best = ours["output"].gather(1, theirs["prediction"][:, None].long())[:, 0] == ours["output"].amax(dim=1)
    free = dict.fromkeys(("tie_classes", "tie_answer", "tie_source"), fragile)
    for name, where in (free | {"prediction": fragile | (theirs["tie_source"] == 2) & is_best}).items():
        ours[name][where] = theirs[name][where].to(ours[name])
    return {name: values for name, values in theirs.items() if name.endswith("logits")} | ours


def replay_mta(peer: Peer) -> Found:
    """Bandwidths, inlierness and mode."""
    lambdas, samples = {name: float(peer.meta[name]) for name in ("lambda_y", "lambda_q")}, Samples()
    method, seen = peer.build(FixedPolicy(peer.clip, peer.unit("class_features")), "mta", **lambdas)
    for views in seen:
        rounds, logits = list(mean_shift(views.features, views.logits, **lambdas)), method.answer(views).logits
        samples.add({
            "n_inlierness_iterations": [each.num_inlierness for each in rounds],
            "n_mode_iterations": [each.num_mode for each in rounds], "y_final": rounds[-1].inlierness,
            "y_outer": torch.stack([each.inlierness for each in rounds]), "mode_final": rounds[-1].mode,
            "mode_outer": torch.stack([each.mode for each in rounds]), "bandwidth": bandwidths(views.features),
            "logits": logits, "prediction": logits.argmax(),
        })  # fmt: skip
    found = samples.stacked()
    return found | {name: found[name][: peer.meta["n_samples_detail"]] for name in ("y_outer", "mode_outer")}


def replay_tuned(
    method: Any, seen: Sequence[Views], num_updates: int, of_step: Callable[..., Found], names: dict[str, str]
) -> dict[str, Tensor]:
    """Quantities of each sample, and of each step by `of_step`; tuned parameters by other names."""
    samples, steps, plain, kept = Samples(), Samples(), method.objective.step, []

    def watched(logits: Tensor, observed: Any) -> Any:
        kept[:] = [logits, method.policy.used_class_features]
        for tensor in kept:
            tensor.retain_grad()
        return plain(logits, observed)

    def after(step: Any) -> None:
        steps.add({"loss": step.loss} | of_step(step, *kept))
        for name, parameter in method.policy.tuned.items():
            name = names.get(name, name)
            steps.add({f"grad_{name}": parameter.grad, f"{name}_after": parameter})

    method.objective.step = watched
    for views in seen:
        steps.values.clear()
        parts = method.policy, method.state, method.objective
        episode = adapt(*parts, views, method.num_selected, num_updates, on_step=after)
        answer = {"selected_idx": episode.selected, "logits_final": episode.after, "logits_all": episode.view_logits}
        answer |= {"prediction": episode.after.argmax(), "confidence": episode.after.softmax(0).max()}
        samples.add(answer | steps.stacked())
    return samples.stacked()


def replay_tps(peer: Peer) -> Found:
    """Prototypes, and the shift of each step."""
    meta, prototypes = peer.meta, _prototypes(peer)
    assert meta["do_shift"], "a shift is always tuned"
    method, seen = peer.build(
        FixedPolicy(peer.clip, prototypes), "tps", meta["selection_p"], tune="prototypes",
        shift_per_class=meta["per_class"], tune_scale=meta["do_scale"],
    )  # fmt: skip

    def of_step(step: Any, logits: Tensor, features: Tensor) -> Found:
        return {"selected": confident_views(logits.detach(), method.num_kept)}  # among those of the episode

    found = replay_tuned(method, seen, meta["tta_steps"], of_step, {})
    order, chosen = found["selected_idx"], found["selected"]  # [S, N], [S, T, n]
    order = order[:, None].expand(-1, chosen.shape[1], -1).gather(2, chosen)
    return found | {"prototypes": prototypes, "selected_idx": order}


def _prototypes(peer: Peer) -> Tensor:
    kind = peer.meta["prototypes"]
    if kind == "single":
        return peer.unit("class_features")
    features = {name: peer.golden.tensor(values) for name, values in peer.own.items() if "features" in name}
    given = {name: F.normalize(values, dim=-1) for name, values in features.items()}
    templates, concepts = given.get("template_features"), []
    if "concept_features" in given:
        concepts = given["concept_features"].split(peer.own["concept_counts"].tolist())
    if kind in {"micro", "macro"}:
        return torch.stack([mix(*pair, kind) for pair in zip(concepts, templates, strict=True)])
    return torch.stack([mean_feature(part) for part in (concepts if kind == "concepts" else templates)])


def replay_regularised(peer: Peer) -> Found:
    """C-TPT, O-TPT and TPT: on class features that are tuned themselves, or on the prompt of a tiny CLIP."""
    meta, fixed = peer.meta, {}
    name = {"tpt_ctpt": "ctpt", "tpt_otpt": "otpt", "tpt": "tpt"}[meta["run_type"]]
    options = {
        "ctpt": {"dispersion_weight": meta["lambda_term"], "two_step": meta["two_step"]},
        "otpt": {"orthogonality_weight": meta["lambda_term"]}, "tpt": {},
    }[name]  # fmt: skip
    if "clip_weights" in meta:
        clip = peer.golden.clip(re.search(r"clip_(\w+)\.", meta["clip_weights"])[1])
        pixels = peer.golden.tensor(peer.inputs["views"][meta["samples"]][:, meta["views"]])
        views = {"num_views": pixels.shape[1], "select_fraction": meta["selection_p"]}
        config = peer.config(name, tune="prompt", prompt=meta["ctx_init"], views=views, **options)
        method: Any = build_method(config, Models(clip, [], [], clip.device, None), meta["classnames"])
        seen, learner = [Views(images, method.policy) for images in pixels], method.policy.learner
        fixed = {"ctx_initial": learner.context.detach().clone(), "tokenized_prompts": learner.token_ids}
        fixed["text_features_initial"] = method.policy.class_features()
    else:
        raw = peer.golden.tensor(peer.inputs["class_features"])
        policy = PrototypePolicy(peer.clip, torch.zeros_like(raw))
        policy.tuned["shift"].data.copy_(raw)
        method, seen = peer.build(policy, name, meta["selection_p"], tune="prototypes", **options)

    def of_step(step: Any, logits: Tensor, features: Tensor) -> Found:
        found = {"dispersion": dispersion(features), "entropy_loss": averaged_entropy(step.logits)}
        found |= {} if logits.grad is None else {"grad_logits_selected": logits.grad}
        return found | {"grad_text_features": features.grad}

    every = 2 if meta["two_step"] else 1
    found = replay_tuned(method, seen, meta["tta_steps"] * every, of_step, {"context": "ctx", "shift": "w"})
    if "clip_weights" in meta:
        fixed["text_features_after_last_image"] = method.policy.class_features()
    return found | fixed | {"entropy_loss": found["entropy_loss"][:, ::every]}


def replay_caches(peer: Peer) -> Found:
    """TDA and BoostAdapter over their stream."""
    meta, is_boost, options = peer.meta, peer.meta["method"] == "boostadapter", {}
    for sign in ("positive", "negative"):
        told = meta[sign]
        ranges = {"entropy": told.get("entropy_threshold"), "mask": told.get("mask_threshold")}
        section = {"capacity": told["shot_capacity"], "alpha": told["alpha"], "beta": told["beta"]}
        section |= {name: [value["lower"], value["upper"]] for name, value in ranges.items() if value}
        options[sign] = section if told["enabled"] else None
    from_first = meta.get("answer_features") == "view 0"
    if is_boost:
        options |= {"boost": meta["mode"] == "boostadapter", "delta": meta["delta"]}
        options |= {"answer_views": "first" if from_first else "confident"}
    policy = FixedPolicy(peer.clip, peer.unit("class_features"))
    method, seen = peer.build(policy, "boost_adapter" if is_boost else "tda", meta["selection_p"], **options)
    samples, rows, images, boosted, history = Samples(), [], [], [], method.history
    method.history = lambda views: boosted.append(history(views)) or boosted[-1]
    caches = {sign: cache for sign, cache in {"pos": method.positive, "neg": method.negative}.items() if cache}
    low, high = options["negative"]["entropy"] if method.negative else (0, 0)
    for views, target in zip(seen, peer.inputs["targets"][: peer.count].tolist(), strict=True):
        image, logits = method.look(views), method.answer(views).logits
        images.append(image.feature)  # by which it is known again
        rows.append({"label": target, "top5": top_classes(logits), "top5_before": [-1]})
        found = {
            "features": image.feature, "logits_clip": image.logits, "prob": image.probabilities,
            "entropy": image.entropy, "entropy_ratio": image.relative_entropy, "pred_clip": image.label,
            "in_negative": int(low < image.relative_entropy < high), "selected_idx": image.selected,
            "logits_final": logits, "prediction": logits.argmax(),
        }  # fmt: skip
        for sign, cache in caches.items():
            found |= {f"{sign}_cache_image": _known(cache, images), f"{sign}_cache_entropy": _entropy(cache)}
        if is_boost:
            found["boost_selected_idx"] = chosen = views.confident(meta["selection_p"])
            image_of, view_of = _known(boosted[-1], images), _known(boosted[-1], views.features[chosen])
            found["boost_cache_image"] = torch.where(view_of >= 0, len(images) - 1, image_of)
            of_history = torch.where(image_of < 0, -2, -1)
            of_views = chosen[view_of] if len(chosen) else of_history
            found["boost_cache_view"] = torch.where(view_of < 0, of_history, of_views)
            found["boost_cache_entropy"] = _entropy(boosted[-1])
        samples.add(found)
    stacked = samples.stacked() | {"accuracy": metrics.summarize(rows)["accuracy"]}
    for sign, cache in caches.items():
        place = cache.entropy.isfinite().nonzero(as_tuple=True)
        kept = {"entropy": cache.entropy, "features": cache.features, "prob": cache.extra}
        stacked |= {f"final_{sign}_{name}": values[place] for name, values in kept.items()}
        stacked[f"final_{sign}_label"] = place[0]
    if from_first and "boost_cache_view" in peer.recorded:
        stacked["boost_cache_view"] = _in_free_order(stacked, peer.recorded)
    return stacked


def _known(cache: Cache, features: Sequence[Tensor] | Tensor) -> Tensor:
    """Which of some features each place of a cache holds, -1: none of them. n x [D] -> [C, K]"""
    same = [(cache.features == feature).all(dim=-1) & cache.entropy.isfinite() for feature in features]
    is_same = torch.stack([torch.zeros_like(cache.entropy, dtype=torch.bool), *same])
    return is_same.int().argmax(dim=0) - 1


def _entropy(cache: Cache) -> Tensor:
    return cache.entropy.masked_fill(cache.entropy.isinf(), torch.nan)


def _in_free_order(ours: Found, recorded: dict[str, np.ndarray]) -> Tensor:
    """Where view 0 is the image, it may be in the boosted cache from the history, as a view, or twice."""
    number = torch.arange(len(ours["boost_cache_view"]))[:, None, None]
    found = [[torch.as_tensor(rows[f"boost_cache_{name}"]) for name in ("image", "view")] for rows in (ours, recorded)]
    plain = [views.masked_fill((images == number) & (views == -1), 0) for images, views in found]
    return torch.where(plain[0] == plain[1], found[1][1].long(), found[0][1])


def replay_ece(peer: Peer) -> Found:
    """Expected calibration error, and its bins."""
    found: Found = {}
    for num_bins in peer.meta["n_bins"]:
        hits, edges = peer.own["prediction"] == peer.own["label"], bin_edges(num_bins)
        bins = reliability_bins(peer.own["confidence"], hits, num_bins)
        rows = {name: np.zeros(num_bins) for name in ("accuracy", "confidence")} | {"count": np.zeros(num_bins, int)}
        for name, values in rows.items():
            values[[edges.index(each.low) for each in bins]] = [getattr(each, name) for each in bins]
        rows |= {"ece": calibration_error(bins, len(hits)), "boundaries": edges}
        found |= {f"bins{num_bins}/{name}": values for name, values in rows.items()}
    return found


def replay_text_ensemble(peer: Peer) -> Found:
    """Class features from several templates."""
    features = peer.golden.tensor(peer.own["template_features"])
    return {"class_features": torch.stack([mean_feature(of_class) for of_class in features])}


REPLAYS: dict[str, Callable[[Peer], Found]] = {
    "zero": replay_zero, "zero_reward": replay_zero, "mta": replay_mta, "tps": replay_tps, "tda": replay_caches,
    "boostadapter": replay_caches, "ctpt": replay_regularised, "otpt": replay_regularised, "ece": replay_ece,
    "text_ensemble": replay_text_ensemble,
}  # fmt: skip


def replay(golden: Golden, trace: str) -> Found:
    """Every quantity of a trace."""
    peer = Peer(golden, trace)
    return REPLAYS[peer.meta["method"]](peer)


def tolerance(quantity: str) -> float:
    """The largest difference that a right replay may have."""
    return TOLERANCE_AUTOCAST if quantity.startswith("autocast") else TOLERANCE
