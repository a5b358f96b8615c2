"""Reading a checkpoint runs nothing that is pickled in it."""

from __future__ import annotations

import zipfile

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


def test_dotted_names_do_not_reach_through_a_function(tmp_path):
    def text(value):
        return b"\x8c" + bytes([len(value)]) + value.encode()

    def lookup(name):  # a protocol-4 global whose name has dots
        return text("torch._utils") + text(name) + b"\x93"

    builtins = lookup("_rebuild_tensor.__globals__.get") + text("__builtins__") + b"\x85R"
    execute = lookup("_rebuild_tensor.__globals__.__class__.get") + builtins + text("exec") + b"\x86R"
    program = b"\x80\x04" + execute + text(f"open({str(tmp_path / 'x')!r}, 'w')") + b"\x85R."
    torch.save({}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "evil.pt", "w") as evil:
        for name in plain.namelist():
            evil.writestr(name, program if name.endswith("data.pkl") else plain.read(name))
    with pytest.raises(ValueError, match=r"evil\.pt cannot be read"):
        load_tensors(tmp_path / "evil.pt")
    assert not (tmp_path / "x").exists()


def test_unreadable_file(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="cannot be read as a PyTorch file"):
        load_tensors(tmp_path / "x.pt")
