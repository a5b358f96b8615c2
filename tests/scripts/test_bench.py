"""The benchmarks: real commands with the demo's models, what they write, and what a wrong fast path makes them say."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from classification import policy
from clipscore.config.load import REPOSITORY
from scripts.bench import __main__ as bench
from scripts.bench.__main__ import differences
from scripts.bench.captioning import CaptioningBench
from scripts.bench.floor import Floor
from scripts.bench.timing import merge, peak_memory
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


def test_both_forms_of_classification_answer_alike(classification: tuple[str, Path]) -> None:
    printed, file = classification
    cases = json.loads(file.read_text())["cases"]
    kinds = ["prompt, 12", "prompt, 40", "encoder, 12", "cached, 12", "cached, 40"]
    assert [case["case"] for case in cases] == [f"{kind} classes" for kind in kinds]
    assert list(cases[0]["agreement"]) == ["top-1", "views", "candidates", "logits"]
    assert not any(differences(case["agreement"]) for case in cases)
    assert printed == run("table", file) and printed.count("| yes |") == 4
    whole, estimated, *_ = cases  # the plain form of many classes is estimated from a few, and says so
    assert (whole["plain_estimated"], estimated["plain_estimated"]) == (False, True)
    assert estimated["agreement"] == {} and printed.count("| not compared |") == 1
    few, all_of_them = whole["plain"]["stages"], estimated["plain"]["stages"]
    assert all_of_them["text"] > 1.5 * few["text"]  # of 3 classes, times 40/3; the other case has 12


def test_the_file_holds_everything_that_was_measured(classification: tuple[str, Path]) -> None:
    result = json.loads(classification[1].read_text())
    assert result["machine"]["threads"] == torch.get_num_threads() and result["machine"]["torch"] == torch.__version__
    assert (result["size"], result["precision"]) == ("demo", "auto")
    for case in result["cases"]:
        assert case["ratio"] == pytest.approx(case["plain"]["median"] / case["fast"]["median"])  # of one image
        for which in ("plain", "fast"):
            stages, seconds = case[which]["stages"], case[which]["median"]
            assert {"policy", "reward", "update", "reset"} <= stages.keys()
            assert ("text" in stages) == case["case"].startswith(("prompt", "cached"))
            assert sum(stages.values()) == pytest.approx(seconds, rel=0.05)
        floor = case["floor"]
        assert floor["times"] == pytest.approx(case["fast"]["median"] / sum(floor["stages"].values()))
        assert floor["times"] > 1 and floor["seconds"] > floor["flops"] / floor["flops_per_second"]
        assert floor["stages"].keys() <= case["fast"]["stages"].keys()
    lines = run("table", classification[1]).splitlines()
    assert lines[2].startswith("| classification: prompt, 12 classes (demo) |")
    assert f"| about {result['cases'][1]['ratio']:.2f} |" in lines[3] and lines[-3].endswith("% |")  # the rest


def test_the_readme_has_the_table_of_the_stored_files() -> None:
    files = sorted((REPOSITORY / "assets" / "bench").glob("*.json"))
    assert len(files) == 3 and run("table", *files).strip() in (REPOSITORY / "scripts/README.md").read_text()


@pytest.mark.parametrize(
    ("task", "options", "num_cases"),
    [("retrieval", ["--gallery", "50", "--steps", "2"], 2), ("captioning", ["--candidates", "4", "--tokens", "5"], 1)],
)
def test_both_forms_of_the_other_tasks_answer_alike(task: str, options: list, num_cases: int, tmp_path: Path) -> None:
    cases = measure([task, *TINY, *options], tmp_path)
    assert len(cases) == num_cases
    for case in cases:
        assert case["agreement"] and not differences(case["agreement"])
        assert case["floor"]["stages"]["update"] > 0  # AdamW


def test_the_plain_form_of_captioning_runs_the_mapper_as_often_as_the_official_code() -> None:
    """Once before the beam search, and on K copies for the loss."""
    captioning = CaptioningBench(bench.parse_options("captioning", [*TINY, "--candidates", "4", "--tokens", "3"]))
    rows: list[int] = []
    captioning.models.mapper.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    captioning.form("", "plain", alone=True).run(captioning.sample("", 1), 2)
    assert rows == [1, 4] * 2


def test_a_wrong_fast_path_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """The start's class features at every step: as if the context had never moved."""
    start = policy.PromptPolicy.class_features
    kept: dict[int, torch.Tensor] = {}

    def frozen(self: policy.PromptPolicy, at_start: bool = False) -> torch.Tensor:
        features = start(self, at_start)
        return features - features.detach() + kept.setdefault(id(self), features.detach().clone())

    monkeypatch.setattr(policy.PromptPolicy, "class_features", frozen)
    measure(["classification", *TINY, "--tune", "prompt", "--views", "12"], tmp_path)
    assert "logits DIFFER by" in capsys.readouterr().out


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

    def sample(self, case: str, number: int) -> None: ...


def test_peak_memory_is_that_of_another_process() -> None:
    ballast = torch.zeros(400 * 2**18)  # 400 MiB in this process
    small, large = (peak_memory(Ballast, Namespace(steps=3), "", which) for which in ("plain", "fast"))
    assert 0.25 < large - small < 0.36 and len(ballast)


def test_the_floor_counts_products_attention_and_what_passes_memory() -> None:
    x, stages = torch.randn(2, 4, 50, 16), iter("abcd")
    floor = Floor(1.0, 1e30, lambda: next(stages)).of(lambda: F.scaled_dot_product_attention(x, x, x) @ x.mT)
    assert floor.flops == floor.seconds["a"] + floor.seconds["b"] + floor.seconds["c"] == 3 * 2 * x.numel() * 50
    weight = torch.nn.Parameter(torch.randn(30, 20))
    optimizer = torch.optim.AdamW([weight], fused=True)
    weight.sum().backward()
    reading = Floor(1e30, 1.0).of(lambda: (optimizer.step(), weight @ weight.T, weight + 1)[0])
    assert reading.seconds[""] == pytest.approx(
        4 * 7 * 600 + 4 * (2 * 600 + 900), abs=10
    )  # AdamW: seven passes; a sum: none


def test_one_sample_that_differs_is_enough_and_half_precision_may_differ_more() -> None:
    found = {"top-1": True, "logits": 0.05}
    told = [differences(found, *how) for how in [("auto", "cpu"), ("fp32", "cuda"), ("auto", "cuda")]]
    assert told == [["logits DIFFER by 0.05"]] * 2 + [[]]
    agreement = merge(merge({}, {"top-1": False, "logits": 1e-5}), {"top-1": True, "logits": float("nan")})
    assert differences(agreement) == ["top-1 DIFFER", "logits DIFFER by nan"]


def test_an_unknown_task_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["classify"]) == 2
    assert "unknown task 'classify'; valid: classification, retrieval, captioning" in capsys.readouterr().err
