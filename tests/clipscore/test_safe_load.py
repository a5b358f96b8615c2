"""Reading a checkpoint runs nothing that is pickled in it."""

from __future__ import annotations

import pytest
import torch

from clipscore.safe_load import load_tensors


class Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_tensors_come_through_and_nothing_runs(tmp_path, zipped):
    parameter = torch.nn.Parameter(torch.arange(4.0))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    checkpoint = {
        "state_dict": {"ctx": torch.arange(6.0).view(2, 3), "half": torch.ones(2).half(), "parameter": parameter},
        "scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5),  # as training tools save it
        "payload": Payload(tmp_path / "hacked"),
        "epoch": 50,
    }
    torch.save(checkpoint, tmp_path / "model.pth.tar-50", _use_new_zipfile_serialization=zipped)
    loaded = load_tensors(tmp_path / "model.pth.tar-50")
    assert torch.equal(loaded["state_dict"]["ctx"], checkpoint["state_dict"]["ctx"])
    assert torch.equal(loaded["state_dict"]["parameter"], parameter)
    assert loaded["epoch"] == 50 and not (tmp_path / "hacked").exists()


def test_unreadable_file(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="cannot be read as a PyTorch file"):
        load_tensors(tmp_path / "x.pt")
