"""Whole captioning runs on the demo's scenes, with a tiny captioner: from YAML to summary, resumed, bad input."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from transformers import OPTConfig, OPTForCausalLM

from captioning import metrics
from captioning.build import language_model_digest, load_language_model, load_tokenizer
from captioning.mapper import build_mapper
from clipscore.config.load import REPOSITORY
from clipscore.data.caption_layouts import canonical_name
from clipscore.data.samples import sample_seed
from clipscore.metrics import coco as coco_metrics
from scripts import run
from scripts.demo.make_data import make_data
from scripts.runs import progress

CLIP_WIDTH, LM_WIDTH, PREFIX = 128, 32, 3  # of the demo's CLIPs; of the tiny captioner
MODELS = ["policy=demo/policy.pt", "llm=tiny/opt", "checkpoint=tiny/mapper", "metric_model=demo/reward.pt"]
SIZES = [f"prefix_length={PREFIX}", "mapper_layers=1", "decoding.max_new_tokens=5"]
QUICK = [*MODELS, *SIZES, "device=cpu", "num_workers=0", "metrics=[clipscore]"]
REWARD = ["reward.models=demo/reward.pt", "num_candidates=3", "steps=2"]
ENSEMBLE = ["reward.models=[{name: demo/reward.pt, weight: 10}, {name: demo/policy.pt, weight: 5}]", *REWARD[1:]]
SCENES = "demo_scenes/noise"
CONFIGS, SCRIPTS = (  # the others train a mapper
    [path for start in starts for path in sorted((REPOSITORY / folder / "captioning").glob(f"{start}*{suffix}"))]
    for folder, starts, suffix in [
        ("configs", ("capdec", "clipcap", "eval_"), ".yaml"),
        ("scripts", ("tta_", "eval_"), ".sh"),
    ]
)

needs_java = pytest.mark.skipif(not coco_metrics.has_java(), reason="needs Java")


def save_opt(folder: Path, width: int = LM_WIDTH, writes: bool = True) -> None:
    """A tiny OPT with random weights; one that does not write ends every caption at once."""
    torch.manual_seed(0)
    shutil.copytree(REPOSITORY / "tests/golden/opt_tokenizer", folder)
    tokenizer = load_tokenizer(folder)
    sizes = {"hidden_size": width, "word_embed_proj_dim": width, "ffn_dim": width, "max_position_embeddings": 64}
    lm = OPTForCausalLM(
        OPTConfig(
            **sizes, vocab_size=len(tokenizer), num_hidden_layers=1, num_attention_heads=2, init_std=1.0,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    if not writes:
        newline = tokenizer("\n", add_special_tokens=False).input_ids[0]
        lm.model.decoder.final_layer_norm.bias.data = 100 * lm.get_input_embeddings().weight.data[newline]
    lm.save_pretrained(folder)


def save_mapper(folder: Path, clip_width: int = CLIP_WIDTH, lm_width: int = LM_WIDTH, prefix: int = PREFIX) -> None:
    """A random mapper in the form of the released checkpoints, without a language model."""
    torch.manual_seed(0)
    state = build_mapper("transformer", clip_width, lm_width, prefix, num_layers=1).state_dict()
    folder.mkdir(parents=True)
    torch.save({"state_dict": {f"clip_project.{k}": v for k, v in state.items()}}, folder / "ckpt-latest.pt")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """The demo's CLIPs, and tiny captioners that fit and that do not."""
    root = tmp_path_factory.mktemp("pretrained")
    (root / "demo").symlink_to(REPOSITORY / "pretrained/demo")
    save_opt(root / "tiny/opt")
    save_opt(root / "tiny/silent", writes=False)
    save_opt(root / "tiny/wide", width=2 * LM_WIDTH)
    save_opt(root / "tiny/no_newline")
    vocabulary = root / "tiny/no_newline/vocab.json"
    vocabulary.write_text(vocabulary.read_text().replace('"\\u010a"', '"never"').replace('"Ċ"', '"never"'))
    save_mapper(root / "tiny/mapper")
    save_mapper(root / "tiny/mapper_other_clip", clip_width=CLIP_WIDTH // 2)
    save_mapper(root / "tiny/mapper_other_prefix", prefix=PREFIX + 1)
    return root


@pytest.fixture(scope="module")
def demo_data(tmp_path_factory) -> Path:
    """The demo's test sets."""
    root = tmp_path_factory.mktemp("data")
    make_data(root)
    return root


@pytest.fixture
def roots(tmp_path, demo_data, weights, monkeypatch) -> Path:
    """Environment with demo data and weights; results go to tmp_path."""
    monkeypatch.setenv("RLCF_DATA", str(demo_data))
    monkeypatch.setenv("RLCF_PRETRAINED", str(weights))
    monkeypatch.setenv("RLCF_OUTPUT", str(tmp_path / "output"))
    return tmp_path


def start(name: str, *words: str) -> int:
    return run.main(["--config", f"configs/captioning/{name}.yaml", *QUICK, *words])


def folder_of(roots: Path, name: str, dataset: str = SCENES) -> Path:
    return roots / "output" / f"{name}__{dataset.replace('/', '-')}__seed0"


def results(roots: Path, name: str, dataset: str = SCENES) -> tuple[dict, list[dict]]:
    """Summary and records of a run, without times."""
    folder = folder_of(roots, name, dataset)
    summary = json.loads((folder / "summary.json").read_text())
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    strip = lambda d: {k: v for k, v in d.items() if not k.startswith("seconds") and k != "samples_per_second"}  # noqa: E731
    return strip(summary), [strip(row) for row in rows]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_runs_through(roots, capsys, path):
    reward = yaml.safe_load(path.read_text()).get("reward")
    words = (REWARD if len(reward["models"]) == 1 else ENSEMBLE) if reward else []
    assert start(path.stem, f"dataset={SCENES}", "limit=2", *words) == 0
    summary, rows = results(roots, path.stem)
    assert summary["num_samples"] == len(rows) == 2 and 0 <= summary["clipscore"] <= 250
    assert SCENES in capsys.readouterr().out
    num_steps = 2 if reward else 0
    for row in rows:
        assert len(row["loss"]) == len(row["captions"]) == len(row["rewards"]) == num_steps
        assert all(len(step) == 3 for step in [*row["captions"], *row["rewards"]])
        assert row["caption"] == row["caption"].lower() != "" and len(row["references"]) >= 2
        assert "caption_before" not in row
    assert ("reward_gain" in summary) == bool(reward)


def test_every_script_names_a_config_and_its_data_sets():
    named = []
    for script in SCRIPTS:
        lines = re.findall(r'^benchmark configs/captioning/(\w+)\.yaml (.+) -- "\$@"$', script.read_text(), re.M)
        assert lines and f"bash scripts/captioning/{script.name} GPU" in script.read_text()
        for name, datasets in lines:
            assert all(canonical_name(dataset) == dataset for dataset in datasets.split())
            named.append(name)
    assert {path.stem for path in CONFIGS} == set(named)


@pytest.mark.parametrize(("script", "num_runs", "words"), [("tta_clipcap_c2n", 1, REWARD), ("eval_c2n", 2, [])])
def test_a_script(roots, script, num_runs, words):
    command = ["bash", str(REPOSITORY / f"scripts/captioning/{script}.sh")]
    environment = {**os.environ, "RLCF_USE_ACTIVE_ENV": "1"}
    bash = lambda *more: subprocess.run(  # noqa: E731
        [*command, *more], env=environment, capture_output=True, text=True, timeout=120, cwd="/"
    )
    shown = bash("--help").stdout
    assert "nocaps/in-domain" in shown and "num_candidates: int" in shown and "metrics: [str]" in shown
    done = bash("cpu", *QUICK, f"dataset={SCENES}", "limit=1", *words)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["dataset", SCENES] * num_runs


NUCLEUS = ["sampling=nucleus", "lr=1e-3", "limit=12"]
MOMENTUM = ["momentum.update_interval=16", "lr=1e-3", "limit=72", "num_candidates=2", "steps=1"]


@pytest.mark.parametrize(("words", "num_rows"), [(NUCLEUS, 5), (MOMENTUM, 66)], ids=["nucleus", "momentum"])
def test_a_killed_run_goes_on_to_the_same_bytes(roots, monkeypatch, words, num_rows):
    words = [f"dataset={SCENES}", *REWARD, "num_threads=1", *words]
    command = [sys.executable, "-m", "scripts.run", "--config", "configs/captioning/capdec_c2f.yaml", *QUICK, *words]
    rows = folder_of(roots, "capdec_c2f") / "rows.jsonl"
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE) as child:
        deadline = time.monotonic() + 120
        while not rows.is_file() or rows.read_bytes().count(b"\n") < num_rows:  # the momentum is saved after 64
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(child.pid, signal.SIGKILL)
    assert not (rows.parent / "summary.json").exists()
    assert start("capdec_c2f", *words) == 0
    resumed = results(roots, "capdec_c2f")
    monkeypatch.setenv("RLCF_OUTPUT", str(roots / "whole/output"))
    assert start("capdec_c2f", *words) == 0
    assert resumed == results(roots / "whole", "capdec_c2f")


