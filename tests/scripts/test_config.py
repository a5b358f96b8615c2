"""Where values come from, how they are read, and that all mistakes are told at once."""

from pathlib import Path

import pytest

from clipscore.config.explain import describe_fields, official_names
from clipscore.config.fields import RunConfig
from clipscore.config.load import REPOSITORY, ConfigError, load_config
from clipscore.config.yaml12 import parse_yaml
from scripts import run


def load(path: Path, *words: str, dataset: str | None = "d") -> RunConfig:
    return load_config(path, words, run.config_class, dataset)


def problems(path: Path, *words: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, *words)
    assert all(text in str(caught.value) for text in caught.value.problems)
    return caught.value.problems


@pytest.mark.parametrize(("text", "value"), [
    ("7e-3", 0.007), ("1E5", 1e5), (".5", 0.5), ("5.", 5.0), ("-.inf", float("-inf")),
    ("7", 7), ("+7", 7), ("010", 10), ("0x1F", 31), ("0o17", 15),
    ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
    ("yes", "yes"), ("off", "off"), ("12:30", "12:30"), ("1_000", "1_000"), ("2024-01-01", "2024-01-01"),
    ("'7e-3'", "7e-3"), ("[1, 2e1]", [1, 20.0]), ("{a: 1}", {"a": 1}), ("e-3", "e-3"), ("a photo", "a photo"),
])  # fmt: skip
def test_scalars_are_read_by_yaml_1_2(text, value):
    read, wrong = parse_yaml(text)
    assert (read, type(read), wrong) == (value, type(value), [])


def test_parse_yaml_names_the_line_of_a_duplicate_and_of_bad_syntax():
    assert parse_yaml("a: 1\nb: {c: 1, c: 2}\na: 2\n")[1] == [
        "line 3: key 'a' is given twice; keep one",
        "line 2: key 'c' is given twice; keep one",
    ]
    assert parse_yaml("a: [1\nb: 2\n")[1][0].startswith("line 2: not YAML: ")


def test_values_of_the_file_and_of_overrides(workspace):
    file = workspace / "dummy.yaml"
    assert (load(file).lr, load(file).name, load(file, "name=other").name) == (0.007, "dummy", "other")
    config = load(file, "lr=1", "lr=2e-4", "section.scale=3", "section.models=[a,b]", "section.pair=[0.5,1]")
    assert (config.lr, config.section.scale, config.section.models) == (2e-4, 3.0, ["a", "b"])  # the last lr
    assert config.section.pair == (0.5, 1.0)
    assert load(file, "momentum=null", "momentum.scale=4").momentum.scale == 4.0
    assert load(file, "momentum.scale=4", "momentum=null").momentum is None


def test_roots_come_from_the_command_line_then_the_environment_then_paths_yaml(workspace, monkeypatch):
    file = workspace / "dummy.yaml"
    assert load(file, "data_root=/c").data_root == "/c"
    assert load(file).data_root == str(workspace / "data")
    monkeypatch.setenv("RLCF_DATA", "")  # as good as not set
    assert load(file).data_root == str(REPOSITORY / "data")
    file.write_text("task: dummy\ndata_root: from_file\noutput_root: from_file\n")
    assert load(file).data_root == str(REPOSITORY / "from_file")
    assert load(file).output_root == str(workspace / "output")
    assert load(file, "data_root=~/x").data_root == str(Path.home() / "x")


