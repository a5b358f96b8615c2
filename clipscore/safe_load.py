"""Read tensors from PyTorch files of others without running what is pickled in them."""

from __future__ import annotations

import pickle
import types
from pathlib import Path
from typing import Any

import torch

# Exact names: a dotted one could reach anything through a function's globals.
ALLOWED = frozenset(
    {("collections", "OrderedDict"), ("torch", "Size"), ("torch.storage", "UntypedStorage")}
    | {("torch._utils", name) for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")}
    | {("torch", f"{kind}Storage") for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Byte")}
    | {("torch", "BoolStorage"), ("torch", "CharStorage")}
)


class _Inert:
    """Stands for every object that is not a tensor or a container; it does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, item: Any) -> None: ...

    def extend(self, items: Any) -> None: ...


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(module, name) if (module, name) in ALLOWED else _Inert


def load_tensors(path: Path) -> Any:
    """The tensors and plain containers of a `torch.save` file; any other object is replaced by an inert one.

    Training checkpoints hold optimizers and schedulers, which `weights_only` loading refuses. Here they are skipped.

    Raises:
        ValueError: the file cannot be read.
    """
    reader = types.SimpleNamespace(
        Unpickler=_Unpickler, load=lambda stream, **options: _Unpickler(stream, **options).load(), __name__="safe_load"
    )
    try:
        return torch.load(path, map_location="cpu", pickle_module=reader, weights_only=False)
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a PyTorch file: {type(error).__name__}: {error}") from error