def test_sampled_captions_depend_on_seed_data_set_and_image(roots):
    assert len({sample_seed(*key) for key in [(0, "a", "b"), (1, "a", "b"), (0, "b", "b"), (0, "a", "c")]}) == 4
    words = [f"dataset={SCENES}", "limit=3", *REWARD, "sampling=nucleus"]
    assert start("capdec_c2f", *words) == start("capdec_c2f", *words, "seed=1") == 0
    first = [row["captions"] for row in results(roots, "capdec_c2f")[1]]
    other = (roots / "output" / f"capdec_c2f__{SCENES.replace('/', '-')}__seed1/rows.jsonl").read_text().splitlines()
    assert first != [json.loads(row)["captions"] for row in other]


def test_the_caption_before_is_that_of_the_plain_captioner(roots):
    data = [f"dataset={SCENES}", "limit=6"]
    assert start("eval_capdec", *data) == 0
    momentum = ["momentum.update_interval=1", "momentum.decay=0.5"]
    assert start("capdec_c2f", *data, *REWARD, *momentum, "lr=0.1", "caption_before=true") == 0
    plain, (summary, rows) = results(roots, "eval_capdec"), results(roots, "capdec_c2f")
    assert [row["caption_before"] for row in rows] == [row["caption"] for row in plain[1]]
    assert [row["caption_before"] for row in rows] != [row["caption"] for row in rows]
    assert summary["clipscore_before"] == plain[0]["clipscore"] != summary["clipscore"]


