"""`python -m retrieval.predict` on drawn scenes: it prints what a run records, and says what is wrong."""

import json
from pathlib import Path

import pytest

from retrieval.predict import __doc__ as HELP
from retrieval.predict import main, read_gallery
from scripts import run
from scripts.demo.make_data import write_captioned
from scripts.demo.styles import retrieval_pictures
from tests.whole_runs import assert_one_sentence, screen_of_example

pytestmark = pytest.mark.usefixtures("roots")

NUM_SCENES = 12
MODELS = ["policy=demo/policy.pt", "reward.models=demo/reward.pt", "device=cpu", "num_workers=0"]
QUICK = [*MODELS, "lr=1e-4", "steps=2", "num_candidates=5"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """A dozen scenes: images/00000.png and on, annotations/test.json, and their captions in texts.txt."""
    folder = tmp_path_factory.mktemp("scenes")
    pictures, captions = (found[:NUM_SCENES] for found in retrieval_pictures("noise"))
    write_captioned((pictures, captions), folder, "test")
    (folder / "texts.txt").write_text("\n".join(text for texts in captions for text in texts))
    return folder


def command(scenes: Path, direction: str) -> list[str]:
    """The question whose answer a run has under the id of `record`."""
    if direction == "image_to_text":
        return ["--query-image", str(scenes / "images/00003.png"), "--texts", str(scenes / "texts.txt")]
    query = json.loads((scenes / "annotations/test.json").read_text())[3]["caption"][1]
    return ["--query", f"{query.upper()}.", "--images", str(scenes / "images")]


def record(roots: Path, direction: str) -> tuple[dict, list[str]]:
    """The record of that question in a run on the same files, and the gallery by the names that we print."""
    folder = roots / f"output/rlcf_coco__photos-{direction}__seed42"
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    key = "images/00003.png" + ("" if direction == "image_to_text" else "#1")
    about = json.loads((folder / "about.json").read_text())
    assert about["direction"] == direction and not (roots / "output/gallery").exists()  # cache=false
    row = next(row for row in rows if row["id"] == key)
    assert ("text" in row) == (direction == "text_to_image")
    return row, [name.removeprefix("images/") for name in about["gallery"]]


@pytest.mark.parametrize("direction", ["image_to_text", "text_to_image"])
def test_prints_what_a_run_records(scenes, roots, capsys, direction):
    words = [*QUICK, "dataset=photos", f"dataset_files.annotations={scenes / 'annotations/test.json'}"]
    words += [f"dataset_files.images={scenes}", "cache=false"]
    assert run.main(["--config", "configs/retrieval/rlcf_coco.yaml", *words, f"direction={direction}"]) == 0
    row, gallery = record(roots, direction)
    capsys.readouterr()

    assert main([*command(scenes, direction), *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for moment, key in [("before", "top10_before"), ("after", "top10")]:
        assert [answer["item"] for answer in found[moment]] == [gallery[number] for number in row[key][:5]]
        cosines = [answer["cosine"] for answer in found[moment]]
        assert cosines == sorted(cosines, reverse=True) and -1 <= cosines[-1] < cosines[0] <= 1
    assert [step["loss"] for step in found["steps"]] == pytest.approx(row["loss"], rel=1e-4)
    for step, numbers, rewards in zip(found["steps"], row["candidates"], row["rewards"], strict=True):
        assert [candidate["item"] for candidate in step["candidates"]] == [gallery[number] for number in numbers]
        assert [candidate["reward"] for candidate in step["candidates"]] == pytest.approx(rewards, rel=1e-4)

    assert main([*command(scenes, direction), *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    for step in found["steps"]:
        assert {f"  {c['reward']:.4f}  {c['item']}" for c in step["candidates"]} <= set(lines)
    for moment in ("before", "after"):
        best = found[moment][0]
        assert lines[lines.index(f"{moment}: cosine") + 1] == f"  {best['cosine']:.4f}  {best['item']}"


def test_pictures_of_sub_folders_count_and_others_do_not(tmp_path):
    for name in ["b/2.JPG", "a.png", "notes.txt", "._a.png"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [image.id for image in read_gallery(tmp_path)] == ["a.png", "b/2.JPG"]


OF_TEXT, OF_IMAGE = ["--query=a dog", "--images={images}"], ["--query-image={image}", "--texts={texts}"]


@pytest.mark.parametrize(("words", "message"), [
    (["--query= ...", "--images={images}"], "--query ' ...': no word is left"),
    (["--query=a dog"], "--query TEXT goes with --images FOLDER, and not with --texts"),
    ([*OF_TEXT, "--texts=t"], "and not with --texts"),
    (["--query-image={image}", "--images={images}"], "--query-image FILE goes with --texts FILE"),
    ([*OF_TEXT, "--images={scenes}/none"], "none: there is no such folder"),
    ([*OF_TEXT, "--images={scenes}/annotations"], "annotations: no picture is in it; they end in .jpg"),
    ([*OF_TEXT, "--images={broken}", "num_candidates=1"], "bad.png: the file is empty .*2.png: cannot be"),
    ([*OF_TEXT, "num_candidates=13"], "--images has 12 items; .*: add num_candidates=12 to the command"),
    ([*OF_IMAGE, "--query-image={texts}"], "texts.txt: cannot be read as an image"),
    ([*OF_IMAGE, "--texts=none.txt"], "--texts none.txt: there is no such file"),
    ([*OF_IMAGE, "--texts={image}"], "00000.png: not text in UTF-8 .invalid start byte at byte 0"),
    ([*OF_IMAGE, "--texts={broken}/empty.txt"], "empty.txt: the file is empty"),
    ([*OF_IMAGE, "--texts={broken}/dots.txt"], "no word is left of line 3, '...'"),
    ([*OF_TEXT, "method=zero_shot", "reward=null"], "method=zero_shot does not read"),
])  # fmt: skip
def test_bad_input_is_one_sentence(scenes, tmp_path, caplog, words, message):
    for name, content in {"bad.png": "", "bad2.png": "text", "empty.txt": "", "dots.txt": "a dog\n\n...\n"}.items():
        (tmp_path / name).write_text(content)
    places = {"scenes": scenes, "images": scenes / "images", "image": scenes / "images/00000.png"}
    places |= {"texts": scenes / "texts.txt", "broken": tmp_path}
    assert main([*QUICK, *(word.format(**places) for word in words)]) == 2
    assert_one_sentence(caplog, message)


def test_the_example_of_the_help_works(tmp_path, capsys):
    write_captioned(retrieval_pictures("noise"), tmp_path / "demo_scenes/noise", "test")
    lines = screen_of_example(HELP, tmp_path, capsys)
    assert lines[lines.index("before: cosine") + 1].endswith(" 00005.png")
    assert lines[lines.index("after: cosine") + 1].endswith(" 00004.png")
