"""The doctor on miniatures of everything: what is whole, what is not, and what it says about each fault."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from classification.data.find import find_dataset
from clipscore.config.load import REPOSITORY
from clipscore.data.caption_sets import find_captions
from scripts.doctor import __main__ as doctor
from scripts.doctor import checks as doctor_machine
from tests import miniature_weights, miniatures
from tests.commands import roots
from tests.test_miniatures import listing


@pytest.fixture
def whole(miniature, monkeypatch) -> Path:
    """Everything, as if its sizes were published, under the three roots."""
    miniatures.as_published(monkeypatch, miniature / "data")
    for variable, folder in roots(miniature).items():
        monkeypatch.setenv(variable, folder)
    monkeypatch.setattr(doctor_machine, "has_java", lambda: True)
    monkeypatch.setattr(doctor_machine, "ENOUGH_BYTES", 1)
    return miniature


@pytest.fixture
def broken(whole, root) -> Path:
    """A copy of the weights, and an empty data root, to break."""
    shutil.copytree(whole / "pretrained", root / "pretrained")
    (root / "data").mkdir()
    return root


def ask(capsys, *words: str) -> tuple[int, str]:
    code = doctor.main(list(words))
    return code, capsys.readouterr().out


def test_everything_whole(whole, capsys):
    before = listing(whole)
    code, text = ask(capsys)
    assert code == 0 and "✗" not in text and text.endswith("complete\n"), text
    for name in ("imagenet", "imagenet_a", "imagenet_v2", "imagenet_r", "imagenet_sketch"):
        assert f"✓ {name}, for Table 1\n      found: " in text
    for said in [
        "✓ coco, for Table 2\n", "✓ flickr30k, for Table 2 and Table 3\n", "✓ nocaps/out-domain, for Table 3\n",
        "✓ classes with images: 1,000 of 1,000", "✓ images: 200 of 200", "✓ captions: 121 of 121",
        "✓ class names: 1000 (tench, goldfish, great white shark, ...)", "✓ md5 of coco_karpathy_test.json: expected",
        "width 64, 206 tokens",
    ]:  # fmt: skip
        assert said in text, said
    counts = {"sha256 as expected": 5, "context [4, 512]": 2, "fits ViT-B/16 and width 64": 2}
    assert {said: text.count(said) for said in counts} == counts
    assert listing(whole) == before


def test_words_on_the_command_line(whole, capsys, monkeypatch):
    monkeypatch.setenv("RLCF_DATA", "/nowhere")
    assert ask(capsys, "dtd")[0] == 1
    assert ask(capsys, "dtd", f"data_root={whole / 'data'}")[0] == 0
    for word, message in {"lr=1": "lr=1: only data_root, pretrained_root,", "dtt": "nearest: 'dtd'"}.items():
        with pytest.raises(SystemExit, match="2"):
            ask(capsys, word)
        assert message in capsys.readouterr().err


def test_json_is_the_same_tree(whole, capsys):
    tree = json.loads(ask(capsys, "table2", "--json")[1])
    data, weights, _ = [[part["title"] for part in check["parts"]] for check in tree["checks"]]
    assert (tree["complete"], data) == (True, ["coco, for Table 2", "flickr30k, for Table 2 and Table 3"])
    assert [title.split(",")[0] for title in weights] == ["ViT-B/16", "ViT-L/14", "ViT-L/14@336px", "RN50x64"]


def test_only_what_is_asked_for_counts(broken, capsys, monkeypatch):
    monkeypatch.setattr(doctor_machine, "has_java", lambda: False)
    next(miniatures.layouts("dtd"))[1](broken / "data")
    monkeypatch.setattr(doctor_machine, "ENOUGH_BYTES", 1e30)
    assert ask(capsys, "DTD")[0] == 0  # no Java, no room on the disk, no other data set, no weights
    assert ask(capsys, "table2")[1].count("✗ disk: ") == 1
    monkeypatch.setattr(doctor_machine, "ENOUGH_BYTES", 1)
    assert ask(capsys, "weights")[0] == 1  # Table 3 needs Java
    assert ask(capsys, "table1")[0] == 1
    assert ask(capsys, "dtd", "pets")[0] == 1
    monkeypatch.setattr(doctor_machine, "has_java", lambda: True)
    assert ask(capsys, "weights")[0] == 0


def remove(pattern: str) -> Callable[[Path], None]:
    """What takes the first match of a pattern away, a file or a folder."""

    def take(data: Path) -> None:
        path = min(data.rglob(pattern))
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return take


NOWHERE = ("there is no data root {data}; ", "set data_root to the folder of your data sets")
FAULTS = [  # of either task, nothing there and not all there; the readers' own tests have all faults
    ("imagenet_a", shutil.rmtree, *NOWHERE),
    ("coco", shutil.rmtree, *NOWHERE),
    ("coco", remove("coco2014"), "{data}/coco2014/annotations/coco_karpathy_test.json", "get the data from "),
    ("imagenet_a", remove("n01498041"), "1 missing (n01498041)", "unpack the data again"),
    ("eurosat", remove("split*"), "split_zhou_EuroSAT.json (its folder is there)", "get the im"),
    ("flickr30k", remove("30003.jpg"), "1 of 24 listed", "unpack the images again"),
]


@pytest.mark.parametrize(("name", "spoil_data", "fault", "mend"), FAULTS)
def test_the_doctor_says_fault_and_mend_as_a_run_does(broken, monkeypatch, capsys, name, spoil_data, fault, mend):
    data = broken / "data"
    next(miniatures.layouts(name))[1](data)
    miniatures.as_published(monkeypatch, data)
    assert ask(capsys, name)[0] == 0
    spoil_data(data)
    code, text = ask(capsys, name)
    assert code == 1
    find = find_captions if name in miniatures.CAPTION_SETS else find_dataset
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        find(name, data)
    said = str(error.value).removesuffix("; or partial=true to go on with what is there")
    assert fault.format(data=data) in said and mend in said
    assert all(line.strip() in text for line in said.splitlines())


def test_weights_that_are_cut_off_or_of_other_content_and_shapes(broken, capsys):
    root = broken / "pretrained"
    cut = {root / name for name in ("clip/ViT-B-16.pt", miniature_weights.COOP, miniature_weights.MAPPERS[0])}
    for path in cut:
        path.write_bytes(path.read_bytes()[:-30])
    shutil.copy(root / "clip/RN50x64.pt", root / "clip/ViT-L-14.pt")
    (root / "clip/ViT-B-32.pt").unlink()
    (root / "clip/ViT-B-32.pt").mkdir()
    torch.save({"state_dict": {"ctx": torch.zeros(16, 512)}}, root / miniature_weights.COCOOP)
    mapper = root / miniature_weights.MAPPERS[1]
    state = torch.load(mapper)["state_dict"]
    state["clip_project.prefix_const"] = torch.zeros(10, 64)
    torch.save({"state_dict": state}, mapper)
    config = json.loads((root / "opt-125m/config.json").read_text())
    (root / "opt-125m/config.json").write_text(json.dumps(config | {"vocab_size": 7}))
    code, text = ask(capsys, "weights")
    assert code == 1 and text.count("\n    ✗") == 8
    for said in [
        *(f"{path} ({path.stat().st_size:,} bytes) is truncated: " for path in cut),
        *(f"place: {path}\n      from: " for path in cut), "is not the published ViT-L/14: its sha256 is ",
        "ViT-B-32.pt is a folder, expected a weight file", "holds a context [16, 512], expected [4, 512]",
        "has prefix_length=10 clip_length=40, not prefix_length=40 clip_length=null",
        "embed_tokens.weight is [206, 64], config.json says [7, 64]",
    ]:  # fmt: skip
        assert said in text, said
    (root / "opt-125m/config.json").write_text(json.dumps(config))
    path = root / "opt-125m/pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:-30])
    assert f"{path} ({path.stat().st_size:,} bytes) is truncated" in ask(capsys, "weights")[1]


def test_faults_of_a_data_set_are_listed_together(broken, capsys):
    next(miniatures.layouts("coco"))[1](broken / "data")
    file = broken / "data/coco2014/coco_karpathy_test.json"
    entries = json.loads(file.read_text())
    file.write_text(json.dumps([entry | {"caption": entry["caption"][:5]} for entry in entries]))
    (broken / "data/coco2014" / entries[3]["image"]).unlink()
    code, text = ask(capsys, "coco")
    assert code == 1
    for said in [
        "found: coco2014/coco_karpathy_test.json (caption lists), images in coco2014, in", "✗ images: 23 of 24",
        "✗ captions: 115 of 121", "✗ md5 of coco_karpathy_test.json: expected ",
        f"1 of 24 listed images are missing on disk ({entries[3]['image']})",
        "lists 24 images and 120 captions, published are 24 and 121; get the original file", "its md5 is ",
    ]:  # fmt: skip
        assert said in text, said


def test_deep_names_every_unreadable_image(broken, capsys):
    next(miniatures.layouts("eurosat"))[1](broken / "data")
    images = broken / "data/eurosat/2750"
    damaged, empty = images / "image_3.jpg", images / "image_7.jpg"
    for path, content in ((damaged, damaged.read_bytes()[:200]), (empty, b"")):
        path.unlink()  # the others are links to the same file
        path.write_bytes(content)
    before = listing(broken)
    assert ask(capsys, "eurosat")[0] == 0
    code, text = ask(capsys, "eurosat", "--deep")
    assert code == 1
    assert "✗ decoded: 2 of 10 images are unreadable" in text
    assert f"{damaged}: cannot be read as an image" in text and f"{empty}: the file is empty (0 bytes)" in text
    assert "✓ decoded: all 10 images" not in text
    assert listing(broken) == before


def test_a_terminal_without_ticks_and_a_reader_that_leaves(tmp_path):
    piped = f"({sys.executable} -m scripts.doctor dtd; echo $? >&2) | head -c 1"
    environment = {**os.environ, "RLCF_DATA": str(tmp_path / "d\u00e4ta"), "PYTHONIOENCODING": "ascii"}
    left = subprocess.run(piped, shell=True, env=environment, cwd=REPOSITORY, capture_output=True, check=False)
    assert (left.stdout, left.stderr) == (b"x", b"1\n")
