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
