"""The episode against the plain form of the official code, what is tuned, and what is put back."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from clipscore.metrics.stage_times import StageTimes
from clipscore.task import build_state
from clipscore.text_encoder import encode_texts
from retrieval.adapt import adapt
from retrieval.build import build_objective, build_policy, check_candidates
from retrieval.config import RetrievalConfig
from scripts.bench.plain import plain_retrieval

IMAGES = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TEXTS = ["a red seven", "two dogs and a cat on a mat", "a man", "the sea at night", "a red dog on a red mat"]
DIRECTIONS = ["image_to_text", "text_to_image"]


def config(**changes):
    values = {"dataset": "x", "dataset_files": {"annotations": ""}, "data_root": "", "pretrained_root": ""}
    values |= {"output_root": "", "method": "rlcf", "steps": 3, "lr": 1e-3, "num_candidates": 3}
    return RetrievalConfig.model_validate(values | {"reward": {"models": [{"name": "R1"}]}} | changes)


def sides(clip, direction):
    """Queries as they are, their features, and the gallery's."""
    images = F.interpolate(IMAGES, size=(clip.image_size,) * 2, mode="bicubic", align_corners=True)
    of_images, of_texts = clip.encode_images(images), encode_texts(clip, TEXTS)
    if direction == "image_to_text":
        return images, of_images, of_texts
    return clip.tokenize(TEXTS), of_texts, of_images


class Episodes:
    """A policy with its reward, run on single queries."""

    def __init__(self, tiny_clip, direction, **changes):
        self.config = config(direction=direction, **changes)
        self.clip, reward = tiny_clip("P"), tiny_clip("R1")
        self.queries, _, self.gallery = sides(self.clip, direction)
        _, self.anchors, reward_gallery = sides(reward, direction)
        self.policy = build_policy(self.config, self.clip)
        rewards = [reward] if self.config.reward else []
        self.objective = build_objective(self.config, rewards, [reward_gallery])
        self.state = build_state(self.config, self.policy)

    def run(self, number):
        query, anchor = self.queries[number : number + 1], [self.anchors[number : number + 1]]
        return adapt(self.policy, self.state, self.objective, query, anchor, self.gallery, self.config.steps)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_equals_the_plain_form(tiny_clip, direction):
    ours = Episodes(tiny_clip, direction)
    times = StageTimes(torch.device("cpu"))
    plain = plain_retrieval(tiny_clip("P"), ours.config, ours.objective, ours.gallery, times)
    for number in (1, 0, 1):
        answer, steps = ours.run(number)
        query = ours.queries[number : number + 1], [ours.anchors[number : number + 1]]
        expected = plain.run(query, ours.config.steps)
        torch.testing.assert_close(answer, expected.logits, atol=1e-10, rtol=0)
        assert len(steps) == 3 and (answer - steps[0].logits[0]).abs().max() > 1e-3  # it moved


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_query_does_not_see_the_one_before_it(tiny_clip, direction):
    ours = Episodes(tiny_clip, direction)
    first, _ = ours.run(0)
    ours.run(1)
    assert torch.equal(ours.run(0)[0], first)


def test_image_to_text_tunes_the_image_tower_and_text_to_image_all_the_rest(tiny_clip):
    names = {name for name, _ in tiny_clip("P").backend.named_parameters()}
    tuned = [set(Episodes(tiny_clip, direction).policy.tuned) for direction in DIRECTIONS]
    assert tuned[0] == {name for name in names if name.startswith("visual.")} and len(tuned[0]) == 32
    assert tuned[1] == names - tuned[0] and {"logit_scale", "token_embedding.weight"} <= tuned[1]


def test_the_token_table_has_no_optimizer_state_unless_there_is_momentum(tiny_clip):
    rows, table = (
        Episodes(tiny_clip, "text_to_image", momentum=momentum)
        for momentum in (None, {"decay": 0.9, "update_interval": 9})
    )
    before = rows.clip.text.token_embedding.weight.detach().clone()
    for number in (1, 4):  # the second caption has words twice
        torch.testing.assert_close(rows.run(number)[0], table.run(number)[0], atol=1e-12, rtol=0)
    sizes = [
        episodes.state.optimizer.state[episodes.policy.tuned["token_embedding.weight"]]["exp_avg"].shape
        for episodes in (rows, table)
    ]
    assert sizes == [(77, 64), (49408, 64)]
    assert torch.equal(rows.clip.text.token_embedding.weight, before)


def test_momentum_reaches_the_next_queries(tiny_clip):
    momentum = {"decay": 0.5, "update_interval": 2, "mix": 1.0}
    plain, ours = (Episodes(tiny_clip, "text_to_image", momentum=m) for m in (None, momentum))
    differences = [float((ours.run(n)[0] - plain.run(n)[0]).abs().max()) for n in (0, 1, 2)]
    assert max(differences[:2]) < 1e-12 < 1e-3 < differences[2]


def test_kd_pulls_towards_the_teacher(tiny_clip):
    values = config().model_dump(exclude={"num_candidates"}) | {"method": "kd", "direction": "image_to_text"}
    kd = RetrievalConfig.model_validate(values)
    ours = Episodes(tiny_clip, "image_to_text")
    ours.objective = build_objective(kd, [tiny_clip("R1")], ours.objective.features)
    teacher = ours.objective.observe([ours.anchors[:1]]).softmax(dim=1)
    _, steps = ours.run(0)
    torch.testing.assert_close(steps[0].loss.detach(), -(teacher * steps[0].logits.log_softmax(1)).sum())
    assert steps[-1].loss < steps[0].loss


def test_bad_numbers_are_named(tiny_clip):
    with pytest.raises(FloatingPointError, match="not finite: losses"):
        Episodes(tiny_clip, "text_to_image", lr=1e300).run(0)
    with pytest.raises(ValueError, match=r"num_candidates.text_to_image=12, but the gallery of x has 5 items"):
        check_candidates(config(direction="text_to_image", num_candidates={"text_to_image": 12}), 5)


@pytest.mark.gpu
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_half_precision_on_cuda_agrees_with_the_cpu(tiny_clip, direction):
    def on(device, autocast):
        def half(name):
            clip = tiny_clip(name).float().to(device)
            clip.autocast_dtype = autocast
            return clip

        episodes = Episodes(tiny_clip, direction)
        episodes.clip, reward = half("P"), half("R1")
        images = IMAGES.float().to(device)
        queries = images if direction == "image_to_text" else episodes.clip.tokenize(TEXTS)
        features = [
            (clip.encode_images(F.interpolate(images, size=(clip.image_size,) * 2, mode="bicubic", align_corners=True)),
             encode_texts(clip, TEXTS))
            for clip in (episodes.clip, reward)
        ]  # fmt: skip
        (_, gallery), (anchors, reward_gallery) = (
            pair if direction == "image_to_text" else pair[::-1] for pair in features
        )
        policy = build_policy(episodes.config, episodes.clip)
        objective = build_objective(episodes.config, [reward], [reward_gallery])
        state = build_state(episodes.config, policy, scale_loss=autocast is torch.float16)
        return adapt(policy, state, objective, queries[:1], [anchors[:1]], gallery, 3)[0].cpu()

    torch.testing.assert_close(on("cuda", torch.float16), on("cpu", None), atol=0.1, rtol=0)
