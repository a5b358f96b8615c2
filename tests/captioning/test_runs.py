"""Whole captioning runs on the demo's scenes, with the demo's captioner: from YAML to summary, resumed, bad input."""

import json
from pathlib import Path

import pytest
import torch

from captioning import metrics
from captioning.build import language_model_digest, load_language_model
from captioning.mapper import build_mapper
from clipscore.config.load import REPOSITORY
from clipscore.metrics.captions import CaptionScores
from scripts import run
from scripts.runs import loop
from tests import whole_runs
from tests.whole_runs import CAPTIONER, CLIPSCORE, configs, demo_models, results, write_own_data

QUICK = [*CAPTIONER, *CLIPSCORE, "policy=demo/policy.pt", "decoding.max_new_tokens=5", "device=cpu", "num_workers=0"]
REWARD = [*whole_runs.REWARD, "num_candidates=3", "steps=2"]
SCENES = "demo_scenes/noise"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """The demo's, a language model that ends every caption at once, and a mapper for another CLIP."""
    root = tmp_path_factory.mktemp("pretrained")
    (root / "demo").symlink_to(REPOSITORY / "pretrained/demo")
    lm, tokenizer = load_language_model("demo/opt", root)
    newline = tokenizer("\n", add_special_tokens=False).input_ids[0]
    lm.model.decoder.final_layer_norm.bias.data = 100 * lm.get_input_embeddings().weight.data[newline]
    for part in (lm, tokenizer):
        part.save_pretrained(root / "tiny/silent")
    state = build_mapper("transformer", 64, lm.config.hidden_size, 7, num_layers=2).state_dict()
    torch.save({"state_dict": {f"clip_project.{name}": v for name, v in state.items()}}, root / "tiny/other_clip.pt")
    return root


@pytest.fixture
def roots(roots, weights, monkeypatch) -> Path:
    """Environment with these weights."""
    monkeypatch.setenv("RLCF_PRETRAINED", str(weights))
    return roots


def start(name: str, *words: str) -> int:
    return run.main(["--config", f"configs/captioning/{name}.yaml", *QUICK, *words])


def folder_of(roots: Path, name: str, dataset: str = SCENES, seed: int = 0) -> Path:
    return roots / "output" / f"{name}__{dataset.replace('/', '-')}__seed{seed}"


@pytest.mark.parametrize("name", configs("captioning"))
def test_every_config_runs_through(roots, capsys, name):
    words, asks = demo_models("captioning", name), name == "best_of_k"
    reward = bool(words)
    words += ["num_candidates=3"] * reward + ["steps=2"] * (reward and not asks)
    assert start(name, f"dataset={SCENES}", "limit=2", *words) == 0
    summary, rows = results(folder_of(roots, name))
    assert summary["num_samples"] == len(rows) == 2 and 0 <= summary["clipscore"] <= 250
    assert SCENES in capsys.readouterr().out
    num_losses, num_rounds = (0, 1) if asks else (2, 2) if reward else (0, 0)
    for row in rows:
        assert len(row["loss"]) == num_losses and len(row["captions"]) == len(row["rewards"]) == num_rounds
        assert all(len(step) == 3 for step in [*row["captions"], *row["rewards"]])
        assert row["caption"] == row["caption"].lower() != "" and len(row["references"]) >= 2
        assert "caption_before" not in row
    assert ("reward_gain" in summary) == (num_losses > 0)


def test_sampled_captions_depend_on_seed_data_set_and_image(roots):
    words = [f"dataset={SCENES}", "limit=3", *REWARD, "sampling=nucleus"]
    assert start("capdec_c2f", *words) == start("capdec_c2f", *words, "seed=1") == 0
    first, other = (results(folder_of(roots, "capdec_c2f", seed=seed))[1] for seed in (0, 1))
    assert [row["captions"] for row in first] != [row["captions"] for row in other]


def test_the_caption_before_is_that_of_the_plain_captioner(roots):
    data = [f"dataset={SCENES}", "limit=6"]
    assert start("eval_capdec", *data) == 0
    momentum = ["momentum.update_interval=1", "momentum.decay=0.5"]
    assert start("capdec_c2f", *data, *REWARD, *momentum, "lr=0.1", "caption_before=true") == 0
    plain, (summary, rows) = results(folder_of(roots, "eval_capdec")), results(folder_of(roots, "capdec_c2f"))
    assert [row["caption_before"] for row in rows] == [row["caption"] for row in plain[1]]
    assert [row["caption_before"] for row in rows] != [row["caption"] for row in rows]
    assert summary["clipscore_before"] == plain[0]["clipscore"] != summary["clipscore"]


def test_the_running_metric_needs_no_references(roots, monkeypatch, capsys):
    monkeypatch.setattr(loop, "LOG_INTERVAL_S", 0.0)
    monkeypatch.setattr(loop, "METRIC_SHARE", 0)
    assert start("eval_capdec", f"dataset={SCENES}", "limit=1") == 0
    assert f"{SCENES}: 1 of 1 samples, non_empty 100.00, " in capsys.readouterr().err
    assert start("capdec_c2f", f"dataset={SCENES}", "limit=1", *REWARD) == 0
    assert f"{SCENES}: 1 of 1 samples, reward_gain " in capsys.readouterr().err


