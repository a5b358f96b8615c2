"""Reading a file of others runs nothing that is in it, ends soon, and takes no more memory than the file suggests."""

import io
import os
import pickle
import re
import resource
import struct
import tarfile
import time
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from clipscore.models.load import build_openai_layout
from clipscore.models.pickles import load_pickle, load_tensors

ARCHIVES = Path(__file__).parent.parent / "torchscript"


class Called:
    """Pickled as a call."""

    def __init__(self, function, *words):
        self.function, self.words = function, words

    def __reduce__(self):
        return (self.function, self.words)


class Config(dict):
    """A class of others, with items and a state."""


class Scripted(torch.nn.Module):
    """What reading it by TorchScript would run."""

    @torch.jit.export
    def __getstate__(self):
        return "canary"

    @torch.jit.export
    def __setstate__(self, state: str):
        self.training = torch.from_file(state, True, 8).numel() > 0

    def forward(self, x):
        return x


def saved(value: object, zipped: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def rezipped(data: bytes, program: bytes | None = None, **others: bytes) -> bytes:
    """An archive with another pickle and more records, all of them deflated."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as plain, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as copy:
        for record in plain.namelist():
            copy.writestr(record, program if program and record.endswith("data.pkl") else plain.read(record))
        for name, content in others.items():
            copy.writestr(f"{record.partition('/')[0]}/{name}", content)
    return made.getvalue()


def tensor(size: int, stride: int, numel: int = 2) -> bytes:
    """A pickle of one tensor, of any size, in a checkpoint's first storage."""
    numbers = b"".join(pickle.BININT + struct.pack("<i", number) for number in (numel, 0, size, stride))
    storage = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpu" + numbers[:5] + b"tQ"
    return b"\x80\2ctorch._utils\n_rebuild_tensor\n(" + storage + numbers[5:15] + b"\x85" + numbers[15:] + b"\x85tR."


def dotted(module: str, name: str) -> bytes:
    """A lookup of protocol 4, whose name reaches through an object."""
    return b"".join(b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, name)) + b"\x93"


def many_records() -> bytes:
    with zipfile.ZipFile(made := io.BytesIO(), "w") as archive:
        for number in range(30_000):
            archive.writestr(str(number), b"")
    return made.getvalue()


