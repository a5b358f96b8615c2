"""The README's way from data and weights to the first numbers, followed line by line on miniatures."""

import json
import re
import shlex
from pathlib import Path

import pytest

from clipscore.config.load import REPOSITORY
from clipscore.data.caption_layouts import NOCAPS_FILE
from clipscore.metrics.coco import has_java
from scripts.fetch import data as fetch
from tests import miniatures
from tests.commands import dry_run, here
from tests.scripts.test_fetch_data import pack, tree
from tests.test_miniatures import listing

HEADING = "## Your data and weights"


def commands() -> list[str]:
    """The first block of commands under the heading, without its comments."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8").split(HEADING)[1]
    block = re.search(r"```bash\n(.*?)```", text, re.DOTALL)[1]
    return [line.partition("  #")[0].strip() for line in block.splitlines()]


@pytest.fixture
def environment(tmp_path, server, monkeypatch) -> Path:
    """Weights are there, of the data only annotations; a server of our own has the archives and single images."""
    root = miniatures.build(tmp_path / "miniature")
    source, data = root / "data", tmp_path / "data"
    server.files["/a.tar"] = pack(
        "a.tar", {f"imagenet-a/{path}": file for path, file in tree(source / "imagenet-a").items()}
    )
    server.files["/val.zip"] = pack("val.zip", tree(source / "coco2014", "val2014/*"))
    content = json.loads((source / "nocaps" / NOCAPS_FILE).read_text())
    for image in content["images"]:
        image["coco_url"] = f"{server.address}/{image['file_name']}"
        server.files[f"/{image['file_name']}"] = (source / "nocaps/val" / image["file_name"]).read_bytes()
    coco, nocaps = "coco2014/annotations/coco_karpathy_test.json", f"nocaps/annotations/{NOCAPS_FILE}"
    miniatures.write(data / nocaps, content)
    miniatures.write(data / coco, (source / coco.replace("annotations/", "")).read_text())
    manifest = {
        "imagenet_a": [[{"address": f"{server.address}/a.tar"}]],
        "coco": [[{"file": coco}, {"address": f"{server.address}/val.zip", "into": "coco2014"}]],
        "nocaps": [[{"file": nocaps}, {"images": "nocaps/val"}]],
    }
    monkeypatch.setattr(fetch, "MANIFEST", miniatures.write(tmp_path / "manifest.yaml", manifest))
    for name, folder in {"DATA": data, "PRETRAINED": root / "pretrained", "OUTPUT": tmp_path / "output"}.items():
        monkeypatch.setenv(f"RLCF_{name}", str(folder))
    return tmp_path


def follow(line: str, output: Path) -> int:
    """Do what a line says. The miniatures are on the CPU, not whole, and not in the repository's output folder."""
    program, *words = shlex.split(line.replace(" output/", f" {output}/"))
    if program == "python":
        return here(*words[1:])
    script = words[0].removeprefix("scripts/")
    if script.startswith(("classification", "retrieval", "captioning")):
        words = [words[0], "cpu", *words[2:], "partial=true", "num_workers=0", "num_threads=1", "limit=3"]
    return max(here(*command) for command in dry_run(script, *words[1:]))


def test_from_data_to_a_summary_of_each_task(environment, capsys):
    data, output = environment / "data", environment / "output"
    weights, fetch, doctor, classification, retrieval, captioning, tables, report = commands()
    assert follow(f"{weights} --list", output) == 0 and "ViT-L-14.pt" in capsys.readouterr().out
    assert follow(fetch, output) == 1 and capsys.readouterr().err.count("not whole: ") >= 3, "a miniature is not whole"
    assert follow(doctor, output) == 1 and "images: 200 of 7,500" in capsys.readouterr().out
    data_before = listing(data)
    for line, column, num in [
        (classification, "rlcf_prompt__imagenet_a", 7500),
        (retrieval, "rlcf_coco__coco-text_to_image", 25010),
        (captioning, "clipcap_c2n__nocaps-in-domain", 417),
    ]:
        assert follow(line, output) == 0, capsys.readouterr().err
        [folder] = output.glob(f"{column}__seed*")
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["partial"] == f"3 of {num}, data not as published"
    assert not has_java() or summary.keys() >= {"bleu_4", "meteor", "rouge_l", "cider", "clipscore", "refclipscore"}
    capsys.readouterr()
    assert follow(tables, output) == 0
    assert "partial, 3 of 7,500" in capsys.readouterr().out.replace("7500", "7,500")
    assert follow(report, output) == 0
    assert next(output.glob("rlcf_prompt__*/report.html")).stat().st_size > 10_000
    assert listing(data) == data_before, "a data folder was written into"
