"""Caption metrics beside the recorded ones: edge cases, the command as a process, and everything that may be wrong."""

import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

from clipscore.clip_model import CLIP_MEAN, CLIP_STD
from clipscore.metrics import captions as caption_metrics
from clipscore.metrics import coco as coco_metrics
from clipscore.metrics import command
from clipscore.metrics.captions import (
    check_captions,
    check_metrics,
    clip_scores,
    default_metrics,
    encode_image_files,
    score_captions,
)
from clipscore.metrics.coco import coco_scores, one_line, ptb_tokenize
from clipscore.models.load import load_clip

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "pretrained/demo/policy.pt"
needs_java = pytest.mark.skipif(not coco_metrics.has_java(), reason="needs Java")
NAMES = ["red.png", "green.png", "blue.png"]
CAPTIONS = ["a red square on the wall", "the green field lies there", "some blue sky over us"]


@pytest.fixture
def files(tmp_path):
    """Three images, and the command's two json files."""
    (tmp_path / "images").mkdir()
    for name in NAMES:
        Image.new("RGB", (40, 50), name.split(".")[0]).save(tmp_path / "images" / name)
    (tmp_path / "candidates.json").write_text(json.dumps(dict(zip(NAMES, CAPTIONS, strict=True))))
    references = {name: [text, "something else"] for name, text in zip(NAMES, CAPTIONS, strict=True)}
    (tmp_path / "references.json").write_text(json.dumps(references | {"unknown.png": ["a dog"]}))
    return tmp_path


@pytest.fixture(scope="module")
def clip():
    return load_clip(str(MODEL), ROOT)


def arguments(files):
    return [str(files / "candidates.json"), str(files / "images"), "--model", str(MODEL), "--device", "cpu"]


