"""The README's way from data and weights to the first numbers, followed line by line on miniatures."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from clipscore.config.load import REPOSITORY
from clipscore.data.caption_layouts import NOCAPS_FILE
from tests import miniatures
from tests.scripts.test_fetch_data import pack, tree
from tests.test_miniatures import listing

HEADING = "## Your data and weights"


def commands() -> list[str]:
    """The first block of commands under the heading, without its comments."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8").split(HEADING)[1]
    block = re.search(r"```bash\n(.*?)```", text, re.DOTALL)[1]
    return [line.partition("  #")[0].strip() for line in block.splitlines()]


@pytest.fixture
def environment(tmp_path, server, monkeypatch) -> dict[str, str]:
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
    roots = {"RLCF_DATA": data, "RLCF_PRETRAINED": root / "pretrained", "RLCF_OUTPUT": tmp_path / "output"}
    roots["MANIFEST"] = miniatures.write(tmp_path / "manifest.yaml", manifest)
    return {**os.environ, **{key: str(value) for key, value in roots.items()}, "RLCF_USE_ACTIVE_ENV": "1"}


def follow(line: str, environment: dict[str, str]) -> subprocess.CompletedProcess:
    """Do what a line says. The miniatures are on the CPU, not whole, and not in the repository's output folder."""
    if re.match(r"bash scripts/(classification|retrieval|captioning)/", line):
        line = line.replace(".sh 0", ".sh cpu") + " partial=true num_workers=0 num_threads=1 limit=3"
    if "fetch_data" in line:
        line += f" --manifest {environment['MANIFEST']}"
    line = line.replace(" output/", f" {environment['RLCF_OUTPUT']}/")
    if "scripts.report" in line:
        line += f" --output {environment['RLCF_OUTPUT']}/report.html"
    return subprocess.run(
        ["bash", "-c", line], env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=280
    )


@pytest.mark.timeout(300)
def test_from_data_to_a_summary_of_each_task(environment):
    weights, fetch, doctor, classification, retrieval, captioning, tables, report = commands()
    listed = follow(f"{weights} --list", environment)
    assert listed.returncode == 0 and "ViT-L-14.pt" in listed.stdout
    fetched = follow(fetch, environment)
    assert fetched.returncode == 1 and fetched.stderr.count("not whole: ") >= 3, "a miniature is not whole"
    looked = follow(doctor, environment)
    assert looked.returncode == 1 and "images: 200 of 7,500" in looked.stdout, looked.stdout
    data_before = listing(Path(environment["RLCF_DATA"]))
    for line, column, num in [
        (classification, "rlcf_prompt__imagenet_a", 7500),
        (retrieval, "rlcf_coco__coco-text_to_image", 25010),
        (captioning, "clipcap_c2n__nocaps-in-domain", 417),
    ]:
        done = follow(line, environment)
        assert done.returncode == 0, done.stderr
        [folder] = Path(environment["RLCF_OUTPUT"]).glob(f"{column}__seed*")
        assert json.loads((folder / "summary.json").read_text())["partial"] == f"3 of {num}, data not as published"
    shown = follow(tables, environment)
    assert shown.returncode == 0 and "partial, 3 of 7,500" in shown.stdout.replace("7500", "7,500"), shown.stdout
    assert follow(report, environment).returncode == 0
    assert (Path(environment["RLCF_OUTPUT"]) / "report.html").stat().st_size > 10_000
    assert listing(Path(environment["RLCF_DATA"])) == data_before, "a data folder was written into"
