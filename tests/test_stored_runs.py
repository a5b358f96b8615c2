"""Run folders written by an earlier version: today's code knows them, goes on with them, and reads them.

`python -m scripts.run --config CONFIG WORDS` made them, with COMMON, on the images beside them.
"""

import json
import shutil
from pathlib import Path

import pytest
import transformers

from clipscore.config.fields import RunConfig
from clipscore.config.load import REPOSITORY, load_config
from scripts import run
from scripts.runs.compare_configs import config_differences, identity
from scripts.runs.folder import run_path
from scripts.runs.samples import open_run
from scripts.tables.__main__ import main as tables

STORED = Path(__file__).parent / "stored_runs/output"
DATA = STORED.parent / "data"
COMMON = ["device=cpu", "num_workers=0", "num_threads=1", "policy=demo/policy.pt", "reward.models=demo/reward.pt"]
VIEWS = ["views.num_views=8", "views.select_fraction=0.5", "views.crop_scale=[0.5,1.0]", "dataset=demo/sketch"]
SCENES = ["dataset=demo_scenes/noise", "cache=false", "num_candidates=4", "lr=1e-4", "direction=text_to_image"]
CAPTIONER = ["dataset=demo_scenes/noise", "llm=demo/opt", "checkpoint=demo/clipcap", "prefix_length=7", "lr=3e-4"]
CAPTIONER += ["mapper_layers=2", "decoding.max_new_tokens=8", "num_candidates=3", "steps=2"]
CAPTIONER += ["metrics=[clipscore]", "metric_model=demo/reward.pt"]
MOMENTUM = ["momentum={update_interval: 2}", "name=norm_momentum"]
RUNS = {  # folder -> config file, words, how many records it has, and how many it is to have
    "rlcf_prompt__demo-sketch__seed0": ("classification/rlcf_prompt", VIEWS, 2, 4),
    "norm_momentum__demo-sketch__seed0": ("classification/rlcf_norm", [*VIEWS, *MOMENTUM], 3, 5),
    "rlcf_coco__demo_scenes-noise-text_to_image__seed42": ("retrieval/rlcf_coco", SCENES, 3, 4),
    "clipcap_c2f__demo_scenes-noise__seed0": ("captioning/clipcap_c2f", CAPTIONER, 2, 3),
}


def words_of(name: str, output: Path) -> list[str]:
    """The command line that takes a stored folder up."""
    config, words, _, limit = RUNS[name]
    roots = [f"data_root={DATA}", f"output_root={output}", f"pretrained_root={REPOSITORY / 'pretrained'}"]
    return ["--config", f"configs/{config}.yaml", *COMMON, *words, *roots, "order=listed", f"limit={limit}"]


def make_config(name: str, output: Path) -> RunConfig:
    _, file, *words = words_of(name, output)
    return load_config(file, words, run.config_class)


@pytest.mark.parametrize("name", RUNS)
def test_a_stored_run_has_the_same_identity(name, tmp_path):
    stored = open_run(STORED / name)
    recorded = json.loads((STORED / name / "env.json").read_text())["identity"]
    config = make_config(name, tmp_path)
    assert run_path(config).name == name
    assert identity(config, stored.fingerprint) == recorded
    assert config_differences(open_run(STORED / name).config, config.model_dump(mode="json"), type(config)) == []
    assert identity(config.model_copy(update={"steps": 9}), stored.fingerprint) != recorded
    shuffled = config.model_copy(update={"order": "shuffled"})  # moves a result where samples build on each other
    assert (identity(shuffled, stored.fingerprint) == recorded) == ("momentum" not in name)
    found = config_differences(open_run(STORED / name).config, shuffled.model_dump(mode="json"), type(config))
    assert found == ["order is 'listed' there and 'shuffled' here"] * ("momentum" in name)


@pytest.mark.parametrize("name", RUNS)
def test_a_stored_run_goes_on(name, tmp_path, capsys, monkeypatch):
    if "clipcap" in name and transformers.__version__ < "5":
        pytest.skip("this transformers describes the language model otherwise than the one that made the run")
    num_threads: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", num_threads.append)
    path, (_, _, num_before, num_after) = tmp_path / name, RUNS[name]
    shutil.copytree(STORED / name, path)
    written = {file.name: file.read_bytes() for file in path.glob("rows*")}
    assert run.main(words_of(name, tmp_path)) == 0, capsys.readouterr().err
    assert "has results of other code than today's" in capsys.readouterr().err
    for file, content in written.items():
        assert (path / file).read_bytes().startswith(content)
    assert num_threads == [1]
    found = open_run(path)
    rows = list(found.records())
    assert len(written) == 1 and len({row["id"] for row in rows}) == len(rows) == num_after > num_before
    keys = [row.keys() for row in rows]
    assert all(key == keys[0] for key in keys), "old and new records have the same keys"
    assert found.summary is not None and found.summary["num_samples"] == num_after
    earlier = open_run(STORED / name)
    assert found.fingerprint == earlier.fingerprint and found.environments[0] == earlier.environments[0]
    assert found.summary.keys() >= (earlier.summary or {}).keys()
    assert tables([str(path), str(STORED / name)]) == 0
    assert name in capsys.readouterr().out
