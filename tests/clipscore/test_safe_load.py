"""Reading a checkpoint runs nothing that is pickled in it."""

import io
import pickle
import zipfile

import numpy as np
import pytest
import torch

from clipscore.models.pickles import load_pickle, load_tensors


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
    (tmp_path / "x.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="cannot be read as a PyTorch file"):
        load_tensors(tmp_path / "x.pt")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_tensors_and_arrays(tmp_path, protocol):
    values = {
        "tensor": torch.arange(12.0).view(3, 4)[1:],
        "half": torch.ones(2).half(),
        "array": np.arange(6, dtype=np.float32).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "swapped": np.arange(3, dtype=">i4"),
    }
    others = {"number": np.float32(3.5), "numbers": [np.int64(3), 2], "texts": np.array(["x", "y"], dtype=object)}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({**values, **others, "none": None, "list": ["a"]}, protocol))
    loaded = load_pickle(tmp_path / "x.pkl")
    for key, value in values.items():
        expected = value if isinstance(value, torch.Tensor) else torch.from_numpy(value.astype(value.dtype.name))
        assert torch.equal(loaded[key], expected), key
    assert loaded["number"] == 3.5 and loaded["numbers"] == [3, 2] and loaded["texts"] == ["x", "y"]
    assert loaded["none"] is None and loaded["list"] == ["a"]


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_arrays_of_numpy_1_and_2(tmp_path, core):
    pickled = pickle.dumps(np.arange(3), protocol=2)
    names = [name for name in (b"cnumpy.core.", b"cnumpy._core.") if name in pickled]
    (tmp_path / "x.pkl").write_bytes(pickled.replace(names[0], f"c{core}.".encode()))
    assert load_pickle(tmp_path / "x.pkl").tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "value",
    [
        {"list": ["a", Payload("hacked")]},
        np.array([Payload("hacked")], dtype=object),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        np.load,
    ],
    ids=["nested", "objects", "dates", "function"],
)
def test_pickles_with_anything_else_are_refused(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(ValueError, match=r"x\.pkl cannot be read as a pickle: UnpicklingError"):
        load_pickle(tmp_path / "x.pkl")
    assert not (tmp_path / "hacked").exists()


def test_a_tensor_in_a_pickle_is_read_as_restrictedly(tmp_path):
    inner = io.BytesIO()
    torch.save(Payload(tmp_path / "hacked"), inner, _use_new_zipfile_serialization=False)
    data = inner.getvalue()
    program = b"ctorch.storage\n_load_from_bytes\n" + b"B" + len(data).to_bytes(4, "little") + data + b"\x85R."
    (tmp_path / "x.pkl").write_bytes(b"\x80\x03" + program)
    load_pickle(tmp_path / "x.pkl")
    assert not (tmp_path / "hacked").exists()