def test_the_running_metric_needs_no_references(roots, monkeypatch, capsys):
    monkeypatch.setattr(progress, "LOG_INTERVAL_S", 0.0)
    monkeypatch.setattr(progress, "METRIC_SHARE", 0)
    assert start("eval_capdec", f"dataset={SCENES}", "limit=1") == 0
    assert f"{SCENES}: 1 of 1 samples, non_empty 100.00, " in capsys.readouterr().err
    assert start("capdec_c2f", f"dataset={SCENES}", "limit=1", *REWARD) == 0
    assert f"{SCENES}: 1 of 1 samples, reward_gain " in capsys.readouterr().err


@needs_java
def test_all_metrics_of_the_captions(roots, capsys):
    assert start("eval_capdec", f"dataset={SCENES}", "limit=4", "metrics=null") == 0
    summary, _ = results(roots, "eval_capdec")
    columns = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider", "clipscore", "refclipscore"]
    assert [key for key in summary if key in columns] == columns and "refclipscore" in capsys.readouterr().out


def test_without_java(roots, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(roots))
    assert start("eval_capdec", f"dataset={SCENES}", "limit=2", "metrics=null") == 2
    errors = capsys.readouterr().err
    assert "no java command runs: install it with `apt-get install default-jre-headless`" in errors
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
    assert (folder / "rows.jsonl").read_bytes() == rows and "refclipscore" in results(roots, "eval_capdec")[0]


def test_empty_captions(roots):
    assert start("capdec_c2f", f"dataset={SCENES}", "limit=2", *REWARD, "llm=tiny/silent", "lr=1e-6") == 0
    summary, rows = results(roots, "capdec_c2f")
    assert [row["caption"] for row in rows] == ["", ""] and summary["non_empty"] == 0


