"""A method in a file of the user's: the page that shows one, and what is said of one that does not fit."""

import json
import re
from pathlib import Path

import pytest

from clipscore.config.load import REPOSITORY
from scripts import run
from scripts.report.__main__ import main as report
from scripts.tables.__main__ import main as tables
from tests.commands import bash, python

PAGE = (REPOSITORY / "classification/README.md").read_text()
CODE = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
QUICK = ["policy=demo/policy.pt", "num_workers=0", "views.num_views=16", "dataset=demo/noise"]
REWARD = "reward.models=demo/reward.pt"
ZERO_SHOT = f"{REPOSITORY}/configs/classification/zero_shot.yaml"


def test_the_page_runs_from_another_folder(roots, monkeypatch, capsys):
    assert len(CODE.splitlines()) < 40
    [place] = re.findall(r"method=(\S+py:\w+) reward.models=ViT-L/14", PAGE)
    monkeypatch.chdir(roots)
    Path("mine.py").write_text(CODE)
    words = [*QUICK, REWARD, f"method={place}", "sharpness=1.0"]
    done = bash("classification/zero_shot.sh", "cpu", *words, "limit=2", folder=roots)
    assert done.returncode == 0, done.stderr
    [path] = roots.glob("output/zero_shot-SureViews-*__demo-noise__seed0")
    command = ["--config", ZERO_SHOT, "device=cpu", *words, "limit=3"]
    done = python("scripts.run", *command, folder=roots)
    assert done.returncode == 0 and "2 of 3 samples are done already" in done.stderr, done.stderr
    rows = [json.loads(line) for line in (path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and all(row["weights"] == [1.0] and len(row["selected"]) == 1 for row in rows)
    name = path.name.split("__")[0]
    assert tables([str(path)]) == 0 and name in capsys.readouterr().out
    assert report([str(path)]) == 0
    assert json.loads((path / "env.json").read_text())["fingerprint"]["method"][:8] in name
    Path("mine.py").write_text(CODE.replace("share) * ours", "share) * ours.sqrt()"))
    assert run.main([*command, f"name={name}"]) == 2
    assert re.search("method is '.{64}' there and '.{64}' here", capsys.readouterr().err)
    assert run.main(command) == 0
    assert len(list(roots.glob("output/*/summary.json"))) == 2, "once edited, it starts anew"


STATE = "sequential, state_dict = True, lambda self: %s"
START = "from classification.method import Answer, Method\nfrom clipscore.config.fields import StrictModel\n"


def mine(answer: str = "return Answer(views.logits[0])", has: str = "") -> str:
    """A file with a method."""
    return f"{START}class Mine(Method):\n    {has}\n    def answer(self, views):\n        {answer}\n"


def centre(more: str) -> str:
    return mine(f"return Answer(views.logits[0]{more})")


@pytest.mark.parametrize(("code", "words", "message"), [
    (None, ["method=zerro"], "unknown method 'zerro'; there are .*; the nearest is zero;"),
    (None, [], r"no file .*mine.py; a relative path starts in the folder where the command is given"),
    ("def mine(): ...", [], "has no class 'Mine'; it has none"),
    ("class Mine: ...", [], "is no method: a subclass of classification.method.Method with a function answer"),
    ("import nothing_at_all", [], "failed: ModuleNotFoundError: No module named 'nothing_at_all'\n.*line 1"),
    ("class Mine(:", [], r"failed: SyntaxError: .*\(mine.py, line 1\)"),
    (mine("return 1 / 0"), [], "failed: ZeroDivisionError: division by zero\n.*line 6, in answer"),
    (mine("return views.logits[0]"), [], r"answered Tensor, expected an Answer with logits \[60\]"),
    (mine("return Answer(views.logits)"), [], r"answered \[16, 60\], expected an Answer with logits"),
    (centre(" * float('nan')"), ["on_error=stop"], r"not finite: logits \[nan"),
    (centre(", selected=3"), [], "AttributeError: 'int' object has no attribute 'tolist'"),
    (centre(", extra={'a': {}}"), [], r"extra\['a'\] = {}; a tensor, number, text or"),
    (mine(has="sequential = True"), [], "is sequential, so it needs state_dict"),
    (mine(has=STATE % "{'seen': {1}}"), [], "keeps a set in its state_dict; tensors, numbers, texts"),
    (mine(has=STATE % "{}"), ["shard=0/2"], "cannot be sharded, because a sample.s result depends on all samples"),
    (mine(), ["lambda_y=1.0"], "lambda_y: unknown key;.*; read by method=mta "),
    (mine(), ["num_candidates=2"], r"num_candidates \(read by best_of_k, rlcf\)"),
    (mine(has="class Options(StrictModel): views: int = 1"), [], "names of settings that every run has: views"),
    (None, ["method=best_of_k", "num_candidates=61", REWARD], "num_candidates=61, but demo/noise has 60 classes"),
    (None, ["method=mta", "views.num_views=4"], "method=mta needs 5 views or more, got views.num_views=4"),
    (None, ["method=tps", "tune=prompt", "steps=1", "lr=1.0"], "method=tps needs tune=prototypes, got prompt"),
])  # fmt: skip
def test_what_does_not_fit_is_said_in_one_sentence(roots, monkeypatch, capsys, code, words, message):
    monkeypatch.chdir(roots)
    if code is not None:
        Path("mine.py").write_text(code)
    chosen = [*QUICK, "device=cpu", "limit=1", "method=mine.py:Mine", *words]
    assert run.main(["--config", ZERO_SHOT, *chosen]) in (1, 2)
    errors = capsys.readouterr().err
    assert re.search(message, errors, re.DOTALL), errors
    assert "Traceback" not in errors and not list(roots.glob("output/*/summary.json"))