def tar(*names: str) -> bytes:
    with tarfile.open(fileobj=(made := io.BytesIO()), mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return made.getvalue()


def scripted(**changes: bytes) -> bytes:
    return rezipped((ARCHIVES / "vit_trace.pt").read_bytes(), **changes)


def pickled_bytes(data: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(data)) + data


def head(shape: str, end: str) -> bytes:
    """A .safetensors file of 8 bytes with what its head says of them."""
    text = f'{{"w": {{"dtype": "F32", "shape": [{shape}], "data_offsets": [0, {end}]}}}}'.encode()
    return struct.pack("<Q", len(text)) + text + bytes(8)


CALL = b"\x80\2cbuiltins\nopen\nX\6\0\0\0canaryX\1\0\0\0w\x86R."
SYSTEM = b"\x80\2cposix\nsystem\nX\x0c\0\0\0touch canary\x85R."
LOOK = dotted("torch._utils", "_rebuild_tensor.__globals__.get") + b"\x8c\x0c__builtins__\x85R"
EXEC = dotted("torch._utils", "_rebuild_tensor.__globals__.__class__.get") + LOOK + b"\x8c\4exec\x86R"
DEEP = b"\x80\4" + EXEC + b"\x8c\x13open('canary', 'w')\x85R."
DOUBLED = b"\x80\2N" + b"2\x86" * 60 + b"."  # each pair holds the one before it twice
NAMES = b"".join(b"cx\ny%d\n" % number for number in range(999)) + b"."
BYTES = b"\x80\2cbuiltins\nbytearray\n\x8a\5\0\0\0\0@\x85R."  # 2 to the 38
CALLS, DATES = Called(open, "canary", "w"), np.array(["2020-01-01"], dtype="datetime64[D]")
INNER = b"\x80\3ctorch.storage\n_load_from_bytes\n"
CONFIG = {"w": torch.ones(2), "config": Config(a=1)}
HOSTILE = {  # kind -> the content of a file, and what is said of it; nothing where it does no harm
    "zip: call": (lambda: saved(CALLS), r"it calls _?io\.open"),
    "zip: blocked module": (lambda: rezipped(saved(0), SYSTEM), r"posix\.system"),
    "zip: dotted name": (lambda: rezipped(saved(0), DEEP), "Unsupported operand"),
    "zip: object with a state": (lambda: saved(CONFIG), ""),
    "zip: many names": (lambda: rezipped(saved(0), NAMES), "999 names"),
    "zip: bytes of any number": (lambda: rezipped(saved(0), BYTES), "bytearray"),
    "zip: stride of 0": (lambda: rezipped(saved(torch.ones(2)), tensor(2**30, 0)), "claim 4,294,967,296 bytes"),
    "zip: size that lies": (lambda: rezipped(saved(torch.ones(2)), tensor(2**30, 1)), "cannot be read as weights"),
    "zip: sparse": (lambda: saved(torch.eye(3).to_sparse()), "not plain numbers"),
    "zip: bomb": (lambda: rezipped(saved(0), bomb=bytes(2**29)), "unpacks to far more"),
    "zip: many records": (many_records, "unpacks to far more"),
    "zip: cut off": (lambda: saved(0)[:-30], "end of its zip archive"),
    "legacy: call": (lambda: saved(CALLS, False), r"it calls _?io\.open"),
    "legacy: cut off": (lambda: saved(torch.ones(9), False)[:-20], "cannot be read as weights"),
    "legacy: object with a state": (lambda: saved(CONFIG, False), ""),
    "tar": (lambda: tar("storages", "../canary"), "cannot be read as weights"),
    "TorchScript: code": (lambda: torch.jit.save(torch.jit.script(Scripted()), "a.pt"), "cannot be read as weights"),
    "TorchScript: call": (lambda: scripted(program=CALL), r"it calls builtins\.open"),
    "TorchScript: blocked module": (lambda: scripted(program=SYSTEM), r"posix\.system"),
    "TorchScript: doubled": (lambda: scripted(program=DOUBLED), "cannot be read as weights"),
    "safetensors: long head": (lambda: struct.pack("<Q", 2**40) + b"{}", "truncated"),
    "safetensors: offsets": (lambda: head("9", "9999"), "truncated"),
    "safetensors: shape": (lambda: head("9" * 18, "8"), "truncated"),
    "pickle: call": (lambda: pickle.dumps({"list": ["a", CALLS]}), r"io\.open"),
    "pickle: function": (lambda: pickle.dumps(np.load), "it refers to numpy.load"),
    "pickle: objects": (lambda: pickle.dumps(np.array([CALLS], dtype=object)), r"io\.open"),
    "pickle: dates": (lambda: pickle.dumps(DATES), "expected numbers"),
    "pickle: call in a tensor": (lambda: INNER + pickled_bytes(saved(CALLS, False)) + b"\x85R.", r"calls _?io\.open"),
    "pickle: doubled": (lambda: DOUBLED, ""),
    "pickle: memo": (lambda: b"\x80\2Nr\xff\xff\xff\x7f.", ""),
    "pickle: bytes of any number": (lambda: b"\x80\5\x96\0\0\0\0\x40\0\0\0.", "cannot be read"),
    "pickle: in itself": (lambda: b"\x80\2]q\0h\0a.", "RecursionError"),
    "web page": (lambda: b"\n<!DOCTYPE html><html>", "is a web page"),
    "git-lfs pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
}


def in_a_child(read: Callable[[], object]) -> tuple[str, float, int]:
    """How reading ends, its seconds, and the bytes that it took."""
    receive, send = os.pipe()
    if not (child := os.fork()):
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
        start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            said = f"read: {type(read())}"
        except BaseException as error:
            said = f"refused: {error}"
        took = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        os.write(send, pickle.dumps((said[:2000], time.monotonic() - start, took)))
        os._exit(0)
    os.close(send)
    os.waitpid(child, 0)
    return pickle.loads(os.read(receive, 1 << 16))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    content, message = HOSTILE[kind]
    path = Path({"pickle": "a.pkl", "safetensors": "a.safetensors"}.get(kind.partition(":")[0], "a.pt"))
    if data := content():
        path.write_bytes(data)
    Path("canary").unlink(missing_ok=True)
    said, seconds, memory = in_a_child(lambda: (load_pickle if path.suffix == ".pkl" else load_tensors)(path))
    assert said.startswith("refused") == bool(message) and re.search(message, said), said
    assert seconds < 30 and memory < 3 * path.stat().st_size + 200 * 2**20
    assert list(Path().iterdir()) == [path]  # and no canary


def torchscript(tower: str, how: str, path: Path) -> None:
    """An archive in OpenAI's layout, in fp16, with weights that are the same each time."""
    vit, resnet = {"layers": 1, "width": 64, "patch_size": 16}, {"layers": (1, 1, 1, 1), "width": 2}
    vision = vit if tower == "vit" else resnet
    text = open_clip.CLIPTextCfg(context_length=8, vocab_size=16, width=64, heads=1, layers=1)
    model = open_clip.CLIP(16, open_clip.CLIPVisionCfg(image_size=32, **vision), text, quick_gelu=True).eval()
    for number, tensor in enumerate(model.state_dict().values()):
        tensor.copy_((torch.arange(tensor.numel()) + number).remainder(61).view(tensor.shape) / 64)
    inputs = torch.zeros(1, 3, 32, 32), torch.zeros(1, 8, dtype=torch.long)
    made = torch.jit.script(model) if how == "script" else torch.jit.trace(model, inputs, check_trace=False)
    made.half().save(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["trace", "script"])
@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_torchscript_archives_are_read_without_torchscript(tmp_path, tower, how):
    torchscript(tower, how, tmp_path / "made.pt")
    for path in (ARCHIVES / f"{tower}_{how}.pt", tmp_path / "made.pt"):
        expected, found = dict(torch.jit.load(path).state_dict()), load_tensors(path)
        assert found.keys() == expected.keys() and found["visual.conv1.weight"].dtype == torch.half
        assert all(t.dtype == found[k].dtype and torch.equal(t, found[k]) for k, t in expected.items())
        build_openai_layout(found)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_tensors_come_through_and_other_objects_hold_their_state(tmp_path, zipped):
    parameter = torch.nn.Parameter(torch.arange(4.0))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(torch.optim.SGD([parameter], lr=0.1), 5)
    checkpoint = {
        "state_dict": {"ctx": torch.arange(6.0).view(2, 3), "half": torch.ones(2).half(), "parameter": parameter},
        "scheduler": schedule, "args": Namespace(lr=1), "best": np.float64(3.5), "config": Config(a=1), "epoch": 50,
    }  # fmt: skip
    torch.save(checkpoint, tmp_path / "model.pth.tar-50", _use_new_zipfile_serialization=zipped)
    loaded = load_tensors(tmp_path / "model.pth.tar-50")
    assert all(torch.equal(loaded["state_dict"][key], value) for key, value in checkpoint["state_dict"].items())
    assert loaded["epoch"] == 50 and loaded["config"] == {"a": 1} and vars(loaded["args"]) == {"lr": 1}
    assert type(loaded["config"]) is not Config and not isinstance(loaded["best"], float)


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


def test_no_code_of_ours_knows_torchscript():
    files = list(ARCHIVES.parent.parent.glob("[crs]*/**/*.py"))  # clipscore, the tasks, scripts
    assert len(files) > 100 and not [path for path in files if "torch.jit" in path.read_text()]