def fails(capsys, files, *words):
    """What the command says about bad input, in this process."""
    assert command.main([*arguments(files), *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and printed.err.count("\n") == 1
    return printed.err


def test_clip_scores_by_hand():
    images = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    candidates = torch.tensor([[0.6, 0.8], [-0.6, 0.8], [0.8, 0.6]])
    references = [torch.tensor([[0.0, 1.0], [0.8, -0.6]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[-1.0, 0.0]])]
    scores, with_references = clip_scores(images, candidates, references)  # cosines 0.8 and 0; 0.8; -0.8, not clipped
    torch.testing.assert_close(scores, torch.tensor([1.5, 0.0, 2.0]))  # 2.5 * 0.6, clipped, 2.5 * 0.8
    torch.testing.assert_close(with_references, torch.tensor([2 * 1.5 * 0.8 / 2.3, 0.0, 2 * 2.0 * -0.8 / 1.2]))
    scores, with_references = clip_scores(images[:1], images[:1], [-images[:1]], scale=1.0)
    assert scores.tolist() == [1.0] and with_references.tolist() == [0.0]  # 1 and -1 add up to 0
    for none in ([], [torch.zeros(0, 2)]):
        with pytest.raises(ValueError, match="one reference or more for each of 1 images expected"):
            clip_scores(images[:1], candidates[:1], none)


@needs_java
def test_empty_captions_and_odd_characters_keep_their_places():
    captions = {"a": ["", "A dog,\r\n(running)!", "\u2029"], "b": ["caf\u00e9\x85au\x0clait", "\x00"], "c": []}
    expected = {"a": ["", "a dog -lrb- running -rrb-", ""], "b": ["caf\u00e9 au lait", ""], "c": []}
    assert ptb_tokenize(captions) == expected
    assert one_line(" a\u2028\tb \ud800") == "a b ?"
    candidates = {"a": "", "b": "A red caf\u00e9\non the wall.", "c": "x ||| \u2028 \ud83d y!"}
    references = {"a": ["a cat"], "b": ["a red caf\u00e9 on the wall"], "c": ["some sky"]}
    columns, notes = coco_scores(candidates, references, ["bleu", "meteor", "rouge_l", "cider"])
    assert notes == [] and list(columns) == ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider"]
    for name, (_, each) in columns.items():
        assert each == pytest.approx([0, 10 if name == "cider" else 1, 0], abs=1e-6)


@pytest.fixture
def java(monkeypatch, tmp_path):
    """Put a shell script in the place of Java."""

    def replace(script):
        (tmp_path / "java").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "java").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return replace


@pytest.fixture
def one_token(monkeypatch):
    """No tokenizer: "a" stands for every group of captions."""
    monkeypatch.setattr(coco_metrics, "ptb_tokenize", lambda captions: {key: ["a"] for key in captions})


def test_java_programs_that_fail(java):
    java('read line\necho "Error: no space left" >&2\nexit 1')
    with pytest.raises(RuntimeError, match="METEOR stopped, or was silent for 50 s: Error: no space left"):
        coco_metrics._meteor({"a": ["a dog"], "b": ["a cat"]}, {"a": ["a"], "b": ["b"]})
    with pytest.raises(RuntimeError, match="java exited with 1: Error: no space left"):
        ptb_tokenize({"a": ["a dog"]})
    for said, advice in [
        ("Exception: java.lang.UnsupportedClassVersionError: major 52", "this Java is too old, version 8 or newer"),
        ("Exception: java.lang.OutOfMemoryError: Java heap space", "Java needs more memory: free some, or give"),
    ]:
        java(f'test "$1" = -version || {{ echo "{said}" >&2; exit 1; }}')
        coco_metrics._try_tokenizer.cache_clear()
        with pytest.raises(RuntimeError, match=f"{said}; {advice}"):
            check_metrics(["bleu"])
    coco_metrics._try_tokenizer.cache_clear()
    java("echo one\necho two")
    with pytest.raises(RuntimeError, match="the PTB tokenizer made 3 lines of 1 captions"):
        ptb_tokenize({"a": ["a dog"]})


def test_spice_alone_is_left_out_where_it_cannot_run_unless_it_is_named(monkeypatch, one_token, java):
    monkeypatch.setattr(coco_metrics, "has_spice_models", lambda: False)
    monkeypatch.setattr(coco_metrics.official("spice.get_stanford_models"), "__name__", "no_such_module")
    columns, [note] = coco_scores({"a": "a"}, {"a": ["a"]}, ["rouge_l", "spice"])
    assert columns == {"rouge_l": (1.0, [1.0])} and "No module named no_such_module" in note
    assert note.startswith("SPICE is left out, it cannot run here: RuntimeError: ")
    monkeypatch.setattr(coco_metrics, "has_java", lambda: True)
    monkeypatch.setattr(caption_metrics, "default_metrics", lambda _: ["rouge_l", "spice"])
    assert score_captions({"a": "a"}, {"a": ["a"]}).means == {"rouge_l": 100.0}
    with pytest.raises(RuntimeError, match=r"SPICE is left out, .*; leave spice out of the metrics"):
        score_captions({"a": "a"}, {"a": ["a"]}, ["rouge_l", "spice"])
    java("exit 3")
    with pytest.raises(RuntimeError, match="METEOR stopped, or was silent for 50 s: no message"):
        coco_scores({"a": "a"}, {"a": ["a"]}, ["meteor"])


def test_spice_reads_what_the_program_writes(monkeypatch, java):
    """The real program needs a download; this one answers in its form, in another order."""
    scores = {"b": {"All": {"f": 0.5}, "Object": {"f": None}}, "a": {"All": {"f": 0.2}}}
    rows = [{"image_id": key, "scores": found} for key, found in scores.items()]
    java(f"echo chatter\ntest $3 = spice-1.0.jar && test $5 = -out && echo '{json.dumps(rows)}' >$6")
    monkeypatch.setattr(coco_metrics, "has_spice_models", lambda: True)
    tokens = {"a": ["x"], "b": ["y"]}
    assert coco_metrics._spice(tokens, tokens) == [(0.35, [0.2, 0.5])]


def test_metric_names():
    assert check_metrics([" refclipscore", "CLIPScore", "clipscore"]) == ["clipscore", "refclipscore"]
    for names, said in {("bleu_4",): "unknown caption metric 'bleu_4'; there .*mean bleu", (): "no capt"}.items():
        with pytest.raises(ValueError, match=said):
            check_metrics(list(names))


def test_the_scorers_are_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    for module in [name for name in sys.modules if name.startswith("pycocoevalcap.")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(RuntimeError, match=r"^bleu, .* need pycocoevalcap.*pip install pycocoevalcap, or go without"):
        check_metrics(["bleu", "clipscore"])
    assert check_metrics(["clipscore"]) == ["clipscore"] and default_metrics(False) == ["clipscore"]
    for there in (True, False):
        monkeypatch.setattr(caption_metrics, "has_spice_models", lambda there=there: there)
        expected = ["bleu", "meteor", "rouge_l", "cider", *["spice"] * there, "clipscore", "refclipscore"]
        assert default_metrics(True) == expected


@pytest.mark.parametrize(("candidates", "references", "complaint"), [
    ({}, None, "there are no candidates"),
    ({"a": ["x"]}, None, r"a candidate must be one string, got \['x'\] \(a\)"),
    ({"a": "x"}, None, r"bleu need references; give them, or use metrics=\[clipscore\]"),
    ({"a": "x"}, ["y"], "references must be a mapping from image names, got a list"),
    ({"a": "x"}, {"a": [1]}, r"references of a must be a string or a list of them, got \[1\]"),
    ({"a": "x", "b": "x"}, {"a": ["y"]}, r"1 of 2 candidates have no reference \(b\); add them"),
    (dict.fromkeys("abcdefg", "x"), {"a": [" .\n"]}, r"7 of 7 candidates have no reference \(a, b, c, \.\.\.\);"),
])  # fmt: skip
def test_bad_captions(candidates, references, complaint):
    with pytest.raises(ValueError, match=complaint):
        check_captions(candidates, references, ["bleu"])


def test_what_is_ignored_is_counted():
    references = {"a": ["y", "", "?"], "one": "a single one", "b": ["z"], "c": []}
    kept, notes = check_captions({"a": "x", "one": "y"}, references, ["bleu"])
    assert kept == {"a": ["y"], "one": ["a single one"]}
    assert [note[:12] for note in notes] == ["2 references", "references o"] and "of 2 images without" in notes[1]


def test_clip_metrics_through_the_model(files, clip):
    images = {name: files / "images" / name for name in NAMES}
    candidates = dict(zip(NAMES, CAPTIONS, strict=True))
    references = {name: [text, "green field"] for name, text in candidates.items()}
    both = score_captions(candidates, references, ["clipscore", "refclipscore"], clip, images)
    alone = score_captions(candidates, None, None, clip, images)
    assert alone.means == {"clipscore": both.means["clipscore"]} and alone.notes == []
    for scores in both.per_caption.values():  # a reference is the caption itself: its cosine is 1
        a = scores["clipscore"] / 100
        assert scores["refclipscore"] == pytest.approx(100 * 2 * a / (a + 1), abs=1e-3)
    assert max(scores["clipscore"] for scores in both.per_caption.values()) > 0
    with pytest.raises(ValueError, match="need a clip model and an image file for every candidate"):
        score_captions(candidates, None, None, clip, {"red.png": images["red.png"]})


def test_an_unreadable_image(files, clip, capsys):
    (files / "images" / "red.png").write_bytes(b"no image")
    assert "red.png: cannot be read as an image" in fails(capsys, files)
    images = {name: files / "images" / name for name in NAMES}
    scores = score_captions(dict.fromkeys(NAMES, "x"), None, None, clip, images, on_error="skip")
    assert list(scores.per_caption) == NAMES[1:] and len(scores.notes) == 1
    assert scores.notes[0].startswith(f"left out: {images['red.png']}: cannot be read as an image")
    with pytest.raises(ValueError, match=r"none of 1 images can be read; the first: .*red.png"):
        score_captions({"red.png": "x"}, None, None, clip, images, on_error="skip")


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_pictures_are_resized_before_they_become_rgb(tmp_path, clip, mode):
    noise = np.random.default_rng(0).integers(0, 256, (90, 70, 4), dtype=np.uint8)
    picture = Image.fromarray(noise, "RGBA")
    (picture if mode == "RGBA" else picture.convert("RGB").quantize(200)).save(tmp_path / "x.png")
    official = Compose([
        Resize(clip.image_size, InterpolationMode.BICUBIC), CenterCrop(clip.image_size),
        lambda image: image.convert("RGB"), ToTensor(), Normalize(CLIP_MEAN, CLIP_STD),
    ])  # fmt: skip
    with torch.no_grad():
        expected = clip.encode_images(official(Image.open(tmp_path / "x.png"))[None])[0]
        rgb_first = clip.encode_images(official(Image.open(tmp_path / "x.png").convert("RGB"))[None])[0]
    found = encode_image_files(clip, {"x": tmp_path / "x.png"})[0]["x"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert (found - rgb_first).abs().max() > 1e-4


@needs_java
def test_the_command(files, capsys):
    assert command.main([*arguments(files), "--references", str(files / "references.json")]) == 0
    shown = capsys.readouterr()
    rows = dict(line.split() for line in shown.out.splitlines()[1:-1])
    columns = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr", "CLIPScore", "RefCLIPScore"]
    assert [name for name in rows if name != "SPICE"] == columns
    assert rows["BLEU-1"] == rows["BLEU-4"] == rows["METEOR"] == rows["ROUGE-L"] == "100.00"
    # Identical to one reference of two; the other shares nothing with the caption.
    assert float(rows["CIDEr"]) == pytest.approx(500)
    assert shown.err == "note: references of 1 images without a candidate are ignored\n"
    result = json.loads((files / "candidates.scores.json").read_text())
    assert list(result["per_caption"]) == NAMES and result["model"]["name"] == str(MODEL)
    mean = sum(row["clipscore"] for row in result["per_caption"].values()) / 3
    assert math.isclose(result["means"]["clipscore"], mean, rel_tol=1e-6)
    assert f"{mean:.2f}" == rows["CLIPScore"]
    package = Path(coco_metrics.official("tokenizer.ptbtokenizer").__file__).parent
    assert [path.name for path in package.iterdir() if "tmp" in path.name] == []


def test_the_command_without_java_and_references(files, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match=r"^bleu, rouge_l need Java .*apt-get install.*metrics=.clipscore,refclip"):
        check_metrics(["clipscore", "bleu", "ROUGE-L"])
    assert "need Java" in fails(capsys, files, "--references", str(files / "references.json"))
    content = {Path(name).stem: text for name, text in zip(NAMES, CAPTIONS, strict=True)}  # names without suffix
    (files / "candidates.json").write_text(json.dumps(content))
    assert command.main([*arguments(files), "--output", str(files / "out.json")]) == 0
    result = json.loads((files / "out.json").read_text())
    assert list(result["means"]) == ["clipscore"] and list(result["per_caption"]) == ["red", "green", "blue"]
    assert not (files / "candidates.scores.json").exists()


def test_bad_files_and_options(files, capsys):
    absent = files / "absent.json"
    for words, complaint in {
        ("--references", str(absent)): f"references file {absent} cannot be read: No such file",
        ("--metrics", "clipscor"): "did you mean clipscore?",
        ("--metrics", "refclipscore"): "refclipscore need references",
        ("--model", "ViT-B/33"): "no CLIP called 'ViT-B/33'",
        ("--output", f"{files}/nowhere/out.json"): "cannot be written: name a file in an existing folder",
    }.items():
        assert complaint in fails(capsys, files, *words)
    with pytest.raises(ValueError, match=r"image folder .*absent is not a folder"):
        command.find_images(files / "absent", NAMES, "stop")
    Image.new("RGB", (4, 4)).save(files / "images" / "red.jpg")
    with pytest.raises(ValueError, match=r"red fits several files: .*red.jpg, .*red.png; write the whole file name"):
        command.find_images(files / "images", ["red"], "stop")
    for text, complaint in (
        ("{", "not valid json in utf-8 (Expecting property name"),
        ('{"a.png": "x", "a.png": "y"}', "not valid json in utf-8 ('a.png' is there twice"),
        ('{"a.png": 1}', "a candidate must be one string, got 1 (a.png)"),
        ('{"absent.png": "x"}', "1 of 1 candidates have no image in"),
    ):
        (files / "candidates.json").write_text(text)
        assert complaint in fails(capsys, files)
