"""The pretended device itself, the tests that are marked gpu, and recorded traces with all models on the device."""

import importlib
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from classification.policy import use_prior_statistics
from clipscore.config.fields import MomentumConfig
from clipscore.data.reading import read_in_background
from clipscore.data.samples import Sample
from clipscore.episodic import EpisodicState
from tests import cuda_mistakes, parity
from tests.conftest import GOLDEN

TRACES = [  # one of each kind: what is tuned, the objectives, both directions, writing captions
    "A_prompt_coop", "A_prompt_multi_weighted", "A_prompt_onestep", "B_encoder_norm", "B_rn_prior16", "C_atkd",
    "C_cocoop", "C_tpt_prompt", "D_kd_i2t", "E_tta_amplify_mlp",
]  # fmt: skip
TESTS = Path(__file__).parent.parent


def marked_gpu():
    """The project's own, whatever they are called."""
    for path in sorted(TESTS.rglob("test_*.py")):
        if "mark.gpu" in path.read_text() and path.parent != Path(__file__).parent:
            module = importlib.import_module(".".join(path.relative_to(TESTS.parent).with_suffix("").parts))
            for name, function in vars(module).items():
                if any(mark.name == "gpu" for mark in getattr(function, "pytestmark", [])):
                    yield f"{name}_in_{path.parent.name}", function


globals().update(marked_gpu())


@pytest.mark.parametrize("trace", TRACES)
def test_a_trace_in_float64_with_everything_on_the_device(trace):
    assert [found for found in parity.replay_folder(GOLDEN, trace, "cuda") if not found.ok] == []


def test_the_device_refuses_what_cuda_refuses(device):
    x, host = torch.ones(3, device="cuda"), torch.ones(3)
    device.waits.clear()
    for work, why in [
        (lambda: x + host, "all tensors to be on the same device"),
        (lambda: x.numpy(), "Use Tensor.cpu"),
        (lambda: x.to("cpu", non_blocking=True), "before it has arrived"),
        (lambda: x[None].half() @ x[:, None], "same dtype"),
        (lambda: F.scaled_dot_product_attention(x[None], x[None], x[None].double()), "one type"),
    ]:  # fmt: skip
        with pytest.raises((RuntimeError, TypeError), match=why):
            work()
    assert device.waits == []
    for number, work in enumerate([x.sum, x.sum().item, x.cpu, x.tolist, lambda: x[x > 0], lambda: x[[0, 2]]]):
        work()
        assert len(device.waits) == number
    torch.use_deterministic_algorithms(True)
    with pytest.raises(RuntimeError, match="does not have a deterministic"):
        x.cumsum(0)


def test_readers_pin_for_cuda_alone(monkeypatch):
    pinned, pictures = [], [Sample("a", torch.ones(2)), Sample("b", None, "no file"), torch.ones(3), "no file"]
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x, *_: pinned.append(len(x)) or x)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    for device, expected in [("cpu", []), ("cuda", [2, 3])]:
        assert list(read_in_background(pictures, 4, 0, device=device))[2:] == pictures[2:]
        assert pinned == expected


def test_autocast_is_that_of_cuda_and_seen(device):
    frozen, tuned = torch.ones(2, 2, device="cuda"), torch.nn.Parameter(torch.ones(2, 2, device="cuda"))
    with torch.autocast("cuda", torch.float16):
        out = F.linear(F.linear(frozen, frozen), tuned) + F.linear(frozen, tuned)
    assert out.dtype == torch.float16 and out.device.type == "cuda"
    assert device.casts[frozen.raw.untyped_storage().data_ptr()] == 3  # at each use
    assert device.casts[tuned.raw.untyped_storage().data_ptr()] == 1  # the cache of autocast
    out.float().sum().backward()
    assert tuned.grad.is_cuda and device.launches["mm.default"] == 5


def test_the_momentum_buffer_goes_on_after_a_restart_on_the_device(tmp_path):
    def make():
        weight = torch.nn.Parameter(torch.ones(3, device="cuda"))
        optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
        return EpisodicState({"w": weight}, optimizer, MomentumConfig(decay=0.5, update_interval=2), scale_loss=True)

    def adapt(state):
        with state.episode():
            state.step((state.tensors["w"] ** 2).sum())

    straight, restarted = make(), make()
    for number in range(4):
        torch.save(restarted.state_dict(), tmp_path / "state.pt")
        restarted = make()
        restarted.load_state_dict(torch.load(tmp_path / "state.pt", map_location="cpu"))
        for state in (straight, restarted):
            adapt(state)
        assert torch.equal(straight.start["w"], restarted.start["w"]) and straight.num_samples == (number + 1) % 2


def test_the_statistics_of_a_prior_are_those_of_fp32():
    norm = nn.BatchNorm2d(4)
    use_prior_statistics(tower := nn.Sequential(norm), 4.0)
    x = 1000 * torch.randn(8, 4, 5, 5, generator=torch.Generator().manual_seed(0))  # a variance that fp16 cannot hold
    expected = tower.train()(x)
    with torch.autocast("cuda", torch.float16):
        torch.testing.assert_close(tower.to("cuda")(x.half().to("cuda")).cpu().float(), expected, atol=0.01, rtol=0.01)


def test_seeded_mistakes_are_of_the_code_of_today():
    assert cuda_mistakes.gone() == []
