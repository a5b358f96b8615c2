"""Read tensors and arrays from files of others without running what is pickled in them."""

import io
import itertools
import logging
import pickle
import pickletools
import re
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from clipscore.models.files import MAX_EXTRA_BYTES, check_whole

HARMLESS = ("numpy.", "torch.optim.", "argparse.Namespace", "collections.defaultdict", "__torch__.Module")
MAX_NAMES, MAX_MODULES = 100, 100_000  # a short pickle can refer to its parts again and again
_REBUILT = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
_SCRIPTED = re.compile(r"__torch__|torch\.\w+\._pickle ")  # modules, and lists of numbers, of TorchScript
log = logging.getLogger(__name__)
_LOCK = threading.Lock()  # torch's list of allowed names is the process's


def load_tensors(path: Path) -> Any:
    """The tensors and plain containers of a weight file; the state dict of a TorchScript archive.

    Nothing else is imported or run: an object of an unknown class is a dict of its items, and a call of anything but
    `HARMLESS` is refused. ValueError for a file that is cut off, cannot be read, or claims more than it holds.
    """
    check_whole(path)
    try:
        if path.suffix == ".safetensors":
            return _without_prefix(load_file(path), path)
        if zipfile.is_zipfile(path) and _records(path, "/constants.pkl"):
            found: Any = dict(_state_dict(_torch_load(_without_code(path)), itertools.count()))
        else:
            found = _torch_load(path)
        _check_extent(found, path)
        return _without_prefix(found, path)
    except Exception as error:  # a damaged file raises almost anything
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be read as weights: {_reason(error)}; expected a file of "
            "torch.save, TorchScript or safetensors; if it is damaged, move it away and get it again"
        ) from error


def _without_prefix(found: Any, path: Path) -> Any:
    """The same, where all names of a state dict begin with `module.`, as DataParallel stores them, without it."""
    if not isinstance(found, dict):
        return found
    if isinstance(found.get("state_dict"), dict):
        return {**found, "state_dict": _without_prefix(found["state_dict"], path)}
    if not found or not all(isinstance(key, str) and key.startswith("module.") for key in found):
        return found
    log.info("%s: all names begin with module., which is taken off", path)
    return {key.removeprefix("module."): value for key, value in found.items()}


def check_numbers(model: nn.Module, stored: Mapping[str, Tensor], what: str) -> None:
    """ValueError: a weight is not finite, or was stored as whole or complex numbers, which loading casts silently."""
    for name, weight in model.state_dict().items():
        kept = stored.get(name, weight)
        if weight.is_floating_point() and not (kept.is_floating_point() and weight.isfinite().all()):
            mend = "get it again, or save it without quantisation"
            raise ValueError(f"{what}: {name} ({kept.dtype}) is expected in finite floating-point numbers; {mend}")


def load_pickle(path: Path) -> Any:
    """The plain containers, tensors and arrays of a file written by `pickle.dump`; arrays become tensors.

    Tensors inside a pickle are a `torch.save` file of their own, which is read as restrictedly. Of numpy nothing is
    called (`_KNOWN`). ValueError for a pickle that refers to anything else, and for what is no pickle.
    """
    check_whole(path)
    try:
        with path.open("rb") as stream:
            found = _without_arrays(_PlainUnpickler(stream).load(), {})
        _check_extent(found, path)
        return found
    except Exception as error:  # a damaged pickle raises almost anything
        reason = f"{_reason(error)}; if it is damaged, get it again"
        raise ValueError(f"{path} cannot be read as a pickle: {reason}") from error


def _reason(error: BaseException) -> str:
    """The cause in one line; torch puts advice before it, how to read the file unsafely."""
    cause = error.__context__ if isinstance(error, pickle.UnpicklingError) and error.__context__ else error
    return f"{type(cause).__name__}: {(str(cause).splitlines() or ['no reason given'])[0]}"


def _torch_load(file: Path | io.BytesIO) -> Any:
    names = set(_names(file))
    if len(names) > MAX_NAMES or "builtins.bytearray" in names:  # torch makes one of any size
        raise pickle.UnpicklingError(f"it refers to {', '.join(sorted(names)[:3])} ({len(names)} names)")
    if isinstance(file, io.BytesIO):
        file.seek(0)
    with _LOCK, torch.serialization.safe_globals([(_stand_in(name), name) for name in names]):
        return torch.load(file, map_location="cpu", weights_only=True)


def _names(file: Path | io.BytesIO) -> Iterator[str]:
    """What the pickles of a `torch.save` file refer to; without zip, three short ones precede the one with tensors."""
    if zipfile.is_zipfile(file):
        pickles = list(map(io.BytesIO, _records(file, "/data.pkl")))
    else:
        pickles = [io.BytesIO(file.getvalue() if isinstance(file, io.BytesIO) else file.read_bytes())] * 4
    for stream in pickles:
        for code, word, _ in pickletools.genops(stream):
            if code.name == "GLOBAL":
                yield str(word).replace(" ", ".").replace("__builtin__", "builtins")


def _records(file: Path | io.BytesIO, ending: str) -> list[bytes]:
    with zipfile.ZipFile(file) as archive:
        return [archive.read(name) for name in archive.namelist() if name.endswith(ending)]


class _Uncalled(type):
    def __call__(cls, *args: Any) -> Any:
        if not cls.__name__.startswith(HARMLESS):
            raise pickle.UnpicklingError(f"it calls {cls.__name__}, which is no tensor or container")
        return super().__call__()


