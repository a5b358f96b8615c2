"""Whole runs on the pretended device: in fp32 the CPU's records, in fp16 close to them, and without waste."""

import contextlib
import io
import json
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from classification.task import ClassificationTask
from clipscore import updates
from clipscore.config.load import REPOSITORY
from clipscore.task import Task
from scripts import run
from tests.conftest import GOLDEN
from tests.golden_files import Golden
from tests.pretend_cuda import CudaTensor

VIEWS = "views.num_views=8 views.select_fraction=0.5 views.crop_scale=[0.5,1] dataset=demo/sketch"
SCENES = "dataset=demo_scenes/noise"
WRITER = (
    f"captioning/clipcap_c2f {SCENES} llm=demo/opt prefix_length=7 mapper_layers=2 decoding.max_new_tokens=5 steps=2 "
    "num_candidates=3 checkpoint=demo/clipcap metrics=[clipscore] metric_model=demo/reward.pt"
)
RUNS = {
    "prompt": f"classification/rlcf_prompt {VIEWS}",
    "encoder": f"classification/rlcf_encoder {VIEWS}",
    "retrieval": f"retrieval/rlcf_coco direction=text_to_image num_candidates=8 steps=3 {SCENES}",
    "images": f"retrieval/rlcf_coco direction=image_to_text num_candidates=8 steps=3 {SCENES}",
    "beams": WRITER,
    "nucleus": f"{WRITER} sampling=nucleus",
    "atkd": f"classification/atkd {VIEWS}",
}
# Of one image in fp16, at the sizes above. They are there to be lowered.
MAX_WAITS = {"prompt": 3, "encoder": 2, "retrieval": 2, "beams": 7}
MAX_LAUNCHES = {"prompt": 765, "encoder": 815, "retrieval": 610, "beams": 1990}
# How far the losses of fp16 may lie from fp32's: before the first update, and after some.
MAX_GAPS = {"prompt": (1e-3, 4e-3), "encoder": (1e-3, 0.2), "retrieval": (5e-3, 0.01), "beams": (1e-4, 3e-4)}
CAST_BY_OPEN_CLIP = {"backend.visual.class_embedding"}  # small, once a pass


@dataclass
class Image:
    """What one image did on the device."""

    launches: int
    waits: list[str]
    frozen_casts: set[str]  # parameters without gradient that were cast to half precision
    tuned_types: set[torch.dtype]
    updates: set[float]  # how many each parameter has seen


@pytest.fixture
def start(tmp_path, demo_data, monkeypatch, device):
    """Runs a case on two images; its records, and what the images did."""
    monkeypatch.setenv("RLCF_PRETRAINED", str(REPOSITORY / "pretrained"))
    images: list[Image] = []
    plain = Task.adapt

    def adapt(task, sample):
        launches, num_waits = device.launches.total(), len(device.waits)
        device.casts.clear()
        row = plain(task, sample)
        models = [task.clip, *task.models.rewards, getattr(task, "captioner", task.clip)]
        named = [item for model in models for item in model.named_parameters() if isinstance(item[1], CudaTensor)]
        images.append(Image(
            device.launches.total() - launches, [f"{w.operation} {w.where}" for w in device.waits[num_waits:]],
            {n for n, p in named if not p.requires_grad and p.raw.untyped_storage().data_ptr() in device.casts},
            {tensor.dtype for tensor in task.method.state.tensors.values() if tensor.requires_grad},
            {float(state["step"]) for state in task.method.state.updates.optimizer.state.values()},
        ))  # fmt: skip
        return row

    def start(case, where, precision):
        images.clear()
        monkeypatch.setattr(Task, "adapt", plain if where == "cpu" else adapt)
        config, *words = RUNS[case].split()
        words += [f"device={where}", f"precision={precision}", f"output_root={tmp_path}", f"data_root={demo_data}"]
        words += ["policy=demo/policy.pt", "reward.models=demo/reward.pt", "num_workers=0", "limit=2"]
        name = f"run{len(list(tmp_path.glob('run*')))}"
        with contextlib.redirect_stdout(io.StringIO()):
            assert run.main(["--config", f"{REPOSITORY}/configs/{config}.yaml", *words, f"name={name}"]) == 0
        [rows] = tmp_path.glob(f"{name}__*/rows.jsonl")
        return [json.loads(row) for row in rows.read_text().splitlines()], list(images)

    return start


def assert_alike(a: Any, b: Any, tolerance: float) -> None:
    """Equal but for the rounding of floats, for times, and for what fp16 alone records."""
    if isinstance(a, float):
        assert b == pytest.approx(a, rel=tolerance, abs=tolerance)
    elif isinstance(a, dict):
        a, b = ({k: v for k, v in x.items() if k != "repeated_steps" and "seconds" not in k} for x in (a, b))
        assert_alike([*a, *a.values()], [*b, *b.values()], tolerance)
    elif isinstance(a, list):
        assert len(a) == len(b)
        for pair in zip(a, b, strict=True):
            assert_alike(*pair, tolerance)
    else:
        assert a == b