def test_without_java(roots, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(roots))
    assert start("eval_capdec", f"dataset={SCENES}", "limit=2", "metrics=null") == 2
    errors = capsys.readouterr().err
    assert "bleu, meteor, rouge_l, cider need Java and no java command runs: apt-get install default-jre" in errors
    assert not folder_of(roots, "eval_capdec").exists()
    assert start("eval_capdec", f"dataset={SCENES}", "limit=2", "metrics=[clipscore]") == 0


def test_a_metric_that_fails_costs_no_caption(roots, monkeypatch, capsys):
    def fail(*_):
        raise KeyError("boom")

    words = ["eval_capdec", f"dataset={SCENES}", "limit=2"]
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "score_captions", fail)
        assert start(*words) == 2
    errors = capsys.readouterr().err
    assert "the metrics failed (KeyError: 'boom'), but all captions are in the run folder; the same command" in errors
    folder = folder_of(roots, "eval_capdec")
    rows = (folder / "rows.jsonl").read_bytes()
    assert rows.count(b"\n") == 2 and not (folder / "summary.json").exists()
    assert start(*words, "metrics=[refclipscore]") == 0
    assert (folder / "rows.jsonl").read_bytes() == rows and "refclipscore" in results(folder)[0]


def test_empty_captions(roots):
    assert start("capdec_c2f", f"dataset={SCENES}", "limit=2", *REWARD, "llm=tiny/silent", "lr=1e-6") == 0
    summary, rows = results(folder_of(roots, "capdec_c2f"))
    assert [row["caption"] for row in rows] == ["", ""] and summary["non_empty"] == 0


def test_weights_are_part_of_the_identity(roots, weights, capsys):
    words = ["eval_capdec", f"dataset={SCENES}", "limit=1"]
    assert start(*words) == 0
    assert start(*words, "llm=tiny/silent") == 2
    assert "llm is 'demo/opt' there and 'tiny/silent' here" in capsys.readouterr().err
    environment = json.loads((folder_of(roots, "eval_capdec") / "env.json").read_text())
    lm, tokenizer = load_language_model("demo/opt", weights)
    digest = environment["fingerprint"]["llm"]
    assert digest == language_model_digest(lm, tokenizer)
    tokenizer.add_tokens(["zebra"])
    assert digest != language_model_digest(lm, tokenizer)
    lm.config.activation_function = "gelu"
    assert digest != language_model_digest(lm, load_language_model("demo/opt", weights)[1])
    assert set(environment["fingerprint"]) == {"data", "precision", "policy:demo/policy.pt", "checkpoint", "llm"}


GOOD = ["a scene.", "Another!"]


@pytest.mark.parametrize(("captions", "words", "message"), [
    (GOOD, ["checkpoint=tiny/other_clip.pt"], "the mapper reads CLIP features of width 64, but the policy's"),
    (GOOD, ["metric_model=demo/nothing.pt"], "metric_model: no CLIP called 'demo/nothing.pt'"),
    (GOOD, ["decoding.max_new_tokens=57"], "are 65 positions, but the language model has 64"),
    ([], ["metrics=[refclipscore]"], "has no captions"),
    (["?!"], ["metrics=[refclipscore]"], "1 of 3 candidates have no reference (00001.png)"),
])  # fmt: skip
def test_bad_input_is_one_sentence_and_nothing_is_written(roots, demo_data, capsys, captions, words, message):
    own_data = write_own_data(roots / "own", demo_data / SCENES, [GOOD, captions, GOOD])
    assert start("eval_capdec", *own_data, *words) == 2
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors
    assert not list(roots.glob("output/*/rows.jsonl" if captions == GOOD else "output/*"))


ROWS = [
    {"id": "a", "caption": "a dog", "references": ["one dog"], "rewards": [[0.25, 0.75], [0.5, 1.0], [0.75, 1.0]]},
    {"id": "b", "caption": "", "references": ["two", "2"], "rewards": [[0.5, 0.5], [0.0, 0.0], [0.25, 0.25]]},
]


@pytest.mark.parametrize("num_steps", [1, 3])
def test_the_summary_is_exact_and_has_a_gain_where_there_are_steps(monkeypatch, caplog, num_steps):
    monkeypatch.setattr(metrics, "score_captions", lambda *_: CaptionScores({"cider": 10.00049}, {}, ["a note"]))
    rows = [{**row, "rewards": row["rewards"][:num_steps]} for row in ROWS]
    summary = metrics.summarize(rows, {}, ["cider"], None, "stop")
    assert summary == {"cider": 10.00049, "non_empty": 50} | ({"reward_gain": 6.25} if num_steps > 1 else {})
    assert "metrics of caption: a note" in caplog.text
    assert [metrics.reward_gain([row]) for row in ROWS] == [pytest.approx(37.5), -25]  # of all steps
