"""What a run records of a late query against the same query worked out by itself, from picture files to ranks."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from clipscore.data.images import centre_view, normalize, to_pixels
from clipscore.data.open_image import open_image
from clipscore.metrics.stage_times import StageTimes
from clipscore.objectives import RlcfObjective
from clipscore.reward import ClipReward
from retrieval.config import RetrievalConfig
from retrieval.policy import ImageTowerPolicy
from retrieval.task import RetrievalTask
from scripts.bench.plain import plain_retrieval

MODELS = ("P", "R1", "R2")  # 32, 48 and 32 pixels: one reward sees enlarged pictures
CAPTIONS = ["A red seven!", "two dogs", "a cat on a mat", "the sea at night", "a man", "one blue bird", "a boat (old)"]


@pytest.fixture
def folder(tmp_path, tiny_clip) -> Path:
    """Weights, four pictures, and seven captions of them."""
    for name in MODELS:
        torch.save({k: v.half() for k, v in tiny_clip(name).backend.state_dict().items()}, tmp_path / f"{name}.pt")
    rng, entries = np.random.default_rng(0), []
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        entries.append({"image": f"{number}.png", "caption": CAPTIONS[2 * number : 2 * number + 2]})
    (tmp_path / "test.json").write_text(json.dumps(entries))
    return tmp_path


def config(folder: Path, **changes) -> RetrievalConfig:
    values = {"dataset": "mine", "dataset_files": {"annotations": f"{folder}/test.json"}, "data_root": str(folder)}
    values |= {"pretrained_root": str(folder), "output_root": str(folder / "output"), "policy": "P.pt"}
    values |= {"device": "cpu", "num_workers": 0, "steps": 3, "lr": 1e-3, "method": "rlcf", "num_candidates": 3}
    reward = {"models": [{"name": "R1.pt", "weight": 10}, {"name": "R2.pt", "weight": 5}]}
    return RetrievalConfig.of({**values, "reward": reward, **changes})


def rows_of(ours: RetrievalConfig) -> list[dict]:
    task = RetrievalTask(ours)
    return [task.adapt(sample) for sample in task.samples(task.ids)]


def sides(clip, folder: Path, direction: str):
    """Queries and gallery features of one model, from the files; fp32 as in a run."""
    pictures = torch.stack(
        [normalize(to_pixels(centre_view(open_image(folder / f"{number}.png"), 32))) for number in range(4)]
    )
    size = (clip.image_size,) * 2
    seen = F.interpolate(pictures, size, mode="bicubic", align_corners=True) if clip.image_size != 32 else pictures
    ids = clip.tokenize([text.lower().translate(str.maketrans("!()", "   ")) for text in CAPTIONS])
    texts = F.normalize(clip.backend.encode_text(ids), dim=-1)
    images = clip.encode_images(seen)
    return (pictures, images, texts) if direction == "image_to_text" else (ids, texts, images)


@pytest.mark.parametrize(("direction", "number"), [("image_to_text", 3), ("text_to_image", 5)])
def test_the_record_of_a_late_query(folder, tiny_clip, direction, number):
    ours = config(folder, direction=direction)
    rows = rows_of(ours)
    clips = [tiny_clip(name).float() for name in MODELS]
    with torch.no_grad():
        (queries, of_policy, gallery), *rewards = [sides(clip, folder, direction) for clip in clips]
    anchor = [features[number : number + 1] for _, features, _ in rewards]
    reward = ClipReward(clips[1:], [0.67, 0.33])
    objective = RlcfObjective(reward, [features for _, _, features in rewards], 3, ours.reward)
    plain = plain_retrieval(clips[0], ours, objective, gallery, StageTimes(torch.device("cpu")))
    before = gallery @ of_policy[number]
    row, first = rows[number], before.topk(3).indices
    parts = zip((0.67, 0.33), objective.features, anchor, strict=True)
    scores = [weight * (2.5 * items[first] @ query[0]).clamp(min=0) for weight, items, query in parts]
    assert row["candidates"][0] == first.tolist()
    torch.testing.assert_close(torch.tensor(row["rewards"][0]), sum(scores), atol=2e-5, rtol=0)
    after = plain.run((queries[number : number + 1], anchor), ours.steps).logits
    right = [[0, 1], [2, 3], [4, 5], [6]][number] if direction == "image_to_text" else [2]
    for name, values in (("_before", before), ("", after)):
        order = values.sort(descending=True).indices.tolist()
        assert row["top10" + name] == order
        assert row["rank" + name] == 1 + min(order.index(item) for item in right)


def test_ensembles_use_the_other_models_features(folder, tiny_clip):
    drop = {"steps", "lr", "weight_decay", "eps", "momentum", "num_candidates", "reward"}
    ensemble = {"method": "zero_shot", "zero_shot_models": ["R1.pt"]}
    rows = rows_of(RetrievalConfig.of(config(folder).model_dump(exclude=drop) | ensemble))
    with torch.no_grad():
        sides_of_both = [sides(tiny_clip(name).float(), folder, "image_to_text") for name in ("P", "R1")]
    both = sum(gallery @ queries[2] for _, queries, gallery in sides_of_both)
    assert rows[2]["top10"] == both.sort(descending=True).indices.tolist()


def test_other_pictures_under_the_same_names_are_another_run(folder):
    first = RetrievalTask(config(folder)).fingerprint
    assert RetrievalTask(config(folder)).fingerprint == first
    Image.new("RGB", (40, 60)).save(folder / "2.png")
    assert RetrievalTask(config(folder)).fingerprint["images"] != first["images"]


def test_a_resnet_adapts_with_the_statistics_of_its_image(tiny_clip):
    clip = tiny_clip("RN")
    policy = ImageTowerPolicy(clip)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    name = "visual.bn1.running_mean"
    before, plain = policy.state[name].clone(), policy.encode(image).detach()
    policy.set_adapting(True)
    adapting = policy.encode(image).detach()
    policy.set_adapting(False)
    assert (adapting - plain).abs().max() > 1e-3 and not torch.equal(policy.state[name], before)
    moved = policy.encode(image).detach()
    assert not torch.equal(moved, plain) and torch.equal(moved, policy.encode(image).detach())
