"""Feature files: what is written, taken up after a kill, read back, and refused."""

import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from captioning import features as command
from captioning.build import image_features
from captioning.training.feature_files import INDEX, load_features
from clipscore.config.load import REPOSITORY
from clipscore.data.caption_sets import find_captions
from clipscore.data.images import normalize, to_pixels
from clipscore.data.open_image import open_image
from clipscore.models.load import load_clip
from scripts.demo.training.train_captioner import DATASET, write_training_scenes
from tests.whole_runs import die_at

POLICY = REPOSITORY / "pretrained/demo/policy.pt"
NUM_SCENES = 21


@pytest.fixture(scope="module")
def data_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_training_scenes(root, NUM_SCENES)
    return root


def words(data_root: Path, out: Path, *more: str) -> list[str]:
    given = {"dataset": DATASET, "policy": POLICY, "data-root": data_root, "out": out, "device": "cpu", "batch": 4}
    return [*(f"--{key}={value}" for key, value in given.items()), "--num-workers=0", *more]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_rows_are_the_clip_features_of_images_and_captions(data_root, tmp_path):
    assert command.main(words(data_root, tmp_path / "f")) == 0
    found = load_features(tmp_path / "f")
    data, clip = find_captions(DATASET, data_root, split="train"), load_clip(str(POLICY), ".")
    assert found.captions == [text for image in data.images for text in image.captions]
    assert found.image_ids == [image.image_id for image in data.images] and found.weights == clip.sha256
    assert found.images.shape == (NUM_SCENES, found.width) and found.texts.shape == (4 * NUM_SCENES, found.width)
    row = 17
    pixels = normalize(to_pixels(open_image(data.images[int(found.image_index[row])].path)))[None]
    expected = image_features(clip, pixels, normalize=False)[0]
    assert found.captions[row] in data.images[int(found.image_index[row])].captions and abs(expected.norm() - 1) > 0.1
    torch.testing.assert_close(found.images[int(found.image_index[row])], expected)
    with torch.no_grad():
        text = clip.project_token_ids(clip.tokenize([found.captions[row]]))[0]
    torch.testing.assert_close(found.texts[row], text)


def test_a_killed_process_goes_on_and_ends_with_the_same_bytes(data_root, tmp_path, monkeypatch):
    monkeypatch.setattr(command.extract, "__defaults__", (*command.extract.__defaults__[:-1], 8))
    out = tmp_path / "killed"
    die_at(command.feature_files, "write_shard", 5, lambda: command.main(words(data_root, out)))
    with pytest.raises(ValueError, match="shards of texts; give the command that made it once more"):
        load_features(out)
    stamps = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    for folder in (out, tmp_path / "whole"):
        assert command.main(words(data_root, folder)) == 0
    assert contents(out) == contents(tmp_path / "whole") and len(contents(out)) == 1 + 3 + 11
    assert all(out.joinpath(name).stat().st_mtime_ns == stamp for name, stamp in stamps.items())
    assert len(load_features(out).texts) == 4 * NUM_SCENES


def test_a_folder_of_other_features_is_left_alone(data_root, tmp_path, caplog):
    out = tmp_path / "f"
    assert command.main(words(data_root, out)) == 0
    before = contents(out)
    assert command.main(words(data_root, out, "--policy", str(POLICY.with_name("reward.pt")))) == 2
    assert "holds features with another policy, weights" in caplog.text and contents(out) == before
    (tmp_path / "foreign").mkdir()
    shutil.copy(out / "texts-00000.safetensors", tmp_path / "foreign/images-00000.safetensors")
    assert command.main(words(data_root, tmp_path / "foreign")) == 2 and f"but no {INDEX}" in caplog.text
    shutil.copy(out / "images-00000.safetensors", out / "texts-00000.safetensors")
    with pytest.raises(ValueError, match=r"texts-00000\.safetensors does not belong"):
        load_features(out)
    for file in ("texts-00000.safetensors", INDEX):
        (out / file).write_bytes(b"{}")
        with pytest.raises(ValueError, match=f"{file} is damaged"):
            load_features(out)


