"""The demo benchmark: what is drawn, what is written to disk, and the weights and captioner that ship."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from captioning.build import load_language_model
from captioning.captioner import Captioner
from captioning.training.train import training_loss
from classification.data.find import find_dataset
from clipscore.config.load import REPOSITORY
from clipscore.data.open_image import open_image
from clipscore.models.load import load_clip
from scripts import run
from scripts.demo import arrangements, make_data, scenes, styles
from scripts.demo.arrangements import captions_of, retrieval_scenes
from scripts.demo.training import batches, train_captioner, train_clip
from scripts.demo.training.train_captioner import KINDS, CodeMapper, scene_code, train_language_model

WEIGHTS = REPOSITORY / "pretrained/demo"
SHIFTED = [style for style in styles.STYLES if style != "clean"]


def test_train_and_test_digits_are_disjoint_and_complete() -> None:
    train = {index for group in scenes.digit_images("train").values() for index in group}
    test = {index for group in scenes.digit_images("test").values() for index in group}
    assert not train & test
    assert train | test == set(range(1797))
    labels = [scene.label for scene in scenes.test_scenes()]
    assert labels == sorted(labels) and np.bincount(labels).tolist() == [4] * 60
    shown = [scene.digits[0].image_index for scene in scenes.test_scenes()]
    assert set(shown) <= test and len(set(shown)) == len(shown)
    assert {scene.digits[0].image_index for scene in scenes.train_scenes()} == train
    assert {digit.image_index for scene in retrieval_scenes() for digit in scene.digits} <= test
    assert {digit.image_index for scene in arrangements.scene_pairs(100, seed=1) for digit in scene.digits} <= train


def test_captions_are_those_that_are_true_of_their_scene() -> None:
    """Read by rule once, each in every wording; of each two scenes, one digit or the places of the digits differ."""
    told = []
    for index, scene in enumerate(retrieval_scenes()):
        places = [(d.name, d.left, d.top, d.size, int(d.image_index)) for d in scene.digits]
        told.append([places, captions_of(scene), arrangements.chosen_captions(scene, index)])
    digest = "4de6ac4349cd867cc66a5c2b03bc6e98f1b31c855f1f710be42e413db560ecc1"
    assert hashlib.sha256(json.dumps(told).encode()).hexdigest() == digest


@pytest.mark.parametrize("style", styles.STYLES)
def test_rendering_depends_on_its_seed_only(style: str) -> None:
    scene, severity = scenes.test_scenes()[0], styles.TEST_SEVERITY[style]
    state = np.random.get_state()[1].copy(), torch.get_rng_state()
    first = styles.render(scene, style, severity, seed=3)
    assert first.tobytes() == styles.render(scene, style, severity, seed=3).tobytes()
    assert first.tobytes() != styles.render(scene, style, severity, seed=4).tobytes()
    clean = styles.render(scene, "clean", seed=3).tobytes()
    assert (first.tobytes() == clean) == (style == "clean")
    assert styles.render(scene, style, 0, seed=3).tobytes() == clean
    assert np.array_equal(state[0], np.random.get_state()[1]) and torch.equal(state[1], torch.get_rng_state())
    with pytest.raises(ValueError, match="expected 0" if style == "clean" else "expected 0 to 5, got 6"):
        styles.render(scene, style, 6)
    with pytest.raises(ValueError, match="unknown style 'fog'; expected one of clean"):
        styles.render(scene, "fog", 1)


@pytest.mark.parametrize("style", styles.STYLES)
def test_files_round_trip_through_the_readers(demo_data: Path, style: str) -> None:
    dataset, folder = find_dataset(f"demo/{style}", demo_data), demo_data / "demo_scenes" / style
    pictures, labels = styles.test_pictures(style)
    assert tuple(dataset.class_names) == scenes.CLASS_NAMES
    assert [image.label for image in dataset.images] == labels
    assert len({image.id for image in dataset.images}) == 240
    files = [image.path for image in dataset.images]
    entries = json.loads((folder / "annotations/test.json").read_text())
    drawn, texts = styles.retrieval_pictures(style)
    assert [entry["caption"] for entry in entries] == texts == styles.retrieval_pictures("clean")[1]
    assert entries[7].keys() == {"image", "caption"} and entries[7]["image"] == "images/00007.png"
    files += [folder / entry["image"] for entry in entries]
    for file, picture in zip(files[::31], [*pictures, *drawn][::31], strict=True):
        assert open_image(file).tobytes() == picture.tobytes()


@pytest.fixture
def two_styles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_data, "TEST_SEVERITY", {"clean": 0.0, "noise": 1.0})
    monkeypatch.setattr(make_data, "RETRIEVAL_SEVERITY", {"clean": 0.0, "noise": 1.0})
    monkeypatch.setattr(make_data, "N_TRAIN_SCENES", 5)


@pytest.mark.usefixtures("two_styles")
@pytest.mark.parametrize("name", ["demo", "demo_scenes"])
def test_make_data_is_idempotent_and_replaces_its_own_folders_only(tmp_path: Path, name: str) -> None:
    make_data.make_data(tmp_path)
    folder = tmp_path / name
    before = (folder / "manifest.json").stat().st_mtime_ns
    make_data.make_data(tmp_path)
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    (folder / "manifest.json").write_text("{}")
    (folder / "stale").mkdir()
    make_data.make_data(tmp_path)
    assert not (folder / "stale").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo", "demo_scenes"]
    (folder / "manifest.json").rename(folder / "mine.txt")
    with pytest.raises(ValueError, match=rf"{name} exists and has no manifest\.json"):
        make_data.make_data(tmp_path)
    assert (folder / "mine.txt").is_file()


@pytest.mark.usefixtures("two_styles")
def test_training_scenes_are_added_on_request_and_kept(tmp_path: Path) -> None:
    folder = make_data.make_scene_data(tmp_path)
    train = folder / "clean/annotations/train.json"
    assert not train.exists()
    make_data.make_scene_data(tmp_path, with_train=True)
    before = train.stat().st_mtime_ns
    make_data.make_scene_data(tmp_path)
    assert train.stat().st_mtime_ns == before
    entries = json.loads(train.read_text())  # in COCO's form
    assert all(entry.keys() == {"caption", "image", "image_id"} for entry in entries)
    assert len(entries) == 4 * make_data.N_TRAIN_SCENES == 4 * len({entry["image_id"] for entry in entries})
    assert all((folder / "clean" / entry["image"]).is_file() for entry in entries)
    assert not (folder / "noise/train").exists()


@pytest.mark.usefixtures("two_styles")
@pytest.mark.parametrize("writer", ["write_classes", "write_captioned"])
def test_make_data_is_complete_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(make_data, writer, fail)
    with pytest.raises(OSError, match="disk full"):
        make_data.make_data(tmp_path)
    whole = ["demo_scenes"] if writer == "write_classes" else []
    assert [path.name for path in tmp_path.iterdir()] == whole


def test_a_clip_is_trained_to_a_file_like_the_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "PAIRS_PER_STYLE", 30)
    monkeypatch.setattr(batches, "train_scenes", lambda seed: scenes.train_scenes(seed)[::5])
    monkeypatch.setattr(train_clip, "TEXT_STEPS", 1)
    monkeypatch.setitem(train_clip.RECIPES, "policy", train_clip.RECIPES["policy"]._replace(steps=1))
    train_clip.save(train_clip.train("policy"), tmp_path / "policy.pt")
    trained, shipped = (torch.load(folder / "policy.pt", weights_only=True) for folder in (tmp_path, WEIGHTS))
    assert {key: value.shape for key, value in trained.items()} == {key: value.shape for key, value in shipped.items()}


@pytest.fixture
def zero_shot(demo_data, tmp_path):
    """The figures of a run without adaptation."""

    def start(config: str, dataset: str, *words: str) -> dict:
        roots = [f"data_root={demo_data}", f"output_root={tmp_path}", f"pretrained_root={REPOSITORY / 'pretrained'}"]
        own = [f"dataset={dataset}", "device=cpu", "num_threads=1", "num_workers=0"]
        own.append(f"name=run{len(list(tmp_path.iterdir()))}")
        assert run.main(["--config", f"configs/{config}.yaml", *roots, *own, *words]) == 0
        return json.loads(max(tmp_path.glob("*/summary.json"), key=lambda file: file.stat().st_mtime_ns).read_text())

    return start


@pytest.mark.parametrize("name", train_clip.RECIPES)
def test_shipped_weights(name: str, zero_shot) -> None:
    state = torch.load(WEIGHTS / f"{name}.pt", weights_only=True)
    assert all(value.dtype == torch.float16 for value in state.values())
    assert 0 < state["logit_scale"] <= torch.tensor(100.0).log().half()
    model = load_clip(f"{name}.pt", WEIGHTS)
    assert model.image_size == 24 and (WEIGHTS / f"{name}.pt").stat().st_size < 3_000_000
    policy = f"policy=demo/{name}.pt"
    assert zero_shot("classification/zero_shot", "demo/clean", policy, "prompt=a photo of a")["accuracy"] > 80
    assert zero_shot("retrieval/zero_shot", "demo_scenes/clean", policy, "limit=60")["r1"] > 60


@pytest.mark.parametrize("style", SHIFTED)
def test_shipped_reward_reads_shifted_pictures_better(style: str, zero_shot) -> None:
    policy, reward = (
        zero_shot("classification/zero_shot", f"demo/{style}", f"policy=demo/{name}.pt")["accuracy"]
        for name in train_clip.RECIPES
    )
    assert reward > policy + 9 and reward > 65


MAX_BYTES = 3_000_000


def test_the_files_are_small_and_documented():
    files = [path for part in ("opt", *KINDS) for path in (WEIGHTS / part).iterdir()]
    assert {path.suffix for path in files} <= {".json", ".txt", ".safetensors", ".pt"}
    assert sum(path.stat().st_size for path in files) < MAX_BYTES
    text = (WEIGHTS / "CAPTIONING.md").read_text()
    assert all(f"{path.parent.name}/{path.name}" in text for path in files)


@pytest.mark.parametrize("kind", KINDS)
def test_captions_of_scenes(kind, zero_shot):
    words = ["policy=demo/policy.pt", "llm=demo/opt", f"checkpoint=demo/{kind}", "prefix_length=7", "mapper_layers=2"]
    words += ["decoding.max_new_tokens=24", "metrics=[cider]", "limit=60"]
    clean, shifted = (
        zero_shot(f"captioning/eval_{kind}", f"demo_scenes/{style}", *words)["cider"] for style in ("clean", "noise")
    )
    assert clean > 280 > shifted + 30


def test_the_language_model_is_trained_from_its_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(train_captioner, "STEPS", 3)
    monkeypatch.setattr(train_captioner, "NUM_SCENES", 400)
    for name in ("a", "b"):
        train_language_model(tmp_path / name)
    files = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    lm, tokenizer = load_language_model(str(tmp_path / "a"), tmp_path)
    scene = retrieval_scenes()[0]
    captioner = Captioner(lm, tokenizer, CodeMapper())
    loss = training_loss(captioner, scene_code(scene)[None], *captioner.tokenize([f"{captions_of(scene)[0]}\n"]))
    assert 0 < loss.item() < 2 * math.log(len(tokenizer))


def test_both_mappers_are_trained_by_one_command(tmp_path, monkeypatch):
    for name, value in {"NUM_SCENES": 20, "EPOCHS": 1, "BATCH": 16}.items():
        monkeypatch.setattr(train_captioner, name, value)
    monkeypatch.setattr(train_captioner.write_training_scenes, "__defaults__", (20, 0))
    (tmp_path / "opt").symlink_to(WEIGHTS / "opt")
    train_captioner.train_mappers(list(KINDS), WEIGHTS / "policy.pt", tmp_path)
    assert all((tmp_path / kind / "ckpt-latest.pt").stat().st_size < 1_000_000 for kind in KINDS)
