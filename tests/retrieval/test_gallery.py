"""The feature cache: used when nothing changed, never when something did, and never half-written."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from clipscore.clip_model import Form
from clipscore.data.caption_sets import CaptionedImage
from clipscore.data.open_image import UnreadableImage
from retrieval import gallery
from retrieval.gallery import FeatureCache, image_features, text_features


@pytest.fixture
def images(tmp_path) -> list[CaptionedImage]:
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return [CaptionedImage(f"{n}.png", tmp_path / f"{n}.png", ("a caption",), n) for n in range(3)]


@pytest.fixture
def cache(tmp_path) -> FeatureCache:
    return FeatureCache(tmp_path / "features")


@pytest.fixture
def encoded(monkeypatch) -> list[str]:
    """What is encoded anew: names of models, once per image batch or call."""
    calls: list[str] = []
    images, texts = gallery.encode_pictures, gallery.encode_texts

    def note_images(models, *rest):
        calls.append("images by " + ", ".join(model.name for model in models))
        return images(models, *rest)

    monkeypatch.setattr(gallery, "encode_pictures", note_images)
    monkeypatch.setattr(gallery, "encode_texts", lambda m, batch: calls.append(f"texts by {m.name}") or texts(m, batch))
    return calls


def test_features_are_made_once_for_each_model(tiny_clip, images, cache, encoded):
    policy, reward = tiny_clip("P"), tiny_clip("R1")
    first = image_features([policy, reward], images, Form(32), cache, 0)
    again = image_features([reward, policy], images, Form(32), cache, 0)
    assert encoded == ["images by P, R1"]
    assert torch.equal(first[0], again[1]) and torch.equal(first[1], again[0])
    assert [features.shape[1] for features in first] == [32, 48]
    picture = gallery.Pictures([images[2].path], 32)[0].pixels.double().unsqueeze(0)
    torch.testing.assert_close(first[0][2:], policy.encode_images(picture))
    texts = ["a red seven", "a dog"]
    assert torch.equal(text_features(policy, texts, cache), text_features(policy, texts, cache))
    assert encoded[1:] == ["texts by P"]


def test_whatever_changes_the_numbers_makes_them_anew(tiny_clip, images, cache, encoded, monkeypatch):
    policy = tiny_clip("P")
    monkeypatch.setattr(policy.visual, "compile", lambda dynamic: None)  # takes a while
    changes = [
        lambda: setattr(policy, "sha256", "of other weights"),
        policy.compile_visual,
        lambda: setattr(policy, "autocast_dtype", torch.bfloat16),
        lambda: Image.new("RGB", (40, 40)).save(images[0].path),
        lambda: os.utime(images[1].path, ns=(1, 1)),
        lambda: images.pop(),
    ]
    image_features([policy], images, Form(32), cache, 0)
    for number, change in enumerate(changes, start=2):
        change()
        image_features([policy], images, Form(32), cache, 0)
        assert len(encoded) == number
        image_features([policy], images, Form(32), cache, 0)
        assert len(encoded) == number
    image_features([tiny_clip("R1")], images, Form(32), cache, 0)
    image_features([tiny_clip("R1")], images, Form(48), cache, 0)  # the pictures of another policy
    assert len(encoded) == 9
    text_features(policy, ["a"], cache)
    text_features(policy, ["b"], cache)
    assert len(encoded) == 11
    monkeypatch.setattr(gallery, "FEATURE_VERSION", "of other code")
    text_features(policy, ["b"], cache)
    assert len(encoded) == 12


def test_what_a_kill_leaves_is_used_again(tiny_clip, images, cache, encoded, monkeypatch):
    monkeypatch.setattr(gallery, "IMAGE_BLOCK", 2)
    monkeypatch.setattr(gallery, "TEXT_BLOCK", 2)
    policy, texts = tiny_clip("P"), ["a", "b", "c"]
    whole = image_features([policy], images, Form(32), FeatureCache(None), 0)[0], text_features(policy, texts, cache)
    image_features([policy], images[:2], Form(32), cache, 0)  # the first block
    del encoded[:]
    assert torch.equal(image_features([policy], images, Form(32), cache, 0)[0], whole[0])
    assert torch.equal(text_features(policy, [*texts[:2], "d"], cache)[:2], whole[1][:2])
    assert encoded == ["images by P", "texts by P"]  # the second block of either


@pytest.mark.parametrize("fault", ["truncated", "of other weights", "wrong length"])
def test_a_file_that_is_not_what_it_should_be_is_replaced(tiny_clip, images, cache, encoded, caplog, fault):
    policy = tiny_clip("P")
    expected = image_features([policy], images, Form(32), cache, 0)[0]
    (file,) = Path(cache.folder).glob("*.safetensors")
    if fault == "truncated":
        file.write_bytes(file.read_bytes()[:-10])
    elif fault == "of other weights":
        save_file({"features": torch.zeros(3, 32)}, file, metadata={"weights": "others"})
    else:
        with safe_open(file, framework="pt") as stored:
            save_file({"features": torch.zeros(2, 32)}, file, metadata=stored.metadata())
    assert torch.equal(image_features([policy], images, Form(32), cache, 0)[0], expected)
    assert len(encoded) == 2
    assert f"{file} is damaged" in caplog.text or f"{file} was made from other weights" in caplog.text
    assert image_features([policy], images, Form(32), cache, 0) and len(encoded) == 2  # mended
    assert [path.suffix for path in Path(cache.folder).iterdir()] == [".safetensors"]


def test_trouble_with_the_disk_costs_the_cache_only(tiny_clip, images, cache, monkeypatch, caplog):
    def torn(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gallery, "save_file", torn)
    assert len(image_features([tiny_clip("P")], images, Form(32), cache, 0)[0]) == 3
    assert "No space left" in caplog.text and list(Path(cache.folder).iterdir()) == []
    Path(cache.folder).rmdir()
    Path(cache.folder).write_text("a file")
    assert len(image_features([tiny_clip("P")], images, Form(32), cache, 0)[0]) == 3
    assert "cannot be written" in caplog.text


@pytest.mark.parametrize("num_workers", [0, 1])
def test_unreadable_images_are_one_sentence(tiny_clip, images, cache, num_workers):
    for image in images[1:]:
        image.path.write_bytes(b"")
    with pytest.raises(UnreadableImage) as refused:
        image_features([tiny_clip("P")], images, Form(32), cache, num_workers)
    first, second = (f"{image.path}: the file is empty (0 bytes); download the image again" for image in images[1:])
    assert str(refused.value).startswith(f"{first}; and 1 more: {second}; without them it is another benchmark")


def test_features_that_are_no_numbers_are_refused_and_not_kept(tiny_clip, images, cache):
    policy = tiny_clip("P")
    with torch.no_grad():
        policy.visual.proj[0, 0] = policy.backend.text_projection[0, 0] = torch.nan
    with pytest.raises(ValueError, match="P: the features of 3 of 3 images are not finite; use precision=fp32"):
        image_features([policy], images, Form(32), cache, 0)
    with pytest.raises(ValueError, match="features of 2 of 2 captions are not finite"):
        text_features(policy, ["a", "b"], cache)
    assert not Path(cache.folder).exists()