def test_weights_are_part_of_the_identity(roots, weights, capsys):
    words = ["eval_capdec", f"dataset={SCENES}", "limit=1"]
    assert start(*words) == 0
    assert start(*words, "llm=tiny/silent") == 2
    assert "llm is 'tiny/opt' there and 'tiny/silent' here" in capsys.readouterr().err
    environment = json.loads((folder_of(roots, "eval_capdec") / "env.json").read_text())
    lm, tokenizer = load_language_model("tiny/opt", weights)
    digest = environment["fingerprint"]["llm"]
    assert digest == language_model_digest(lm, tokenizer)
    tokenizer.add_tokens(["zebra"])
    assert digest != language_model_digest(lm, tokenizer)
    lm.config.activation_function = "gelu"
    assert digest != language_model_digest(lm, load_language_model("tiny/opt", weights)[1])
    assert set(environment["fingerprint"]) == {"data", "precision", "policy:demo/policy.pt", "checkpoint", "llm"}


@pytest.fixture
def own_data(roots, demo_data) -> list[str]:
    """Overrides for three images of one's own."""
    (roots / "own/pictures").mkdir(parents=True)
    for number in range(3):
        name = f"{number:05d}.png"
        (roots / "own/pictures" / name).write_bytes((demo_data / SCENES / "images" / name).read_bytes())
    write(roots, [{"image": f"{n:05d}.png", "caption": [f"a scene number {n}.", "Another!"]} for n in range(3)])
    files = {"annotations": "mine.json", "images": "pictures"}
    return ["dataset=mine", *(f"dataset_files.{key}={roots}/own/{name}" for key, name in files.items())]


def write(roots: Path, entries: object) -> None:
    (roots / "own/mine.json").write_text(json.dumps(entries))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["checkpoint=tiny/mapper_other_clip"], "the mapper reads CLIP features of width 64, but the policy's"),
        (["checkpoint=tiny/mapper_other_prefix"], "the mapper has prefix_length=4, not 3; set it so"),
        (["llm=tiny/wide"], "makes embeddings of width 32, but the language model reads width 64"),
        (["llm=tiny/no_newline"], "captions end with a newline, which must be one token"),
        (["checkpoint=nowhere"], "checkpoint=nowhere not found; tried"),
        (["llm=demo/not/there"], "llm=demo/not/there: no config.json in any of"),
        (["llm=tiny/missing"], "llm=tiny/missing: no config.json in any of"),
        (["metrics=[blue]"], "unknown caption metric 'blue'; there are bleu, meteor"),
        (["metrics=[]"], "no caption metric is named"),
        (["metric_model=demo/nothing.pt"], "metric_model: no CLIP called 'demo/nothing.pt'"),
        (["decoding.max_new_tokens=61"], "are 65 positions, but the language model has 64"),
        (["dataset_files.annotations=nowhere.json"], "dataset_files.annotations=nowhere.json not found; tried"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(roots, own_data, capsys, words, message):
    assert start("eval_capdec", *own_data, *words) == 2
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors
    assert not list(roots.glob("output/*/rows.jsonl"))


@pytest.mark.parametrize(
    ("captions", "message"), [([], "has no captions"), (["?!"], "1 of 3 candidates have no reference: 00001.png")]
)
def test_missing_references_stop_the_run_before_it_starts(roots, own_data, capsys, captions, message):
    write(roots, [{"image": f"{n:05d}.png", "caption": captions if n == 1 else ["a scene"]} for n in range(3)])
    assert start("eval_capdec", *own_data, "metrics=[refclipscore]") == 2
    assert message in capsys.readouterr().err and not list(roots.glob("output/*"))


def test_an_unreadable_image_stops_the_run_or_is_left_out(roots, own_data, capsys):
    (roots / "own/pictures/00001.png").write_bytes(b"")
    assert start("eval_capdec", *own_data) == 1
    assert "00001.png: the file is empty" in capsys.readouterr().err
    assert start("eval_capdec", *own_data, "on_error=skip") == 0
    summary, rows = results(roots, "eval_capdec", "mine")
    assert (summary["num_samples"], summary["errors"]) == (2, ["00001.png"]) and len(rows) == 3