def _stand_in(name: str) -> type:
    """Stands for an unknown class: an object of it is a dict of what is put into it, with its state as attributes."""
    if name.startswith("numpy."):  # their state is a tuple
        return _Uncalled(name, (), {"__setstate__": lambda self, state: None})
    return _Uncalled(name, (), {"__new__": lambda cls, *args: OrderedDict()})


def _without_code(path: Path) -> io.BytesIO:
    """A TorchScript archive as `torch.save` would have written it, with one class for all of its modules."""
    plain = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(plain, "w") as copy:
        for record in archive.infolist():
            if record.filename.endswith("/data.pkl"):
                copy.writestr(record.filename, _one_class(archive.read(record)))
            elif not record.filename.endswith("/constants.pkl"):
                copy.writestr(record.filename, archive.read(record))
    return plain


def _one_class(data: bytes) -> bytes:
    codes = [(code.name == "GLOBAL" and _SCRIPTED.match(str(word)), at) for code, word, at in pickletools.genops(data)]
    ends = [at for _, at in codes[1:]] + [len(data)]
    pairs = zip(codes, ends, strict=True)
    return b"".join(b"c__torch__\nModule\n" if is_scripted else data[at:end] for (is_scripted, at), end in pairs)


def _state_dict(module: Any, visits: Iterator[int], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if next(visits) > MAX_MODULES:
        raise pickle.UnpicklingError("its modules hold each other without end")
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, OrderedDict):
            yield from _state_dict(value, visits, f"{prefix}{name}.")


def _check_extent(value: Any, path: Path) -> None:
    """Refuse tensors that claim to be larger than their file, and such as are not plain numbers."""
    extents, seen, left = dict[tuple[int, ...], int](), set[int](), [value]
    while left:
        item = left.pop()
        if isinstance(item, Tensor):
            if item.layout is not torch.strided or item.is_meta or item.is_quantized:
                raise pickle.UnpicklingError("it holds a tensor that is not plain numbers")
            extents[(item.data_ptr(), *item.shape, *item.stride())] = item.numel() * item.element_size()
        elif isinstance(item, dict | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            left += item.values() if isinstance(item, dict) else item
    if sum(extents.values()) > path.stat().st_size + MAX_EXTRA_BYTES:
        raise pickle.UnpicklingError(f"its tensors claim {sum(extents.values()):,} bytes")


class _Dtype:
    """Stands for numpy.dtype: a type of numbers, by its name and byte order."""

    def __init__(self, name: str, *_: Any) -> None:
        self.name = name
        self.order: Literal["<", ">", "="] = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="

    def read(self, data: bytes | str) -> np.ndarray:
        """Numbers from their bytes, which the oldest protocols store as text."""
        dtype = np.dtype(self.name)
        if dtype.kind not in "biuf":
            raise pickle.UnpicklingError(f"an array of {self.name}, expected numbers")
        return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, dtype.newbyteorder(self.order))


class _Array:
    """Stands for an array in the making: what numpy would call `_reconstruct`, and its state."""

    def __init__(self, *_: Any) -> None:
        self.value: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, data = state
        # A list is an array of objects, which went through this unpickler themselves.
        self.value = data if isinstance(data, list) else _from_buffer(data, dtype, shape, "F" if is_fortran else "C")


def _from_buffer(data: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    return dtype.read(data).reshape(shape, order="F" if order == "F" else "C")


def _latin1(text: str, encoding: str) -> bytes:
    """Stands for codecs.encode, by which the oldest protocols store bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}, expected latin1")
    return text.encode("latin1")


_NUMPY_CORES = ("numpy.core", "numpy._core")  # before numpy 2, and since
# All that a pickle may refer to, by exact names: a dotted one could reach anything through a function's globals.
_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): torch.Size,
    **{("torch._utils", name): getattr(torch._utils, name) for name in _REBUILT},
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,  # an argument of _reconstruct, never called
    ("_codecs", "encode"): _latin1,
    ("torch.storage", "_load_from_bytes"): lambda data: _torch_load(io.BytesIO(data)),
    **{(f"{core}.multiarray", "_reconstruct"): _Array for core in _NUMPY_CORES},
    **{(f"{core}.multiarray", "scalar"): lambda dtype, data: dtype.read(data)[0].item() for core in _NUMPY_CORES},
    **{(f"{core}.numeric", "_frombuffer"): _from_buffer for core in _NUMPY_CORES},
}


class _PlainUnpickler(pickle._Unpickler):
    """Python's own form of the unpickler: that in C takes memory for a memo, or an array, of any size it is told."""

    dispatch = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: pickle._Unpickler.dispatch[pickle.BINBYTES8[0]]}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is no container, tensor or array")
        return _KNOWN[module, name]


def _without_arrays(value: Any, done: dict[int, Any]) -> Any:
    """Arrays in dicts, lists and tuples become tensors; what stands in several places, and is in `done` by id, once."""
    if isinstance(value, _Array):
        return _without_arrays(value.value, done)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.astype(value.dtype.newbyteorder("="), copy=True))
    # Hundreds of thousands of captions or numbers: they are looked at only where they could hold something.
    is_plain = isinstance(value, list | tuple) and bool(value) and isinstance(value[0], str | int | float)
    if is_plain or not isinstance(value, dict | list | tuple):
        return value
    if id(value) not in done:
        items = (_without_arrays(item, done) for item in (value.values() if isinstance(value, dict) else value))
        done[id(value)] = dict(zip(value, items, strict=True)) if isinstance(value, dict) else type(value)(items)
    return done[id(value)]
