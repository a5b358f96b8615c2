"""The run folder: identity, torn and repeated rows, who may write."""

import errno
import fcntl
import json
from pathlib import Path

import pytest

from scripts.runs.compare_configs import check_finite, config_differences, identifying, identity
from scripts.runs.folder import RunFolder, finished_summary, run_path
from tests.scripts.dummy import DummyConfig, Section

FINGERPRINT = {"weights": "abc"}


def make_config(root: Path, **values: object) -> DummyConfig:
    roots = {key: str(root) for key in ("data_root", "pretrained_root", "output_root")}
    return DummyConfig(**{"dataset": "d", "name": "n", **roots, **values})


def begin_with_a_row(config: DummyConfig) -> None:
    with RunFolder(config) as folder:
        folder.begin(FINGERPRINT, {}, {})
        folder.own.append({"id": "a"})


def begin(config: DummyConfig, fingerprint: dict[str, str] = FINGERPRINT, **environment: str) -> list[dict]:
    with RunFolder(config) as folder:
        return folder.begin(fingerprint, environment, {"unit": "m"})


def test_the_folder_is_named_after_name_data_set_and_seeds(tmp_path: Path) -> None:
    config = make_config(tmp_path, dataset="imagenet_c/fog/5", seed=3)
    assert run_path(config) == tmp_path / "n__imagenet_c-fog-5__seed3"
    assert run_path(make_config(tmp_path, dataset="d", order_seed=2)) == tmp_path / "n__d__seed0__order2"
    for name in ("a/b", "..", "a\\b"):
        with pytest.raises(ValueError, match="name must be a plain folder name"):
            run_path(make_config(tmp_path, name=name))


def test_config_and_environment_are_recorded(tmp_path: Path) -> None:
    config = make_config(tmp_path, lr=1e-5)
    for commit in ("one", "one", "two", "one"):
        begin(config, commit=commit)
    record = json.loads((run_path(config) / "env.json").read_text())
    assert record["environments"] == [{"commit": "one"}, {"commit": "two"}]
    assert record["fingerprint"] == FINGERPRINT
    assert record["identity"] == identity(config, FINGERPRINT)
    assert "lr: 1.0e-05\n" in (run_path(config) / "config.yaml").read_text()


def test_another_configuration_is_refused_with_all_keys_and_both_values(tmp_path: Path) -> None:
    begin(make_config(tmp_path, lr=0.2), {"weights": "xyz"})  # counts for nothing, because it has no rows
    begin_with_a_row(make_config(tmp_path))
    other = make_config(tmp_path, lr=0.2, section={"scale": 3.0}, limit=5, num_workers=0)
    match = (
        r"holds a run of another configuration: lr is 0\.1 there and 0\.2 here; "
        r"section\.scale is 2\.5 there and 3\.0 here\. "
        r"Give this run name=OTHER or output_root=ELSEWHERE, or delete the folder\."
    )
    with pytest.raises(ValueError, match=match):
        begin(other)
    begin(make_config(tmp_path))  # the folder is as it was


