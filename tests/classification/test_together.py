"""Several images adapted at once: the episodes, and the records, of one image after the other."""

import pytest
import torch

from classification.adapt import adapt
from classification.build import build_method
from classification.task import ClassificationTask
from classification.together import Together
from clipscore import text_encoder
from clipscore.models.group import Models
from scripts import run
from tests.classification.test_adapt import NAMES, config
from tests.whole_runs import REWARD, results

IMAGES = torch.randn(3, 16, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TWO = {"models": [{"name": "R1"}, {"name": "R2"}], "standardize": True}
BATCH = {"models": [{"name": "R1"}], "baseline_over": "batch"}
WORDS = ["dataset=mine", "policy=demo/policy.pt", "views.num_views=8", "views.select_fraction=0.5", "num_candidates=2"]


@pytest.mark.parametrize("changes", [
    {}, {"reward": TWO}, {"reward": BATCH}, {"entropy_weight": 0.1}, {"class_position": "front"}, {"steps": 1},
    {"method": "kd"}, {"method": "atkd"}, {"method": "pseudo_label", "reward": None},
    {"method": "tpt", "reward": None},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("positions", [512, 16])
def test_episodes_are_those_of_one_image_after_the_other(tiny_clip, monkeypatch, changes, positions):
    monkeypatch.setattr(text_encoder, "CHUNK_POSITIONS", positions)
    options = config(tune="prompt", **{"steps": 3, "lr": 7e-3} | changes)
    rewards = [tiny_clip(model.name) for model in options.reward.models] if options.reward else []
    policy = tiny_clip("P")
    method = build_method(options, Models(policy, rewards, [], policy.device, None), NAMES)
    alone, moved = [], []
    for views in IMAGES:
        seen, state = method.context.views(views), method.state
        number, weight = options.views.num_selected, options.entropy_weight
        alone.append(adapt(method.policy, state, method.objective, seen, number, options.steps, weight))
        moved.append(state.moved)
    together = Together(method, len(IMAGES))
    for order in ([0, 1, 2], [2, 0, 1]):  # what the first left behind does not matter
        found, distances = together.adapt([method.context.views(IMAGES[i]) for i in order])
        for i, episode, distance in zip(order, found, distances, strict=True):
            torch.testing.assert_close(vars(episode) | {"steps": 0}, vars(alone[i]) | {"steps": 0}, atol=1e-10, rtol=0)
            for step, expected in zip(episode.steps, alone[i].steps, strict=True):
                assert type(step) is type(expected)
                torch.testing.assert_close(vars(step), vars(expected), atol=1e-10, rtol=0)
            torch.testing.assert_close(distance, moved[i], atol=1e-10, rtol=0)


@pytest.fixture
def start(roots, demo_data, tmp_path, monkeypatch):
    """Runs on six own images, the second of which is broken; how many images went together, and the records."""
    sketches = sorted((demo_data / "demo/sketch").glob("*/*.png"))[:6]
    for number, sketch in enumerate(sketches):
        copy = tmp_path / f"own/{number % 2}/{number}.png"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(sketch.read_bytes() if number != 1 else b"")
    (tmp_path / "names.txt").write_text("red zero\nred one\n")
    plain, groups = ClassificationTask.adapt_together, []
    monkeypatch.setattr(ClassificationTask, "adapt_together", lambda *given: groups.append(plain(*given)) or groups[-1])

    def start(name, *words):
        groups.clear()
        words = [*WORDS, f"dataset_files.images={tmp_path}/own", *REWARD, *words]
        words += [f"dataset_files.class_names={tmp_path}/names.txt", "num_workers=0"]
        assert run.main(["--config", "configs/classification/rlcf_prompt.yaml", *words, f"name={name}"]) == 0
        return [len(group) for group in groups], results(tmp_path / f"output/{name}__mine__seed0")[1]

    return start


def assert_alike(found, expected):
    for row, other in zip(found, expected, strict=True):
        assert list(row) == list(other) and row.get("top5") == other.get("top5")
        if "error" not in row:
            assert row["loss"] == pytest.approx(other["loss"], abs=1e-4) and row["moved"] > 0
            assert row["moved"] == pytest.approx(other["moved"], rel=1e-3)


def test_a_shared_selection_is_that_of_each_image_and_left_out_where_it_fails(tiny_clip):
    options = config(tune="encoder", reward=TWO)
    policy, rewards = tiny_clip("P"), [tiny_clip("R1"), tiny_clip("R2")]
    method = build_method(options, Models(policy, rewards, [], policy.device, None), NAMES)
    alone = [method.answer(method.context.views(views)) for views in IMAGES]
    seen = [method.context.views(views) for views in IMAGES]
    Together(method, len(IMAGES)).look(seen)  # right after an episode: the tower is not where it starts
    rewards[0].encode_images = None  # nothing is left to be asked
    for views, answer in zip(seen, alone, strict=True):
        found = method.answer(views)
        torch.testing.assert_close(vars(found) | {"steps": 0}, vars(answer) | {"steps": 0}, atol=1e-10, rtol=0)
        losses = [torch.stack([step.loss for step in of.steps]) for of in (found, answer)]
        torch.testing.assert_close(*losses, atol=1e-10, rtol=0)
    resnet = tiny_clip("RN")
    coupled = build_method(config(tune="encoder"), Models(resnet, [tiny_clip("R1")], [], resnet.device, None), NAMES)
    with pytest.raises(ValueError, match="BatchNorm"):
        Together(coupled, 2)


def test_records_are_those_of_a_plain_run(start, monkeypatch):
    groups, plain = start("plain")
    assert groups == []
    groups, rows = start("together", "images_at_once=2")
    assert groups == [2, 2]  # the third pair has the broken image
    assert_alike(rows, plain)
    encoder = start("encoder", "tune=encoder", "lr=1e-5")[1]
    groups, rows = start("looked", "tune=encoder", "lr=1e-5", "images_at_once=2")
    assert groups == [0, 0]
    assert_alike(rows, encoder)
    groups, rows = start("kept", "images_at_once=2", "view_cache=true")
    assert_alike(rows, plain)
    assert start("known", "images_at_once=2", "view_cache=true", "steps=1")[0] == [2, 2]
    rest = start("resumed", "images_at_once=2", "limit=3")[1]
    assert_alike(rest, plain[:3])
    assert_alike(start("resumed", "images_at_once=2")[1], plain)


def test_where_one_fails_each_is_adapted_alone(start, monkeypatch):
    _, plain = start("plain")

    def full(*given):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("classification.together.confident_views", full)
    groups, rows = start("together", "images_at_once=2")
    assert groups == [0] and rows == plain  # from then on one at a time
    encoder = start("encoder", "tune=encoder", "lr=1e-5")[1]
    assert start("looked", "tune=encoder", "lr=1e-5", "images_at_once=2")[1] == encoder


def test_what_a_method_inherits_says_nothing_of_its_own_answer(start, tmp_path, caplog):
    file, words = tmp_path / "mine.py", "return type(answer)(-answer.logits)"
    lines = ["from classification.methods.rlcf import Rlcf", "class Mine(Rlcf):", "    def answer(self, views):"]
    file.write_text("\n".join([*lines, "        answer = super().answer(views)", f"        {words}\n"]))
    with pytest.raises(AssertionError):
        start("mine", f"method={file}:Mine", "images_at_once=2")
    assert "a method of your own sets `batches`" in caplog.text


def test_what_cannot_be_done_together_is_a_sentence(roots, caplog):
    for name, words in {"dkd": REWARD, "tpt_cocoop": ["prompt_start=demo/cocoop"]}.items():
        command = ["--config", f"configs/classification/{name}.yaml", "dataset=demo/sketch", "policy=demo/policy.pt"]
        assert run.main([*command, *words, "images_at_once=2"]) == 2
        assert "images_at_once" in caplog.text
        caplog.clear()