def test_an_unreadable_image_is_named_or_left_out_with_its_captions(data_root, tmp_path, caplog):
    shutil.copytree(data_root, tmp_path / "data")
    (tmp_path / "data" / DATASET / "train/00003.png").write_bytes(b"no image")
    (tmp_path / "data" / DATASET / "train/00007.png").unlink()
    assert command.main(words(tmp_path / "data", tmp_path / "f")) == 2
    assert "1 of 21 listed images are missing on disk" in caplog.text and "partial=true to go on" in caplog.text
    (tmp_path / "data" / DATASET / "train/00007.png").write_bytes(b"")
    assert command.main(words(tmp_path / "data", tmp_path / "f")) == 2
    assert re.search(r"00003.png: cannot be read as an image .*; or partial=true to go on", caplog.text)
    for word in ("--partial", "partial=true"):  # the second time all is there already
        caplog.clear()
        assert command.main(words(tmp_path / "data", tmp_path / "f", word)) == 0
        assert "with their captions: 2 unreadable images (train/00003.png, train/00007.png)" in caplog.text
    assert command.main(words(data_root, tmp_path / "whole")) == 0
    found, whole = load_features(tmp_path / "f"), load_features(tmp_path / "whole")
    kept = [row for row in range(NUM_SCENES) if row not in (3, 7)]
    assert found.image_ids == [whole.image_ids[row] for row in kept] and torch.equal(found.images, whole.images[kept])
    written = [row for row, image in enumerate(whole.image_index.tolist()) if image in kept]
    assert found.captions == [whole.captions[row] for row in written] and len(written) == 4 * len(kept)
    assert torch.equal(found.texts, whole.texts[written]) and found.digest != whole.digest
    assert torch.equal(found.images[found.image_index], whole.images[whole.image_index[written]])
    (tmp_path / "data" / DATASET / "train/00007.png").unlink()
    assert command.main(words(tmp_path / "data", tmp_path / "less", "--partial")) == 0
    assert "not whole: " in caplog.text
    torch.testing.assert_close(load_features(tmp_path / "less").texts, found.texts)  # in other batches
    assert command.main(words(tmp_path / "data", tmp_path / "g", "--annotations=none.json", "--dataset=own")) == 2
    assert "none.json not found" in caplog.text
    own = [f"--annotations={data_root / DATASET}/annotations/train.json", f"--images={data_root / DATASET}"]
    assert command.main(words(data_root, tmp_path / "own", *own, "--dataset=own")) == 0
    assert load_features(tmp_path / "own").captions == whole.captions


def released(**changes) -> dict:
    texts, images = torch.arange(12.0).view(4, 3), torch.arange(6.0).view(2, 3) - 2
    content = {"clip_text_embedding": texts, "clip_image_embedding": images, "captions": ["a", "b", "c", "d"]}
    content |= {"image_ids": [7, 9], "text_index": [0, 1, 2, 3], "image_index": [0, 0, 1, 1]}
    return content | changes


def dump(path: Path, content: object) -> Path:
    path.write_bytes(pickle.dumps(content))
    return path


@pytest.mark.parametrize("kind", ["tensors", "arrays", "half arrays"])
def test_released_pickles(tmp_path, kind):
    content = released()
    if kind != "tensors":
        dtype = np.float16 if kind == "half arrays" else np.float32
        arrays = {key: value.numpy().astype(dtype) for key, value in content.items() if isinstance(value, torch.Tensor)}
        content = released(**arrays, text_index=np.arange(4), image_ids=np.array([7, 9]))
    found = load_features(dump(tmp_path / "COCO_train.pkl", content))
    assert torch.equal(found.texts, released()["clip_text_embedding"]) and found.texts.dtype == torch.float32
    assert torch.equal(found.images, released()["clip_image_embedding"]) and found.image_index.tolist() == [0, 0, 1, 1]
    assert found.captions == ["a", "b", "c", "d"] and found.image_ids == [7, 9] and found.weights is None
    other = load_features(dump(tmp_path / "other.pkl", released(captions=["a", "b", "c", "e"])))
    assert other.digest != found.digest
    alone = load_features(dump(tmp_path / "alone.pkl", released(clip_image_embedding=None, text_index=[3, 2, 1, 0])))
    assert alone.images is None and torch.equal(alone.texts, released()["clip_text_embedding"].flip(0))


@pytest.mark.parametrize(("content", "message"), [
    ({"captions": []}, "no pickle of caption features: it has no clip_text_embedding, clip_image_embedding"),
    (released(clip_text_embedding=[1.0]), "must be tensors or arrays"),
    (released(captions=["a"]), r"1 captions do not go with 4 entries of image_index and images \[2, 3\]"),
    (released(captions=["", " ", "", ""]), "has no captions"),
    (released(text_index=[0, 1, 2, 4]), "text_index points to rows 0 to 4 of 4"),
    (released(image_index=[0, 0, 1, 2]), "image_index points to rows 0 to 2 of 2"),
    (released(clip_image_embedding=torch.zeros(2, 5)), "features of one CLIP are of one width"),
])  # fmt: skip
def test_faulty_pickles(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        load_features(dump(tmp_path / "x.pkl", content))
