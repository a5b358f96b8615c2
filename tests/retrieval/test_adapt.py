"""What an episode tunes, and what is put back; its numbers are those of the recorded traces."""

import pytest
import torch
from torch.nn import functional as F

from clipscore.config.methods import find_method
from clipscore.models.group import Models
from clipscore.task import build_reward
from clipscore.text_encoder import encode_texts
from retrieval.adapt import adapt
from retrieval.build import build_method, check_candidates
from retrieval.config import RetrievalConfig
from retrieval.method import Context, Query, rank
from retrieval.metrics import top_items

IMAGES = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TEXTS = ["a red seven", "two dogs and a cat on a mat", "a man", "the sea at night", "a red dog on a red mat"]
DIRECTIONS = ["image_to_text", "text_to_image"]


def config(**changes):
    values = {"dataset": "x", "dataset_files": {"annotations": ""}, "data_root": "", "pretrained_root": ""}
    values |= {"output_root": "", "method": "rlcf", "steps": 3, "lr": 1e-3, "num_candidates": 3}
    return RetrievalConfig.of(values | {"reward": {"models": [{"name": "R1"}]}} | changes)


def sides(clip, direction):
    """Queries as they are, their features, and the gallery's."""
    images = IMAGES.to(clip.text.token_embedding.weight)  # its device and dtype
    images = F.interpolate(images, size=(clip.image_size,) * 2, mode="bicubic", align_corners=True)
    of_images, of_texts = clip.encode_images(images), encode_texts(clip, TEXTS)
    if direction == "image_to_text":
        return images, of_images, of_texts
    return clip.tokenize(TEXTS), of_texts, of_images


class Episodes:
    """A policy with its reward, run on single queries."""

    def __init__(self, tiny_clip, direction, scale_loss=False, **changes):
        self.config = config(direction=direction, **changes)
        self.clip, reward = tiny_clip("P"), tiny_clip("R1")
        self.queries, _, self.gallery = sides(self.clip, direction)
        _, self.anchors, reward_gallery = sides(reward, direction)
        precision = torch.float16 if scale_loss else None
        models = Models(self.clip, [reward], [], self.clip.device, precision)
        method = build_method(self.config, models, [self.gallery, reward_gallery])
        self.policy, self.objective, self.state = method.policy, method.objective, method.state

    def run(self, number):
        query, anchor = self.queries[number : number + 1], [self.anchors[number : number + 1]]
        return adapt(self.policy, self.state, self.objective, query, anchor, self.gallery, self.config.steps)


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
        episodes.state.updates.optimizer.state[episodes.policy.tuned["token_embedding.weight"]]["exp_avg"].shape
        for episodes in (rows, table)
    ]
    assert sizes == [(77, 64), (49408, 64)]
    assert torch.equal(rows.clip.text.token_embedding.weight, before)


def test_best_of_k_by_hand(tiny_clip):
    options = config(method="best_of_k", num_candidates=3, steps=0, lr=0.0)
    gallery = torch.tensor([[0.6, 0.8], [1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
    reward = build_reward(options, [tiny_clip("R1")])
    method = find_method("retrieval", "best_of_k")(Context(options, None, gallery, reward, [gallery]))
    query = Query(None, torch.tensor([0.5, 0.1, 0.3, 0.5, 0.4]), [torch.tensor([[0.0, 1.0]])])
    answer = rank(method, query)  # first for the policy are 3, 0 and 4, of equal ones the later; rewards 2, 2, 2.5
    assert top_items(answer.scores[None], 5) == [[4, 3, 0, 2, 1]]
    assert answer.scores.tolist() == pytest.approx([0.4, 0.1, 0.3, 0.5, 0.5], abs=1e-7)
    assert answer.extra["candidates"][0].tolist() == [3, 0, 4]
    assert answer.extra["rewards"][0].tolist() == pytest.approx([2.0, 2.0, 2.5])


def test_bad_numbers_are_named(tiny_clip):
    with pytest.raises(FloatingPointError, match="not finite: losses"):
        Episodes(tiny_clip, "text_to_image", lr=1e300).run(0)
    with pytest.raises(ValueError, match=r"num_candidates.text_to_image=12, but the gallery of x has 5 items"):
        check_candidates(config(direction="text_to_image", num_candidates={"text_to_image": 12}), 5)


@pytest.mark.gpu
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_half_precision_on_cuda_agrees_with_the_cpu(tiny_clip, direction):
    def on(device, autocast):
        def clip(name):
            model = tiny_clip(name).float().to(device)
            model.autocast_dtype = autocast
            return model

        return Episodes(clip, direction, scale_loss=autocast is torch.float16).run(0)[0].cpu()

    torch.testing.assert_close(on("cuda", torch.float16), on("cpu", None), atol=0.1, rtol=0)