def test_what_does_not_identify_a_run_may_change(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    free = {"limit": 3, "shard": "1/2", "procs_per_gpu": 2, "num_workers": 0, "num_threads": 1}
    words = {"device": "cuda", "on_error": "skip", "name": "m"}
    roots = {"data_root": "/x", "pretrained_root": "/x", "output_root": "/x"}
    changed = config.model_copy(update={**free, **words, **roots})
    assert config_differences(config.model_dump(), changed.model_dump(), DummyConfig) == []
    assert identity(config, {}) == identity(changed, {})
    for update in ({"seed": 1}, {"dataset": "e"}, {"precision": "fp16"}):
        assert identity(config.model_copy(update=update), {}) != identity(config, {})
    assert identity(config, {"weights": "a"}) != identity(config, {"weights": "b"})


class YoungerConfig(DummyConfig):
    """A later version's, whose keys some runs have not."""

    ADDED = {**DummyConfig.ADDED, "rule": "old", "section.pair": [0.0, 1.0], "items.weight": 1.0, "momentum.pair": 3}

    rule: str = "old"


def test_a_key_younger_than_a_run_counts_as_what_the_run_did(tmp_path: Path) -> None:
    recorded = YoungerConfig(**make_config(tmp_path, items=[{"weight": 2.0}, {}]).model_dump()).model_dump(mode="json")
    hashed = identity(YoungerConfig(**recorded | {"section": Section()}), FINGERPRINT)
    del recorded["rule"], recorded["section"]["pair"], recorded["items"][1]["weight"]
    now = make_config(tmp_path, items=[{"weight": 2.0}, {}]).model_dump() | {"name": "other"}
    for update, differs in [({}, False), ({"rule": "old"}, False), ({"rule": "new"}, True), ({"seed": 1}, True)]:
        config = YoungerConfig(**now | update)
        found = config_differences(recorded, config.model_dump(mode="json"), YoungerConfig)
        assert bool(found) == differs == (identity(config, FINGERPRINT) != hashed)
    newer = YoungerConfig(**now | {"rule": "new"}).model_dump(mode="json")
    assert config_differences(recorded, newer, YoungerConfig) == ["rule is 'old' there and 'new' here"]
    older = make_config(tmp_path, items=[{"weight": 2.0}]).model_dump(mode="json")
    assert "rule" not in identifying(older | {"rule": "old"}, YoungerConfig)
    assert identifying(older, YoungerConfig)["items"] == [{"weight": 2.0}] and "pair" in older["section"]


def test_a_torn_last_line_is_dropped_and_the_next_row_stands_alone(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    begin(config)
    rows = run_path(config) / "rows.jsonl"
    rows.write_text('{"id": "a", "x": 1}\n{"id": "b", "x"')
    with RunFolder(config) as folder:
        assert folder.begin(FINGERPRINT, {}, {}) == [{"id": "a", "x": 1}]
        for key in "bcd":
            folder.own.append({"id": key})
        folder.own.keep(2)
        folder.own.append({"id": "e"})
    assert rows.read_text() == '{"id": "a", "x": 1}\n{"id": "b"}\n{"id": "e"}\n'
    rows.write_text('{"id": "a"}\n{"id"\n{"id": "c"}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 2 is damaged: b'\{\"id\"'; delete that line"):
        begin(config)


def test_a_number_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    row = {"id": "cat.png", "loss": [1.0, float("nan")], "after": {"score": float("inf")}}
    match = r"sample cat\.png has a result that is not a finite number: loss\[1\] is nan, after\.score is inf"
    with pytest.raises(FloatingPointError, match=match):
        check_finite(row)
    check_finite({"id": "a", "loss": 1e300, "count": 10**400})
    with RunFolder(make_config(tmp_path)) as folder:
        folder.begin(FINGERPRINT, {}, {})
        with pytest.raises(ValueError, match="not JSON compliant"):
            folder.own.append(row)
        with pytest.raises(FloatingPointError, match=r"the summary has a result .*: accuracy is nan"):
            folder.finish({"accuracy": float("nan")})
        assert folder.rows() == [] and not (folder.path / "summary.json").exists()


def test_only_a_finished_run_without_errors_has_a_summary_to_show(tmp_path: Path) -> None:
    config = make_config(tmp_path, limit=2)
    for num_errors in (None, 1, 0):
        assert finished_summary(config) is None
        with RunFolder(config) as folder:
            folder.begin(FINGERPRINT, {}, {})
            if num_errors is not None:
                folder.finish({"num_errors": num_errors})
    assert finished_summary(config) == {"num_errors": 0}
    assert finished_summary(make_config(tmp_path, limit=3)) is finished_summary(make_config(tmp_path, lr=3.0)) is None
    begin(config)  # taken up again: the old summary no longer counts
    assert finished_summary(config) is None


def test_a_folder_that_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    run_path(config).mkdir()
    (run_path(config) / "rows.jsonl").write_text("{}\n")
    with pytest.raises(FileNotFoundError, match=r"holds no run \(no config\.yaml\); expected a folder that"):
        begin(config)
    (run_path(config) / "config.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match=r"config\.yaml is damaged: no keys; move the folder away"):
        begin(config)


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.raises(OSError, match=r"lock cannot be locked \(No locks available\), .*; choose an output_root on a"):
        begin(make_config(tmp_path))