@pytest.mark.parametrize("case", MAX_WAITS)
def test_records_are_those_of_the_cpu_and_nothing_is_wasted(case, start):
    cpu, _ = start(case, "cpu", "fp32")
    fp32, images = start(case, "cuda", "fp32")
    assert_alike(cpu, fp32, 5e-5)
    fp16, halves = start(case, "cuda", "fp16")
    num_steps = len(cpu[0]["loss"])
    for image in images + halves:
        assert image.updates == {num_steps} and image.tuned_types <= {torch.float32}
    for image in halves:
        assert image.frozen_casts <= CAST_BY_OPEN_CLIP
    last = halves[-1]  # the first makes what is kept
    assert len(last.waits) <= MAX_WAITS[case], last.waits
    assert last.launches <= MAX_LAUNCHES[case]
    answer = next(key for key in ("top5", "top10", "caption") if key in cpu[0])
    for a, b in zip(cpu, fp16, strict=True):
        assert b["repeated_steps"] == 0
        assert a[answer][0] == b[answer][0]
        assert b["moved"] == pytest.approx(a["moved"], rel=0.15)
        for number, pair in enumerate(zip(a["loss"], b["loss"], strict=True)):
            assert abs(pair[0] - pair[1]) <= MAX_GAPS[case][number > 0], pair


def test_several_images_at_once_are_about_as_many_launches_as_one(start, monkeypatch, device):
    monkeypatch.setitem(RUNS, "together", f"{RUNS['prompt']} images_at_once=2")
    plain, counts = ClassificationTask.adapt_together, []

    def adapt_together(task, samples):
        launches, num_waits = device.launches.total(), len(device.waits)
        rows = plain(task, samples)
        counts.append((len(rows), device.launches.total() - launches, len(device.waits) - num_waits))
        return rows

    monkeypatch.setattr(ClassificationTask, "adapt_together", adapt_together)
    cpu, _ = start("prompt", "cpu", "fp32")
    assert_alike(cpu, start("together", "cuda", "fp32")[0], 5e-5)
    fp16, alone = start("together", "cuda", "fp16")
    assert [row["top5"][0] for row in fp16] == [row["top5"][0] for row in cpu]
    assert alone == [] and [row["repeated_steps"] for row in fp16] == [0, 0]
    ((num_rows, launches, waits),) = counts[1:]
    assert num_rows == 2 and launches <= 1.3 * MAX_LAUNCHES["prompt"] and waits <= 4


def test_a_step_that_overflows_is_counted_and_made_again(start, monkeypatch):
    plain, _ = start("atkd", "cuda", "fp16")
    monkeypatch.setattr(updates, "INIT_LOSS_SCALE", 2.0**6 * updates.INIT_LOSS_SCALE)  # the same digits
    repeated, images = start("atkd", "cuda", "fp16")
    assert [row["repeated_steps"] for row in plain] == [0, 0]
    assert all(3 <= row["repeated_steps"] <= 6 for row in repeated)
    assert [image.updates for image in images] == [{3.0}, {3.0}]
    assert_alike(plain, repeated, 5e-3)


@pytest.mark.parametrize("case", ["encoder", "images"])
def test_passes_replayed_as_cuda_graphs_give_the_same_records(case, start, monkeypatch, device):
    monkeypatch.setitem(RUNS, "graphed", f"{RUNS[case]} cuda_graphs=true")
    for precision in ("fp32", "fp16"):
        plain, _ = start(case, "cuda", precision)
        assert "replay" not in device.operations
        assert_alike(plain, start("graphed", "cuda", precision)[0], 0.0)
        assert device.operations.pop("replay") == sum(len(row["loss"]) for row in plain)
    with pytest.raises(ValueError, match="RN has BatchNorm in its image tower; leave out"):
        Golden(GOLDEN).clip("RN").graph_visual(1)


@pytest.mark.parametrize(
    ("owner", "name", "at"), [(updates.Updates, "_gather_gradients", 1), (torch.optim.AdamW, "_init_group", 0)]
)
def test_a_gpu_out_of_memory_costs_one_image(start, monkeypatch, owner, name, at):
    plain, _ = start("encoder", "cuda", "fp16")
    function, calls = getattr(owner, name), iter(range(99))

    def full(*args, **options):  # once: gradients are there, or the loss scale is with the optimizer
        if next(calls) == at:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. 1 GiB is free. Of it")
        return function(*args, **options)

    monkeypatch.setattr(owner, name, full)
    (lost, next_one), _ = start("encoder", "cuda", "fp16")
    assert "Tried to allocate 2.00 GiB. 1 GiB is free; take precision=fp16" in lost["error"]
    assert_alike(plain[1], next_one, 0.0)


def test_captions_are_drawn_as_on_the_cpu(start):
    (cpu, _), (cuda, _) = (start("nucleus", where, "fp32") for where in ("cpu", "cuda"))
    assert_alike(cpu, cuda, 5e-5)
