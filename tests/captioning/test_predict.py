"""`python -m captioning.predict` on drawn scenes: it prints what a run records, and says what is wrong."""

import json
from pathlib import Path

import pytest

from captioning.predict import __doc__ as HELP
from captioning.predict import main
from scripts import run
from scripts.demo.make_data import write_captioned
from scripts.demo.styles import retrieval_pictures
from tests.whole_runs import CAPTIONER, CLIPSCORE, REWARD, assert_one_sentence, screen_of_example

pytestmark = pytest.mark.usefixtures("roots")

MODELS = [*CAPTIONER, *REWARD, "policy=demo/policy.pt", "device=cpu", "num_workers=0"]
QUICK = [*MODELS, "decoding.max_new_tokens=16", "num_candidates=3", "steps=2", "lr=3e-4"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """A scene, 00002.png, with an annotation file beside it."""
    folder = tmp_path_factory.mktemp("scenes")
    pictures, captions = retrieval_pictures("noise")
    pictures[2].save(folder / "00002.png")
    (folder / "test.json").write_text(json.dumps([{"image": "00002.png", "caption": captions[2]}]))
    return folder


@pytest.mark.parametrize("sampling", ["beam", "nucleus"])
def test_prints_what_a_run_records(scenes, roots, capsys, sampling):
    words = [*QUICK, "dataset=photos", f"dataset_files.annotations={scenes / 'test.json'}", f"sampling={sampling}"]
    words += ["caption_before=true", *CLIPSCORE]
    assert run.main(["--config", "configs/captioning/clipcap_c2f.yaml", *words]) == 0
    (row,) = map(json.loads, (roots / "output/clipcap_c2f__photos__seed0/rows.jsonl").read_text().splitlines())
    capsys.readouterr()

    assert main(["--image", str(scenes / "00002.png"), *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["caption_before"], found["caption"]) == (row["caption_before"], row["caption"])
    assert [step["loss"] for step in found["steps"]] == pytest.approx(row["loss"], rel=1e-3)
    for step, captions, rewards in zip(found["steps"], row["captions"], row["rewards"], strict=True):
        assert [candidate["caption"] for candidate in step["candidates"]] == captions
        assert [candidate["reward"] for candidate in step["candidates"]] == pytest.approx(rewards, rel=1e-4)

    assert main(["--image", str(scenes / "00002.png"), *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    for step in found["steps"]:
        assert {f"  {c['reward']:.4f}  {c['caption']}".rstrip() for c in step["candidates"]} <= set(lines)
    assert lines[-2:] == [f"before  {row['caption_before']}", f"after   {row['caption']}"]


@pytest.mark.parametrize(("words", "message"), [
    (["--image", "{scenes}/test.json"], "test.json: cannot be read as an image"),
    (["checkpoint=demo/none"], "checkpoint=demo/none not found; tried .*ckpt-latest.pt"),
    (["llm=demo/none"], "llm=demo/none: no config.json in any of"),
    (["prefix_length=8"], "checkpoint .*clipcap.*prefix_length=7 .*, not prefix_length=8 .*; set them so"),
    (["--config", "configs/captioning/eval_clipcap.yaml"], "method=zero_shot"),
])  # fmt: skip
def test_bad_input_is_one_sentence(scenes, caplog, words, message):
    words = [word.format(scenes=scenes) for word in words]
    assert main(["--image", str(scenes / "00002.png"), *QUICK, *words]) == 2
    assert_one_sentence(caplog, message)


def test_the_example_of_the_help_works(tmp_path, capsys):
    write_captioned(tuple(found[:15] for found in retrieval_pictures("noise")), tmp_path / "demo_scenes/noise", "test")
    lines = screen_of_example(HELP, tmp_path, capsys)
    before, after = lines[-2:]
    assert before.startswith("before  a green three") and after.startswith("after   a green three") and before != after
    assert any(line.startswith("step 4: loss ") for line in lines)
