"""The demo benchmark: what is drawn, what is written to disk, and the weights that ship."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from classification.datasets import find_dataset
from clipscore.clip_weights import load_clip
from clipscore.images import open_image
from scripts.demo import captions, evaluate, make_data, scenes, styles, train_clip, training_pictures

WEIGHTS = Path(__file__).resolve().parents[2] / "pretrained" / "demo"
SHIFTED = [style for style in styles.STYLES if style != "clean"]


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(int)


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_data.make_data(root)
    return root


def test_train_and_test_digits_are_disjoint_and_complete() -> None:
    train = {index for group in scenes.digit_images("train").values() for index in group}
    test = {index for group in scenes.digit_images("test").values() for index in group}
    assert not train & test
    assert train | test == set(range(1797))
    shown = [scene.digits[0].image_index for scene in scenes.test_scenes()]
    assert set(shown) <= test and len(set(shown)) == len(shown)
    assert {scene.digits[0].image_index for scene in scenes.train_scenes()} == train


def test_test_set_has_four_images_of_each_class() -> None:
    labels = [scene.label for scene in scenes.test_scenes()]
    assert labels == sorted(labels)
    assert np.bincount(labels).tolist() == [4] * 60


def test_label_is_colour_times_digit() -> None:
    seven = scenes.digit_images("test")[7][0]
    scene = scenes.Scene((scenes.Digit(seven, "blue", 0, 0),))
    assert (scene.digits[0].name, scene.label) == ("blue seven", 27)
    with pytest.raises(ValueError, match="exactly one digit, got 2"):
        _ = scenes.Scene(scene.digits * 2).label


@pytest.mark.parametrize("style", styles.STYLES)
def test_rendering_depends_on_its_seed_only(style: str) -> None:
    scene, severity = scenes.test_scenes()[0], styles.TEST_SEVERITY[style]
    state = np.random.get_state()[1].copy(), torch.get_rng_state()
    first = styles.render(scene, style, severity, seed=3)
    assert first.tobytes() == styles.render(scene, style, severity, seed=3).tobytes()
    assert first.tobytes() != styles.render(scene, style, severity, seed=4).tobytes()
    assert np.array_equal(state[0], np.random.get_state()[1]) and torch.equal(state[1], torch.get_rng_state())


@pytest.mark.parametrize("style", SHIFTED)
def test_severity_starts_at_clean_and_grows(style: str) -> None:
    scene = scenes.test_scenes()[200]
    clean = pixels(styles.render(scene, "clean", seed=5))
    distance = [np.abs(pixels(styles.render(scene, style, s, seed=5)) - clean).mean() for s in (0, 1.5, 3, 4.5)]
    assert distance[0] == 0
    assert distance == sorted(distance) and distance[1] > 0


def test_digit_is_drawn_in_its_colour_at_its_place() -> None:
    index = scenes.digit_images("test")[0][0]
    scene = scenes.Scene((scenes.Digit(index, "red", 0, 0, 12), scenes.Digit(index, "blue", 20, 20, 12)), canvas=32)
    picture = pixels(styles.render(scene))
    red, blue = picture[:12, :12].reshape(-1, 3).max(axis=0), picture[20:, 20:].reshape(-1, 3).max(axis=0)
    assert red[0] > 190 > 60 > red[2] and blue[2] > 190 > 60 > blue[0]
    assert np.ptp(picture[:12, 20:]) == 0  # bare paper in the corner without a digit


@pytest.mark.parametrize(
    ("style", "severity", "message"),
    [
        ("fog", 1, "unknown style 'fog'; expected one of clean"),
        ("noise", 6, "expected 0 to 5, got 6"),
        ("blur", -1, "expected 0 to 5, got -1"),
        ("clean", 1, "expected 0, got 1"),
    ],
)
def test_render_refuses(style: str, severity: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        styles.render(scenes.test_scenes()[0], style, severity)


def test_unknown_split() -> None:
    with pytest.raises(ValueError, match="unknown split 'val'"):
        scenes.digit_images("val")


@pytest.mark.parametrize("style", styles.STYLES)
def test_files_round_trip_through_the_readers(data_root: Path, style: str) -> None:
    dataset = find_dataset(f"demo/{style}", data_root)
    pictures, labels = styles.test_pictures(style)
    assert tuple(dataset.class_names) == scenes.CLASS_NAMES
    assert [image.label for image in dataset.images] == labels
    assert len({image.id for image in dataset.images}) == 240
    for image, picture in zip(dataset.images[::37], pictures[::37], strict=True):
        assert open_image(image.path).tobytes() == picture.tobytes()


def test_split_file_has_coop_fields(data_root: Path) -> None:
    split = json.loads((data_root / "demo" / "clean" / "split_zhou_Demo.json").read_text())
    assert (split["train"], split["val"], len(split["test"])) == ([], [], 240)
    assert split["test"][4] == ["01_red_one/004.png", 1, "red one"]


@pytest.fixture
def two_styles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_data, "TEST_SEVERITY", {"clean": 0.0, "noise": 1.0})


@pytest.mark.usefixtures("two_styles")
def test_make_data_is_idempotent_and_replaces_an_old_version(tmp_path: Path) -> None:
    folder = make_data.make_data(tmp_path)
    before = (folder / "manifest.json").stat().st_mtime_ns
    make_data.make_data(tmp_path)
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    (folder / "manifest.json").write_text("{}")
    (folder / "stale").mkdir()
    make_data.make_data(tmp_path)
    assert not (folder / "stale").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


@pytest.mark.usefixtures("two_styles")
def test_make_data_is_complete_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(make_data, "write_image_folder", fail)
    with pytest.raises(OSError, match="disk full"):
        make_data.make_data(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("two_styles")
def test_make_data_leaves_a_foreign_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match=r"has no manifest\.json"):
        make_data.make_data(tmp_path)
    assert (tmp_path / "demo" / "mine.txt").read_text() == "keep"


def test_captions_hold_both_prompts() -> None:
    ids = captions.caption_token_ids()
    red_seven = scenes.CLASS_NAMES.index("red seven")
    for prompt in ("a photo of a red seven.", "a_photo_of_a red seven."):
        assert any(torch.equal(ids[wording, red_seven], open_clip.tokenize(prompt)[0]) for wording in range(len(ids)))


def test_training_views_keep_colours_and_the_whole_picture() -> None:
    images = torch.arange(3 * 24 * 24, dtype=torch.float32).reshape(1, 3, 24, 24).repeat(64, 1, 1, 1)
    views = training_pictures.random_views(images, torch.Generator().manual_seed(0))
    offset = torch.tensor([0.0, 576.0, 1152.0])[:, None, None]
    torch.testing.assert_close(views - offset, (views - offset)[:, :1].expand_as(views), atol=1e-2, rtol=0)
    error = torch.minimum((views - images).abs().amax((1, 2, 3)), (views - images.flip(-1)).abs().amax((1, 2, 3)))
    assert 10 <= (error < 0.1).sum() <= 32  # a third of 64 is not cropped


def test_caption_loss() -> None:
    texts = torch.eye(2)
    loss = train_clip.caption_loss(texts, texts, torch.tensor([0, 1]), torch.tensor(2.0))
    torch.testing.assert_close(loss, torch.tensor(0.126928))  # log(1 + exp(-2))


@pytest.mark.parametrize("name", evaluate.MODEL_NAMES)
def test_shipped_weights(name: str) -> None:
    state = torch.load(WEIGHTS / f"{name}.pt", weights_only=True)
    assert all(value.dtype == torch.float16 for value in state.values())
    used = torch.zeros(49408, dtype=torch.bool)
    used[captions.caption_token_ids().unique()] = True
    embedding = state["token_embedding.weight"]
    assert embedding[~used].count_nonzero() == 0
    assert (embedding[used] != 0).any(dim=1).all()
    assert 0 < state["logit_scale"] <= torch.tensor(100.0).log().half()
    model = load_clip(f"{name}.pt", WEIGHTS)
    assert model.image_size == 24
    assert evaluate.zero_shot_accuracy(model, "clean", "a photo of a {}.") > 85


def test_shipped_weights_are_small() -> None:
    assert sum((WEIGHTS / f"{name}.pt").stat().st_size for name in evaluate.MODEL_NAMES) < 4_000_000


def test_saved_weights_are_a_function_of_the_weights(tmp_path: Path) -> None:
    model = load_clip("policy.pt", WEIGHTS)
    train_clip.save(model, tmp_path / "a.pt")
    train_clip.save(model, tmp_path / "b.pt")
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
