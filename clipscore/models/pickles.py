"""Read tensors and arrays from files of others without running what is pickled in them."""

import io
import pickle
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from clipscore.models.files import check_whole

# Exact names: a dotted one could reach anything through a function's globals.
ALLOWED = frozenset(
    {("collections", "OrderedDict"), ("torch", "Size"), ("torch.storage", "UntypedStorage")}
    | {("torch._utils", name) for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")}
    | {("torch", f"{kind}Storage") for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Byte")}
    | {("torch", "BoolStorage"), ("torch", "CharStorage")}
)


class _Inert:
    """Stands for every object that is not a tensor or a container; it does nothing."""

    def _ignore(self, *args: Any, **kwargs: Any) -> None: ...

    __init__ = __setstate__ = __setitem__ = append = extend = _ignore


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(module, name) if (module, name) in ALLOWED else _Inert


def load_tensors(path: Path) -> Any:
    """The tensors and plain containers of a `torch.save` file; any other object is replaced by an inert one.

    Training checkpoints hold optimizers and schedulers, which `weights_only` loading refuses. Here they are skipped.
    ValueError for a file that is cut off, or cannot be read.
    """
    if path.is_file():
        check_whole(path)
    try:
        return _torch_load(path)
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a PyTorch file: {type(error).__name__}: {error}") from error


def _torch_load(file: Path | io.BytesIO) -> Any:
    reader = types.SimpleNamespace(
        Unpickler=_Unpickler, load=lambda stream, **options: _Unpickler(stream, **options).load(), __name__="safe_load"
    )
    return torch.load(file, map_location="cpu", pickle_module=reader, weights_only=False)


def load_pickle(path: Path) -> Any:
    """The plain containers, tensors and arrays of a file written by `pickle.dump`; tensors and arrays become tensors.

    Tensors inside a pickle are a `torch.save` file of their own, which is read as restrictedly. Of numpy nothing is
    called: its names stand for the readers below, which take numbers from bytes. ValueError for a pickle that refers
    to anything but containers, tensors and arrays of numbers, and for what is no pickle.
    """
    try:
        with path.open("rb") as stream:
            return _without_arrays(_PlainUnpickler(stream).load())
    except Exception as error:  # a damaged pickle raises almost anything
        raise ValueError(f"{path} cannot be read as a pickle: {type(error).__name__}: {error}") from error


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
        if isinstance(data, list):  # an array of objects, which went through this unpickler themselves
            self.value = data
        else:
            self.value = _from_buffer(data, dtype, shape, "F" if is_fortran else "C")


def _from_buffer(data: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    return dtype.read(data).reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: _Dtype, data: bytes | str) -> int | float | bool:
    return dtype.read(data)[0].item()


def _latin1(text: str, encoding: str) -> bytes:
    """Stands for codecs.encode, by which the oldest protocols store bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}, expected latin1")
    return text.encode("latin1")


_NUMPY_CORES = ("numpy.core", "numpy._core")  # before numpy 2, and since
STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,  # an argument of _reconstruct, never called
    ("_codecs", "encode"): _latin1,
    ("torch.storage", "_load_from_bytes"): lambda data: _torch_load(io.BytesIO(data)),
    **{(f"{core}.multiarray", "_reconstruct"): _Array for core in _NUMPY_CORES},
    **{(f"{core}.multiarray", "scalar"): _scalar for core in _NUMPY_CORES},
    **{(f"{core}.numeric", "_frombuffer"): _from_buffer for core in _NUMPY_CORES},
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in STAND_INS:
            return STAND_INS[module, name]
        if (module, name) in ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is no container, tensor or array")


def _without_arrays(value: Any) -> Any:
    """Arrays in dicts, lists and tuples become tensors."""
    if isinstance(value, dict):
        return {key: _without_arrays(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        # Hundreds of thousands of captions or numbers: they are looked at only where they could hold something.
        if value and isinstance(value[0], (str, int, float)):
            return value
        return type(value)(_without_arrays(item) for item in value)
    if isinstance(value, _Array):
        return _without_arrays(value.value)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.astype(value.dtype.newbyteorder("="), copy=True))
    return value
