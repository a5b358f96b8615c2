"""The demo's captioner as it is shipped: its files, what it says of clean scenes, and how it is trained."""

import math

import pytest

from captioning.build import load_language_model, load_tokenizer
from captioning.captioner import Captioner
from captioning.training.train import training_loss
from clipscore.config.load import REPOSITORY
from scripts.demo.arrangements import retrieval_scenes
from scripts.demo.captioner_report import KINDS, captions_for, load_demo_captioner, scores
from scripts.demo.captions import captions_of
from scripts.demo.styles import retrieval_pictures
from scripts.demo.training import train_captioner
from scripts.demo.training.train_captioner import CodeMapper, scene_code, train_language_model

FOLDER = REPOSITORY / "pretrained/demo"
MAX_BYTES = 3_000_000
MIN_RIGHT, MIN_NAMED, MIN_CIDER = 5.0, 30.0, 280.0  # of clean scenes; CAPTIONING.md has more


def test_the_files_are_small_and_documented():
    files = [path for part in ("opt", *KINDS) for path in (FOLDER / part).iterdir()]
    assert {path.suffix for path in files} <= {".json", ".txt", ".safetensors", ".pt"}
    assert sum(path.stat().st_size for path in files) < MAX_BYTES
    text = (FOLDER / "CAPTIONING.md").read_text()
    assert all(f"{path.parent.name}/{path.name}" in text for path in files)


@pytest.mark.parametrize("kind", KINDS)
def test_captions_of_clean_scenes(kind):
    captioner, clip = load_demo_captioner(kind, FOLDER)
    (right, named, cider), (*_, shifted) = (
        scores(captions_for(captioner, clip, retrieval_pictures(style)[0][:60]), retrieval_scenes()[:60])
        for style in ("clean", "noise")
    )
    assert right >= MIN_RIGHT and named >= MIN_NAMED and cider >= MIN_CIDER and shifted < cider


def test_scores_by_hand():
    scenes = retrieval_scenes()[:2]
    true, other = captions_of(scenes[0])[1], captions_of(scenes[0])[0]
    right, named, cider = scores([true, other], scenes)
    assert right == 50.0 and named >= 50.0 and 0 < cider < 1000
    assert scores(["", ""], scenes) == (0.0, 0.0, 0.0)


def test_the_tokenizer_follows_opts_conventions():
    tokenizer = load_tokenizer(FOLDER / "opt")
    special = tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id
    assert special == (2, 1, 2, 2)
    assert tokenizer.convert_ids_to_tokens([0, 3]) == ["<s>", "<unk>"]
    assert len(tokenizer("\n", add_special_tokens=False).input_ids) == 1
    for caption in captions_of(retrieval_scenes()[0]):
        ids = tokenizer(caption, add_special_tokens=False).input_ids
        assert len(ids) == len(caption.split()) and tokenizer.decode(ids) == caption
    assert tokenizer.decode(tokenizer("Ünïcode?", add_special_tokens=False).input_ids) == "Ünïcode?"


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
    (tmp_path / "opt").symlink_to(FOLDER / "opt")
    train_captioner.train_mappers(list(KINDS), FOLDER / "policy.pt", tmp_path)
    assert all((tmp_path / kind / "ckpt-latest.pt").stat().st_size < 1_000_000 for kind in KINDS)
