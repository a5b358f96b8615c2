"""The README's way from data and weights to the first numbers, followed line by line on miniatures."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from clipscore.config.load import REPOSITORY
from tests import miniatures
from tests.test_miniatures import listing

HEADING = "## Your data and weights"


def commands() -> list[str]:
    """The first block of commands under the heading, without its comments."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8").split(HEADING)[1]
    block = re.search(r"```bash\n(.*?)```", text, re.DOTALL)[1]
    return [line.partition("  #")[0].strip() for line in block.splitlines()]


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    root = miniatures.build(tmp_path_factory.mktemp("miniature"))
    roots = {"RLCF_DATA": root / "data", "RLCF_PRETRAINED": root / "pretrained", "RLCF_OUTPUT": root / "output"}
    return {**os.environ, **{key: str(value) for key, value in roots.items()}, "RLCF_USE_ACTIVE_ENV": "1"}


def follow(line: str, environment: dict[str, str]) -> subprocess.CompletedProcess:
    """Do what a line says. The miniatures are on the CPU, not whole, and not in the repository's output folder."""
    if re.match(r"bash scripts/(classification|retrieval|captioning)/", line):
        line = line.replace(".sh 0", ".sh cpu") + " partial=true num_workers=0 num_threads=1 limit=3"
    line = line.replace(" output/", f" {environment['RLCF_OUTPUT']}/")
    if "scripts.report" in line:
        line += f" --output {environment['RLCF_OUTPUT']}/report.html"
    return subprocess.run(
        ["bash", "-c", line], env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=280
    )


@pytest.mark.timeout(300)
def test_from_data_to_a_summary_of_each_task(environment):
    fetch, doctor, classification, retrieval, captioning, tables, report = commands()
    data_before = listing(Path(environment["RLCF_DATA"]))
    listed = follow(f"{fetch} --list", environment)
    assert listed.returncode == 0 and "ViT-L-14.pt" in listed.stdout
    looked = follow(doctor, environment)
    assert looked.returncode == 1 and "7,500" in looked.stdout, "a miniature is not whole"
    for line, column, num in [
        (classification, "rlcf_prompt__imagenet_a", 7500),
        (retrieval, "rlcf_flickr30k__flickr30k-text_to_image", 5000),
        (captioning, "clipcap_c2f__flickr30k", 1000),
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
