"""Replay of plain CLIP forwards and of the loss tables (kind G)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from classification.adapt import averaged_entropy
from classification.method import Context
from classification.methods.atkd import atkd_loss
from classification.methods.dkd import dkd_loss
from classification.methods.zero_shot import ZeroShot
from classification.policy import FixedPolicy
from classification.prompt_learner import class_prompts
from classification.seen import Views, confident_views
from clipscore.objectives import kd_loss
from clipscore.reward import resize_images, subtract_baseline
from clipscore.text_encoder import encode_texts
from tests.golden_files import Golden, checksums


def replay_forward(golden: Golden, trace: str) -> dict[str, Any]:
    """Image and text features and logits of every model of the folder; a ResNet also in train mode.

    All ViTs read the images that the ViT policy has, all ResNets those of the ResNet policy, resized to their own size.
    """
    meta, inputs = golden.meta(trace), golden.arrays(trace)
    texts = class_prompts(meta["prompts_prefix"], meta["classnames"])
    ours: dict[str, Any] = {}
    for name, sizes in meta["configs"].items():
        clip = golden.clip(name)
        resized = resize_images(_policy_images(golden, inputs, sizes["kind"]), clip.image_size)
        ours["tokens"] = ids = clip.tokenize(texts)
        ours[f"{name}/resized_checksum"] = checksums(resized)
        ours[f"{name}/resized_row0"] = resized[:, :, 0]
        ours[f"{name}/image_features"] = clip.project_images(resized)
        ours[f"{name}/text_features"] = clip.project_token_ids(ids)
        ours[f"{name}/logits_per_image"] = clip.logit_scale * clip.encode_images(resized) @ encode_texts(clip, texts).T
        if sizes["kind"] == "rn":
            clip.visual.train()
            ours[f"{name}/image_features_train_mode"] = clip.project_images(resized)
            ours[f"{name}/bn1_running_mean_after"] = clip.visual.bn1.running_mean
            ours[f"{name}/bn1_running_var_after"] = clip.visual.bn1.running_var
    for quantity in golden.recorded(trace):
        if quantity.startswith("ensemble_"):
            clips = [golden.clip(name) for name in quantity.split("/")[0].split("_")[1:]]
            texts = [f"{meta['prompts_prefix']} {name}." for name in meta["classnames"]]  # underscores and all
            policy, *members = (FixedPolicy(clip, encode_texts(clip, texts)) for clip in clips)
            method = ZeroShot(Context(Any, meta["classnames"], policy, None, [], members))  # reads no setting
            images = _policy_images(golden, inputs, "vit").split(1)
            ours[quantity] = torch.stack([method.answer(Views(image, policy)).logits for image in images])
    return ours


def _policy_images(golden: Golden, inputs: dict[str, Any], kind: str) -> Tensor:
    """The trace's images at the size that the policy of a kind reads, which the views of its traces have."""
    size = golden.arrays(f"inputs_cls_{kind}")["views"].shape[-1]
    return golden.tensor(inputs[f"input/images_{size}"])


def replay_losses(golden: Golden, trace: str) -> dict[str, Any]:
    """Each loss and its gradient; selection; reward post-processing."""
    inputs = golden.arrays(trace)
    student, teacher, scores = (golden.tensor(inputs[f"input/{n}"]) for n in ("student", "teacher", "clip_score"))
    losses = {
        "kd": kd_loss, "dkd": dkd_loss, "atkd": atkd_loss, "atkd_v2": _atkd_second_form,
        "kd_T2": lambda s, t: kd_loss(s, t, temperature=2.0), "kd_full": lambda s, t: kd_loss(s, t) - kd_loss(t, t),
        "avg_entropy": lambda s, t: averaged_entropy(s),
    }  # fmt: skip
    ours: dict[str, Any] = {}
    for name, loss in losses.items():
        leaf = student.clone().requires_grad_()
        value = loss(leaf, teacher)
        ours[f"{name}/loss"], ours[f"{name}/grad"] = value.detach(), torch.autograd.grad(value, leaf)[0]
    ours["select_half/idx"] = confident_views(student, len(student) // 2)
    options = {"mean": {}, "amplify": {"standardize": True}, "raw": {"baseline": "none"}}
    options |= {f"flat_{name}": options[name] | {"over": "batch"} for name in ("mean", "amplify")}
    for name, choice in options.items():
        ours[f"rewards_{name}"] = subtract_baseline(scores, **choice).flatten()
    ours["rewards_k1"] = subtract_baseline(scores[:, :1]).flatten()
    margin = student.topk(2, dim=1).values  # a weight that the official code offers and no script of it uses
    gap = margin[:, 0] - margin[:, 1]
    ours["confidence_gap"] = gap - gap.mean()
    return ours


def _atkd_second_form(student: Tensor, teacher: Tensor) -> Tensor:
    """A second ATKD that the official code holds and no script uses: KL of standardised logits at temperature 2."""
    s, t = (F.layer_norm(logits, logits.shape[1:]) for logits in (student, teacher))
    return 4 * (kd_loss(s, t, temperature=2.0) - kd_loss(t, t, temperature=2.0))