def test_all_mistakes_are_told_at_once(workspace):
    file = workspace / "bad.yaml"
    file.write_text("task: dummy\nlr: fast\nlr: 1\nsteps: true\nsection: {scal: 1, scale: 0}\nitems: [{wait: 1}]\n")
    found = problems(file, "flag=1", "oops", "limit=1.5", "lr.x=1", "on_error=halt", "name=[a", "momentum=3", "=2")
    syntax = [text for text in found if text.startswith("'name=[a': line 1: not YAML: ")]
    assert len(syntax) == 1 and syntax[0].endswith("; quote the value if it is text")
    section = "{scale: float, models: [str], pair: [float, float]}"
    assert set(found) - set(syntax) == {
        f"{file}: line 3: key 'lr' is given twice; keep one",
        "'oops' is not an override; write key=value, for example lr=7e-3",
        "'=2' is not an override; write key=value, for example lr=7e-3",
        "lr.x: lr is 1 (int), not a section; give lr=... as a whole",
        f"steps: received True (bool), expected int [{file}]",
        f"section.scal: unknown key; the nearest valid key is section.scale [{file}]",
        f"section.scale: received 0 (int), expected float (input should be greater than 0) [{file}]",
        f"items[0].wait: unknown key; the nearest valid key is items[0].weight [{file}]",
        "flag: received 1 (int), expected bool [command line]",
        "limit: received 1.5 (float), expected int | null [command line]",
        "on_error: received 'halt' (str), expected 'stop' | 'skip' [command line]",
        f"momentum: received 3 (int), expected {section} | null [command line]",
    }


@pytest.mark.parametrize(("text", "match"), [
    ("lr: 1", "task: received null, expected the name of a task"),
    ("task: dumy", "task: unknown task 'dumy'; valid: .*dummy; the nearest is dummy"),
    ("just words", r"bad.yaml: expected `key: value` lines, received 'just words' \(str\)"),
    ("task: dummy", "dataset: missing, expected str"),
    (None, r"no config file .*bad\.yaml; the nearest is configs/"),
])  # fmt: skip
def test_a_config_without_what_it_needs_is_refused(workspace, text, match):
    if text:
        (workspace / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match=match):
        load(workspace / "bad.yaml", dataset=None)


@pytest.mark.parametrize(
    ("word", "key"),
    [("num_view", "views.num_views"), ("scael", "reward.scale"), ("reward.modls", "reward.models")],
)
def test_a_misspelt_key_leads_to_the_nearest_of_either_name(word, key):
    found = problems(REPOSITORY / "configs/classification/rlcf_encoder.yaml", f"{word}=1")
    assert f"{word}: unknown key; the nearest valid key is {key} [command line]" in found


def test_a_value_of_each_data_set_is_chosen_by_its_name_and_an_override_wins(workspace):
    file = workspace / "by.yaml"
    section = "section: {scale: {by_dataset: {}, otherwise: 3.0}}"
    file.write_text(f"task: dummy\nlr: {{by_dataset: {{a: 0.5, b: 0.25}}}}\n{section}\n")
    found = [load(file, dataset=name) for name in ("a", "b/noise")]
    assert [(config.lr, config.section.scale) for config in found] == [(0.5, 3.0), (0.25, 3.0)]
    assert load(file, "lr=1.0").lr == 1.0
    assert problems(file) == ["lr: no value for data set 'd', only for a, b; give lr=..."]
    file.write_text("task: dummy\nsection: {by_dataset: {a: {scale: 2.0, models: [x]}}, otherwise: {scale: 3.0}}\n")
    config = load(file, "section.scale=4.0", dataset="a")  # of a key inside a section that is chosen
    assert (config.section.scale, config.section.models) == (4.0, ["x"])


def test_official_names_lead_to_the_key_they_have_here():
    names = {
        "sample_k": "num_candidates", "K": "num_candidates", "batch_size": "views.num_views",
        "selection_p": "views.select_fraction", "tta_steps": "steps", "learning-rate": "lr",
        "reward_arch": "reward.models", "momentum_update": "momentum", "update_freq": "momentum.update_interval",
        "arch": "policy",
    }  # fmt: skip
    words = [f"{name}=1" for name in [*names, "reward.model"]]  # `model` is an old name of something else
    found = problems(REPOSITORY / "configs/classification/rlcf_encoder.yaml", *words)
    found.remove("reward.model: unknown key; the nearest valid key is reward.models [command line]")
    assert {text.split(":")[0]: text.split("here it is called ")[-1].split()[0] for text in found} == names


def test_every_official_name_leads_somewhere():
    tasks = map(run.config_class, ("classification", "retrieval", "captioning"))
    assert set(official_names().values()) <= {key for task in tasks for key, *_ in describe_fields(task, {})}
