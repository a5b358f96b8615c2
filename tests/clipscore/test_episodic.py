"""Restore, and the momentum buffer, beside what the traces replay."""

import pytest
import torch

from clipscore.config.fields import MomentumConfig
from clipscore.episodic import EpisodicState


def make(momentum=None, start=1.0):
    weight = torch.nn.Parameter(torch.tensor([start]))
    return weight, EpisodicState({"weight": weight}, torch.optim.AdamW([weight], lr=0.1, weight_decay=0.0), momentum)


def test_a_failed_episode_does_not_feed_the_average_and_the_source_can_be_restored():
    weight, state = make(MomentumConfig(decay=0.0, update_interval=1))
    with pytest.raises(RuntimeError), state.episode():
        weight.data.fill_(9.0)
        raise RuntimeError
    assert state.average["weight"].item() == 1.0 and state.num_samples == 0
    for expected in (1.0, 4.0):
        with state.episode():
            assert weight.item() == expected
            weight.data.fill_(4.0)
    state.restore_source()
    assert weight.item() == 1.0


def test_state_goes_on_in_another_process_and_is_half_as_large_right_after_a_refresh():
    momentum = MomentumConfig(decay=0.7, update_interval=2, mix=0.3)
    weight, state = make(momentum, start=0.1)
    other_weight, other = make(momentum, start=0.1)
    sizes = []
    for adapted in (3.0, 7.0, 2.0):
        sizes.append(len(state.state_dict()))
        for w, s in ((weight, state), (other_weight, other)):
            with s.episode():
                w.data.fill_(adapted)
        assert other.start["weight"].item() == state.start["weight"].item()
        other_weight, other = make(momentum, start=0.1)
        other.load_state_dict(state.state_dict())
    assert sizes == [3, 3, 2] and state.start["weight"] != 0.1
    assert make()[1].state_dict() == {}


def test_integer_buffers_are_averaged_as_fractions_and_cut_off_when_loaded():
    count = torch.tensor(0)
    state = EpisodicState({"count": count}, None, MomentumConfig(decay=0.5, update_interval=1))
    with state.episode():
        count.fill_(3)
    assert state.average["count"].item() == 1.5
    with state.episode():
        assert count.item() == 1


def test_moved_is_the_norm_of_the_steps_change_alone():
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    filled = torch.nn.Parameter(torch.zeros(2))  # a policy writes the sample's own values into it before the first step
    buffer = torch.zeros(1)
    optimizer = torch.optim.SGD([weight, filled], lr=1.0)
    state = EpisodicState({"weight": weight, "filled": filled, "buffer": buffer}, optimizer, written=["filled"])
    for _ in range(2):
        with state.episode():
            with torch.no_grad():
                filled.copy_(torch.tensor([50.0, 60.0]))
                buffer += 7
            state.step((3 * weight[0] + 4 * filled[1]).sum())
        assert state.moved == 5.0
    with state.episode(), torch.no_grad():
        filled.fill_(9.0)
    assert state.moved == 0.0, "no step, no move"


def test_an_episode_is_the_plain_formula_of_a_fresh_adamw():
    """Weights after each episode, their distance, and the running average, by what the fused kernels stand for."""
    momentum, options = MomentumConfig(decay=0.9, update_interval=5), {"lr": 1e-2, "weight_decay": 5e-4, "eps": 1e-6}
    generator = torch.Generator().manual_seed(0)
    source = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((50,), (3, 4), ())]
    tuned = [torch.nn.Parameter(tensor.clone()) for tensor in source]
    names = ["a", "b", "c"]
    optimizer = torch.optim.AdamW(tuned, fused=True, **options)
    state = EpisodicState(dict(zip(names, tuned, strict=True)), optimizer, momentum)
    average = source
    for number in range(1, 4):
        plain = [torch.nn.Parameter(tensor.clone()) for tensor in source]
        fresh = torch.optim.AdamW(plain, foreach=False, **options)
        with state.episode():
            for _ in range(number):
                fresh.zero_grad()
                sum((tensor**4).sum() for tensor in plain).backward()
                fresh.step()
                state.step(sum((tensor**4).sum() for tensor in tuned))
                state.forget_gradients()
            torch.testing.assert_close(tuned, plain, atol=1e-12, rtol=0)
        distances = [torch.dist(new, old) for new, old in zip(plain, source, strict=True)]
        torch.testing.assert_close(state.moved, torch.stack(distances).norm().detach(), atol=1e-12, rtol=0)
        average = [0.9 * old + (1 - 0.9) * new.detach() for old, new in zip(average, plain, strict=True)]
        torch.testing.assert_close([state.average[name] for name in names], average, atol=1e-12, rtol=0)
