"""The benchmarks: real commands with the demo's models, what they write, and what a wrong fast path makes them say."""

import json
import logging
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from classification import policy
from clipscore.config.load import REPOSITORY
from scripts.bench import __main__ as bench
from scripts.bench.agreement import TOLERANCE, disagreements, merge
from scripts.bench.arithmetic import count_flops
from scripts.bench.captioning import CaptioningBench
from scripts.bench.memory import peak_memory
from tests.commands import python

TINY = ["--size", "demo", "--images", "1"]
CLASSIFICATION = ["classification", *TINY, "--views", "12", "--steps", "2", "--classes", "12", "40"]
CLASSIFICATION += ["--plain-classes", "12"]


def run(*words: object) -> str:
    done = python("scripts.bench", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def classification(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the command printed, and the file that it wrote."""
    file = tmp_path_factory.mktemp("bench") / "classification.json"
    return run(*CLASSIFICATION, "--json", file), file


def wrong(case: dict[str, Any]) -> list[str]:
    return disagreements(case["agreement"], TOLERANCE[None])


def test_both_forms_of_classification_answer_alike(classification: tuple[str, Path]) -> None:
    printed, file = classification
    cases = json.loads(file.read_text())["cases"]
    kinds = ["prompt, 12", "prompt, 40", "encoder, 12", "cached, 12", "cached, 40"]
    assert [case["case"] for case in cases] == [f"{kind} classes" for kind in kinds]
    assert list(cases[0]["agreement"]) == ["top-1", "views", "candidates", "logits"]
    assert not any(map(wrong, (cases[0], *cases[2:])))
    assert "views equal, candidates equal (at most 0.0e+00 apart), logits equal" in printed and "DIFFER" not in printed
    whole, estimated, *_ = cases  # the plain form of many classes is estimated from a few, and says so
    assert (whole["plain_estimated"], estimated["plain_estimated"]) == (False, True)
    assert estimated["agreement"] == {} and "(estimated), fast" in printed
    few, all_of_them = whole["plain"]["stages"], estimated["plain"]["stages"]
    assert all_of_them["text"] > 1.5 * few["text"]  # of 3 classes, times 40/3; the other case has 12


def test_the_file_holds_everything_that_was_measured(classification: tuple[str, Path]) -> None:
    result = json.loads(classification[1].read_text())
    assert result["machine"]["threads"] == torch.get_num_threads() and result["machine"]["torch"] == torch.__version__
    assert (result["size"], result["device"]) == ("demo", "cpu")
    for case in result["cases"]:
        assert case["ratio"] == pytest.approx(case["plain"]["median"] / case["fast"]["median"])  # of one image
        assert case["reading"].keys() == {"data", "views"}
        for which in ("plain", "fast"):
            stages, seconds = case[which]["stages"], case[which]["median"]
            assert {"policy", "reward", "update", "reset"} <= stages.keys()
            assert ("text" in stages) == case["case"].startswith(("prompt", "cached"))
            assert sum(stages.values()) == pytest.approx(seconds, rel=0.05)
        floor = case["floor"]
        assert floor["times"] == pytest.approx(case["fast"]["median"] * floor["flops_per_second"] / floor["flops"])
        assert floor["times"] > 1
    lines = run("table", classification[1]).splitlines()
    assert lines[2].startswith("| classification: prompt, 12 classes (demo) |") and lines[2].endswith("| yes |")
    assert f"| about {result['cases'][1]['ratio']:.2f} |" in lines[3] and lines[3].endswith("| not compared |")


def test_the_readme_has_the_table_of_the_stored_files() -> None:
    files = sorted((REPOSITORY / "assets" / "bench").glob("*.json"))
    assert len(files) == 3 and run("table", *files).strip() in (REPOSITORY / "scripts/README.md").read_text()


def test_answers_may_differ_more_in_half_precision() -> None:
    form: dict[str, Any] = {"median": 1.0, "stages": {"policy": 1.0}}
    case = {"task": "retrieval", "case": "x", "plain_estimated": False, "reading": {}, "plain": form, "fast": form}
    case |= {"ratio": 1.0, "agreement": {"top-1": True, "logits": 0.05}}
    for gpu, precision, said in [(None, "auto", "DIFFER"), ("H100", "auto", "yes"), ("H100", "fp32", "DIFFER")]:
        machine = {"gpu": gpu, "cpu": "a", "threads": 1, "torch": "2", "date": "2000-01-01"}
        assert said in bench.tables([{"size": "demo", "precision": precision, "machine": machine, "cases": [case]}])


@pytest.mark.parametrize(
    ("task", "options", "num_cases"),
    [("retrieval", ["--gallery", "50", "--steps", "2"], 2), ("captioning", ["--candidates", "4", "--tokens", "5"], 1)],
)
def test_both_forms_of_the_other_tasks_answer_alike(task: str, options: list, num_cases: int, tmp_path: Path) -> None:
    cases = measure([task, *TINY, *options, "--check"], tmp_path)
    assert len(cases) == num_cases
    for case in cases:
        assert case["agreement"] and not wrong(case) and "floor" not in case  # --check only compares


def test_the_plain_form_of_captioning_runs_the_mapper_as_often_as_the_official_code() -> None:
    """Once before the beam search, and on K copies for the loss."""
    captioning = CaptioningBench(bench.parse_options("captioning", [*TINY, "--candidates", "4", "--tokens", "3"]))
    rows: list[int] = []
    captioning.models.mapper.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    captioning.form("", "plain", alone=True).run(captioning.sample("", 1)[0], 2)
    assert rows == [1, 4] * 2


def test_a_wrong_fast_path_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """The start's class features at every step: as if the context had never moved."""
    start = policy.PromptPolicy.class_features
    kept: dict[int, torch.Tensor] = {}

    def frozen(self: policy.PromptPolicy, at_start: bool = False) -> torch.Tensor:
        features = start(self, at_start)
        return features - features.detach() + kept.setdefault(id(self), features.detach().clone())

    monkeypatch.setattr(policy.PromptPolicy, "class_features", frozen)
    with caplog.at_level(logging.INFO, "scripts"):
        (case,) = measure(["classification", *TINY, "--tune", "prompt", "--views", "12", "--check"], tmp_path)
    assert "logits" in wrong(case) and "logits DIFFER" in caplog.text


def measure(words: list[str], folder: Path) -> list[dict[str, Any]]:
    """What a command in this process wrote."""
    file = folder / "bench.json"
    assert bench.main([*words, "--json", str(file)]) == 0
    return json.loads(file.read_text())["cases"]


class Ballast:
    """A bench whose fast form needs 300 MiB more than its plain form."""

    device = torch.device("cpu")

    def __init__(self, options: Namespace) -> None: ...

    def form(self, case: str, which: str, alone: bool) -> Namespace:
        count = {"plain": 2**18, "fast": 75 * 2**20}[which]
        return Namespace(run=lambda sample, steps: torch.ones(count))

    def sample(self, case: str, number: int) -> tuple[None, dict[str, float]]:
        return None, {}


def test_peak_memory_is_that_of_another_process() -> None:
    ballast = torch.zeros(400 * 2**18)  # 400 MiB in this process
    small, large = (peak_memory(Ballast, Namespace(steps=3), "", which) for which in ("plain", "fast"))
    assert 0.25 < large - small < 0.36 and len(ballast)


def test_attention_is_counted_as_the_products_that_it_replaces() -> None:
    length, width = 50, 64
    attention = torch.nn.MultiheadAttention(width, 4, batch_first=True).eval()
    x = torch.randn(2, length, width)
    with torch.no_grad():
        counted = count_flops(lambda: attention(x, x, x, need_weights=False))
    assert counted == 2 * 2 * length * width * 4 * width + 2 * 2 * length * length * width * 2


def test_one_sample_that_differs_is_enough() -> None:
    agreement = merge(merge({}, {"top-1": False, "logits": 1e-5}), {"top-1": True, "logits": float("nan")})
    assert disagreements(agreement, 1e-3) == ["top-1", "logits"]


def test_an_unknown_task_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["classify"]) == 2
    assert "unknown task 'classify'; valid: classification, retrieval, captioning" in capsys.readouterr().err
