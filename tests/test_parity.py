"""The recorded traces, replayed by the command that users have; and that the command notices deviations."""

import json
import shutil

import numpy as np
import pytest

from clipscore.metrics.coco import has_java
from tests import parity
from tests.conftest import GOLDEN


def test_all_traces_replay(golden):
    needs_java = set() if has_java() else {"F_metrics"}  # the PTB tokenizer and METEOR
    traces = set(golden.traces()) - needs_java
    deviations = parity.replay_folder(GOLDEN, ",".join(traces))
    assert [d for d in deviations if not d.ok] == []
    assert {d.trace for d in deviations} == traces and len(golden.traces()) == 50


@pytest.fixture
def copy(tmp_path):
    """A folder with one trace and what it needs."""
    for name in ("A_prompt_onestep.json", "A_prompt_onestep.npz", "inputs_cls_vit.npz"):
        shutil.copy(GOLDEN / name, tmp_path)
    for name in ("P", "R1"):
        shutil.copy(GOLDEN / f"clip_{name}.safetensors", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda arrays: arrays.update(loss=arrays["loss"] + 2e-8), "loss"),
        (lambda arrays: arrays.update(topk_idx=arrays["topk_idx"][..., ::-1].copy()), "topk_idx"),
        (lambda arrays: arrays.update(new_quantity=np.zeros(1)), "not replayed"),
    ],
    ids=["value", "integer", "unknown quantity"],
)
def test_a_deviation_is_noticed(copy, capsys, change, complaint):
    assert parity.main([str(copy), "--json", str(copy / "out.json")]) == 0
    assert all(row["value"] < 1e-8 for row in json.loads((copy / "out.json").read_text()))
    arrays = dict(np.load(copy / "A_prompt_onestep.npz"))
    change(arrays)
    np.savez(copy / "A_prompt_onestep.npz", **arrays)
    assert parity.main([str(copy)]) == 1
    assert complaint in capsys.readouterr().out.split("DEVIATES")[1]


PEERS = "zero_ties,zero_reward_k0,mta_n5,tps_shared,boost_center_a,tda_thresholds,ctpt_features_two_step,otpt_clip_fg"


def test_methods_of_others_replay_and_their_deviations_are_noticed(tmp_path, capsys):
    folder = shutil.copytree(GOLDEN / "peers", tmp_path / "traces")
    assert [d for d in parity.replay_folder(folder, f"{PEERS},ece,text*") if not d.ok] == []
    for trace, name, change in [
        ("zero_ties", "float64_epsdtype/tie_answer", 1), ("tda_thresholds", "neg_cache_image", 1),
        ("boost_center_a", "boost_cache_view", 1), ("mta_n5", "logits", 2e-9), ("otpt_clip_fg", "grad_ctx", 2e-9),
        ("zero_reward_k0", "autocast_fp16/output", 3e-5),
    ]:  # fmt: skip
        arrays = dict(np.load(folder / f"{trace}.npz"))
        arrays[name][..., -1] += np.asarray(change, arrays[name].dtype)
        np.savez(folder / f"{trace}.npz", **arrays)
        found = [d.quantity for d in parity.replay_folder(folder, trace) if not d.ok]
        assert name in found and len(found) <= 2, found


def test_an_unknown_kind_is_not_passed_over(copy, capsys):
    shutil.copy(copy / "A_prompt_onestep.json", copy / "Z_future.json")
    shutil.copy(copy / "A_prompt_onestep.npz", copy / "Z_future.npz")
    assert parity.main([str(copy)]) == 1
    assert "no replay for traces of this kind" in capsys.readouterr().out
    assert parity.main([str(copy), "--only", "A_*"]) == 0
    with pytest.raises(SystemExit):
        parity.main([str(copy), "--only", "B_*"])
    assert "no trace that fits 'B_*'" in capsys.readouterr().err
