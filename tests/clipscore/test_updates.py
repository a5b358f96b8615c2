"""What fp16 needs around an update: loss scale, overflows, copies of weights; and the one copy to the host."""

from argparse import Namespace
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from clipscore.config.fields import MomentumConfig
from clipscore.data.samples import Sample
from clipscore.episodic import EpisodicState
from clipscore.lean_blocks import cast_tuned
from clipscore.metrics.stage_times import StageTimes
from clipscore.models.devices import to_host
from clipscore.task import Task

SCALES = [(1e4, 0), (300, 2), (1.1, 10)]  # the largest that does not overflow, and how often 1000 is halved until then


class ScaledTask(Task):
    """Three steps on one weight, in fp16 where the loss is scaled."""

    SAMPLE, adapts = "sample", True

    def __init__(self, largest_scale, scale_loss=True, momentum=None):
        self.weight = nn.Parameter(torch.tensor([1.0]))
        optimizer = torch.optim.AdamW([self.weight], lr=0.1, fused=True)
        self.state = EpisodicState({"weight": self.weight}, optimizer, momentum, scale_loss)
        self.factor = torch.tensor(65504 / largest_scale).half()  # times the scale it is the gradient, at most 65504
        self.scale_loss, self.passes = scale_loss, 0
        self.models = self.method = self
        self.config = Namespace(on_error="stop")
        self.times = StageTimes(torch.device("cpu"))

    def episode(self, sample):
        self.passes += 1
        losses = []
        with self.state.episode():
            for _ in range(3):
                weight = self.weight.half() * self.factor if self.scale_loss else self.weight * self.factor.float()
                losses.append(weight.float().square().sum().sqrt())
                losses[-1] = self.state.step(losses[-1])
                assert not losses[-1].requires_grad
            losses = self.state.read(losses)
        return {"losses": [loss.item() for loss in losses], "weight": self.weight.item()}


@pytest.mark.parametrize("largest_scale, num_repeated", SCALES)
def test_a_step_that_overflows_in_fp16_is_repeated_at_half_the_loss_scale(largest_scale, num_repeated):
    plain, half = (ScaledTask(largest_scale, scale_loss) for scale_loss in (False, True))
    for _ in range(2):
        expected, found = plain.episode(None), half.episode(None)
        assert half.state.updates.num_repeated == num_repeated and plain.state.updates.num_repeated == 0
        assert expected["weight"] == pytest.approx(found["weight"], rel=1e-6) != 1.0


@pytest.mark.parametrize("largest_scale, num_repeated", SCALES)
def test_to_look_at_the_end_gives_the_records_of_looking_at_each_step(largest_scale, num_repeated):
    momentum = MomentumConfig(decay=0.5, update_interval=2)
    careful, task = (ScaledTask(largest_scale, momentum=momentum) for _ in range(2))
    for number in range(4):
        row = task.adapt(Sample("a", None))
        assert {key: row[key] for key in ("losses", "weight")} == careful.episode(None)
        assert row["moved"] == pytest.approx(careful.state.moved.item(), rel=1e-5)
        assert row["repeated_steps"] == num_repeated and task.state.updates.looks
        # A pass that is thrown away comes first, once: where steps overflow, the next sample is looked at closely.
        assert task.passes == number + 1 + (num_repeated > 0)
        assert torch.equal(task.state.average["weight"], careful.state.average["weight"])


def test_an_overflow_that_nobody_asked_for_is_an_error():
    task = ScaledTask(300)
    task.state.updates.looks = False
    with pytest.raises(FloatingPointError, match="overflows at this loss scale"), task.state.episode():
        for _ in range(2):
            task.state.step((task.weight.half() * task.factor).float().sum())


def test_a_gradient_that_is_finite_at_no_scale_ends_the_episode():
    task = ScaledTask(1.0)
    task.factor = torch.tensor(float("inf")).half()
    with pytest.raises(FloatingPointError, match="sample a: the gradient is not finite"):
        task.adapt(Sample("a", None))
    assert task.weight.item() == 1.0 and task.passes == 2
    task.config.on_error, task.unadapted = "skip", lambda sample: {"id": sample.id}
    row = task.adapt(Sample("a", None))
    assert row.items() >= {"id": "a", "unadapted": True}.items() and not {"moved", "repeated_steps"} & row.keys()


def test_copies_of_tuned_weights_give_the_numbers_of_autocast(tiny_clip):
    plain, copied = (tiny_clip(name).float() for name in ("P", "P"))
    images = torch.randn(2, 3, plain.image_size, plain.image_size, generator=torch.Generator().manual_seed(0))
    found = []
    for clip in (plain, copied):
        clip.autocast_dtype = torch.bfloat16
        tuned = {name: p.requires_grad_() for name, p in clip.visual.named_parameters()}
        copies = cast_tuned(clip.visual, torch.bfloat16) if clip is copied else []
        assert len(copies) > 10 or clip is plain
        state = EpisodicState(tuned, torch.optim.AdamW(tuned.values(), lr=1e-2), copies=copies)
        numbers = []
        for _ in range(2):
            with state.episode():
                for _ in range(3):
                    features = clip.encode_images(images)
                    state.step(features[0] @ features[1])
                    numbers += [features.detach(), *(p.grad.clone() for p in tuned.values())]
                with torch.no_grad():
                    numbers += [clip.encode_images(images), *(p.detach().clone() for p in tuned.values())]
        found.append(numbers)
    assert all(map(torch.equal, *found)) and len(found[0]) == len(found[1])
    with pytest.raises(AssertionError, match="is a copy already"):
        cast_tuned(copied.visual, torch.bfloat16)


@dataclass
class Found:
    name: str
    numbers: list[torch.Tensor]
    more: tuple["Found", ...] = ()


def test_everything_goes_to_the_host_in_one_copy(monkeypatch):
    tensors = [
        torch.tensor(True), torch.randn(3, 4).T, torch.arange(5), torch.empty(0), torch.randn(2, 1, 3).half(),
        torch.tensor(2.5, requires_grad=True),
    ]  # fmt: skip
    found = Found("a", tensors[:3], (Found("b", [*tensors[3:], tensors[0]]),))
    assert to_host(found) is found, "on the CPU nothing is copied"
    copies, copy = [], torch.Tensor.cpu
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "is_cpu", False)
        patch.setattr(torch.Tensor, "cpu", lambda tensor: copies.append(tensor) or copy(tensor))
        host = to_host(found)
    assert len(copies) == 1 and host is not found and (host.name, host.more[0].name) == ("a", "b")
    for ours, plain in zip(host.numbers + host.more[0].numbers, [*tensors, tensors[0]], strict=True):
        assert torch.equal(ours, plain) and ours.dtype == plain.dtype and ours.shape == plain.shape
        assert not ours.requires_grad
