"""A CUDA device without a GPU: tensors that say they are on "cuda:0", have CUDA's autograd and autocast, and compute on
the CPU.

    with pretend_cuda() as device:
        model.to("cuda"); ...                     # everything that asks torch sees one CUDA device
    device.waits                                  # every place where the host would have waited for the device

What is real: CUDA's autocast (its C++ operator lists and weight cache), CUDA's branches of Python code, GradScaler,
fused AdamW, data-dependent control flow, and the numbers: products of half-precision matrices are summed in float32 and
rounded once, as tensor cores do. Attention is one kernel forwards and one backwards.
What is checked: operations that mix CPU and CUDA tensors raise CUDA's error; each host wait is recorded, and refused
under `torch.cuda.set_sync_debug_mode("error")`; a copy to the host that is not waited for is refused; an operation
without a deterministic kernel raises where torch's deterministic mode is on; a CUDA graph takes the shape that it was
captured for, waits for nothing, and its result is lost with the next.
What is not: kernels, memory, speed, streams, whether memory is pinned.
Once in a process, autograd is told that the machine has another accelerator.
"""

import contextlib
import functools
import runpy
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch._dynamo  # before anything of torch is replaced
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

aten = torch.ops.aten
CUDA, CPU = torch.device("cuda:0"), torch.device("cpu")
HALVES = {torch.float16, torch.bfloat16}
ROOT = str(Path(__file__).resolve().parent.parent)
plain_attention = F.scaled_dot_product_attention
_engine = threading.local()  # .inside: autograd's C++ engine is at work, which must not look for streams of a GPU

PRODUCTS = {aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten.convolution, aten.convolution_backward, aten.mv,
            aten.addmv, aten.dot}  # fmt: skip
READS = {aten._local_scalar_dense, aten.equal, aten.is_nonzero, aten.allclose}  # they return a number of Python
ALWAYS_WAIT = READS | {aten.nonzero, aten.masked_select, aten._unique, aten._unique2, aten.unique_dim,
                       aten.unique_consecutive, aten.bincount}  # fmt: skip
NO_DETERMINISTIC_KERNEL = {  # for floats
    aten.cumsum, aten.upsample_bicubic2d_backward, aten.upsample_bilinear2d_backward, aten.scatter_reduce,
    aten.kthvalue, aten._adaptive_avg_pool2d_backward, aten.max_pool2d_with_indices_backward, aten.put, aten.put_,
    aten.grid_sampler_2d_backward, aten.reflection_pad2d_backward, aten.histc, aten.median,
}  # fmt: skip
INDEXING = {aten.index, aten._index_put_impl_, aten.index_put, aten.index_put_, aten._unsafe_index}
NO_LAUNCH = {  # views, metadata and memory that is not written
    "view", "_unsafe_view", "reshape", "_reshape_alias", "expand", "permute", "transpose", "t", "unsqueeze", "squeeze",
    "select", "slice", "split", "split_with_sizes", "unbind", "chunk", "unfold", "as_strided", "detach", "alias",
    "narrow", "diagonal", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh",
    "lift", "unflatten", "flatten", "is_same_size", "sym_size", "sym_stride", "sym_numel", "real", "resize_", "set_",
    "_local_scalar_dense", "numel", "size",
}  # fmt: skip


def why_not() -> str | None:
    """Why this process cannot pretend; None where it can."""
    if torch.cuda.is_available():
        return "there is a GPU: python -m pytest -m gpu tests"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA"
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 10):
        return f"torch {torch.__version__} is older than 2.10"
    return None


@dataclass(frozen=True)
class Wait:
    """A place where the host waits for the device."""

    operation: str
    why: str
    where: str


@dataclass
class Device:
    """What was seen on the device."""

    waits: list[Wait] = field(default_factory=list)
    operations: Counter[str] = field(default_factory=Counter)
    casts: Counter[int] = field(default_factory=Counter)  # to half precision, by the address of what was cast
    sync_mode: str = "default"

    def wait(self, operation: Any, why: str) -> None:
        self.waits.append(Wait(str(operation), why, _where()))
        if self.sync_mode == "error":
            raise RuntimeError(f"called a synchronizing CUDA operation: {self.waits[-1]}")

    @property
    def launches(self) -> Counter[str]:
        """Operations that are neither a view nor an allocation; a `_foreach` or fused one counts as one."""
        return Counter({name: n for name, n in self.operations.items() if name.split(".")[0] not in NO_LAUNCH})


class CudaTensor(torch.Tensor):
    """A tensor on the device; `raw` is the CPU tensor that holds its numbers."""

    raw: torch.Tensor
    is_cpu, is_cuda = False, True
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> "CudaTensor":
        assert not isinstance(raw, CudaTensor)
        self = torch.Tensor._make_subclass(cls, raw.detach(), False, dispatch_device=True, device_for_backend_keys=CUDA)
        self.raw = raw.detach()
        return self

    @property
    def device(self) -> torch.device:
        return CPU if getattr(_engine, "inside", False) else CUDA

    def tolist(self) -> Any:
        _devices[-1].wait("tolist", "device to host")
        return self.raw.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __repr__(self, *_: Any) -> str:
        return f"CudaTensor({self.raw!r})"

    def __format__(self, spec: str) -> str:
        return self.item().__format__(spec) if self.dim() == 0 else object.__format__(self, spec)

    def __reduce_ex__(self, protocol: int) -> Any:  # torch.save: read back with map_location="cpu", as on a real device
        return self.raw.__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> "CudaTensor":
        if id(self) not in memo:
            copy = CudaTensor(self.raw.clone()).requires_grad_(self.requires_grad)
            is_parameter = getattr(self, "_is_param", False)
            memo[id(self)] = torch.nn.Parameter(copy, self.requires_grad) if is_parameter else copy
        return memo[id(self)]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, _devices[-1] if _devices else Device())


_devices: list[Device] = []  # the innermost is the one in use


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, _devices[-1])


def _run(func: Any, args: Any, kwargs: dict[str, Any], seen: Device) -> Any:
    if func is torch.ops.prim.device.default:
        return CPU if getattr(_engine, "inside", False) else CUDA
    packet, target = func.overloadpacket, kwargs.get("device")
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    on_device = [x for x in tensors if isinstance(x, CudaTensor)]
    to_cuda = target is not None and torch.device(target).type == "cuda"
    if packet in (aten.is_pinned, aten._pin_memory) and not on_device:
        return packet is aten.is_pinned or args[0]
    if not on_device and not to_cuda:
        return func(*args, **kwargs)
    if target is not None and torch.device(target).type not in ("cuda", "cpu"):  # meta
        return func(*tree_map(_raw, args), **kwargs)
    name = str(func).removeprefix("aten.")
    if packet in (aten._to_copy, aten.to) and target is not None and to_cuda != isinstance(args[0], CudaTensor):
        _note_copy(name, args[0], to_cuda, bool(kwargs.get("non_blocking")), seen)
        copy = func(_raw(args[0]), **{k: v for k, v in kwargs.items() if k not in ("device", "non_blocking")})
        copy = copy.clone() if copy.data_ptr() == _raw(args[0]).data_ptr() else copy
        return CudaTensor(copy) if to_cuda else copy
    if packet is aten.copy_:
        into, source = args[:2]
        if isinstance(into, CudaTensor) != isinstance(source, CudaTensor):
            non_blocking = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
            _note_copy(name, source, isinstance(into, CudaTensor), non_blocking, seen)
        else:
            seen.operations[name] += 1
        _raw(into).copy_(_raw(source))
        return into
    _check_mixture(name, packet, args, tensors, seen)
    if packet in ALWAYS_WAIT:
        seen.wait(name, "the host reads a value or a size")
    if packet in INDEXING and any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1]):
        seen.wait(name, "a mask is an index: its size is asked")
    if packet is aten.repeat_interleave and func._overloadname == "Tensor" and kwargs.get("output_size") is None:
        seen.wait(name, "repeat_interleave without output_size")
    if packet in NO_DETERMINISTIC_KERNEL and any(x.is_floating_point() for x in on_device):
        seen.operations["nondeterministic"] += 1
        if torch.are_deterministic_algorithms_enabled():
            raise RuntimeError(f"{name} does not have a deterministic implementation, {_where()}")
    if packet is aten._to_copy and kwargs.get("dtype") in HALVES and args[0].dtype not in HALVES:
        seen.casts[args[0].raw.untyped_storage().data_ptr()] += 1
    seen.operations[name] += 1
    raw_args, raw_kwargs = tree_map(_raw, (args, kwargs))
    raw_kwargs |= {"device": CPU} if to_cuda else {}
    out = _compute(func, packet, raw_args, {k: v for k, v in raw_kwargs.items() if k != "pin_memory"})
    if packet in READS:
        return out
    wrapped = tree_map(lambda x: CudaTensor(x) if isinstance(x, torch.Tensor) else x, out)
    return return_and_correct_aliasing(func, args, kwargs, wrapped)


def _compute(func: Any, packet: Any, args: Any, kwargs: Any) -> Any:
    """The operation on CPU tensors; half-precision products are summed in float32 and rounded once."""
    if packet in (aten._softmax, aten._log_softmax) and args[2]:  # from half to float in one kernel, on CUDA only
        return func(args[0].float(), args[1], False)
    if packet in PRODUCTS:
        flat, spec = tree_flatten((args, kwargs))
        kinds = {x.dtype for x in flat if isinstance(x, torch.Tensor)}
        if kinds & HALVES:
            if len(kinds) > 1:  # CUDA's products refuse this
                raise RuntimeError(f"{func}: expected tensors of the same dtype, got {sorted(map(str, kinds))}")
            (half,) = kinds
            args, kwargs = tree_unflatten([x.float() if isinstance(x, torch.Tensor) else x for x in flat], spec)
            return tree_map(lambda x: x.to(half) if isinstance(x, torch.Tensor) else x, func(*args, **kwargs))
    return func(*args, **kwargs)


def _raw(x: Any) -> Any:
    return x.raw if isinstance(x, CudaTensor) else x


def _note_copy(name: str, source: torch.Tensor, to_cuda: bool, non_blocking: bool, seen: Device) -> None:
    if source.numel() and non_blocking and not to_cuda:
        raise RuntimeError(f"{name}: a copy to the host with non_blocking=True may be read before it has arrived")
    if source.numel() and not non_blocking:
        seen.wait(name, "host to device, blocking" if to_cuda else "device to host")


def _check_mixture(name: str, packet: Any, args: Any, tensors: list[torch.Tensor], seen: Device) -> None:
    hosts = [x for x in tensors if not isinstance(x, CudaTensor) and x.dim() > 0]
    if packet in INDEXING and isinstance(args[0], CudaTensor):
        indices = [x for x in args[1] if x is not None and not isinstance(x, CudaTensor)]
        for _ in indices:
            seen.wait(name, "an index on the CPU is copied to the device")
        hosts = [x for x in hosts if not any(x is index for index in indices)]
    if hosts and len(hosts) < len(tensors):
        raise RuntimeError(
            f"{name}: expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu "
            f"(CPU shapes {[list(x.shape) for x in hosts]})"
        )


def _where() -> str:
    """The innermost line of the project's own code, and of the models' library below it."""
    frame, library = sys._getframe(1), ""
    while frame is not None:
        file, place = frame.f_code.co_filename, f"{frame.f_lineno} {frame.f_code.co_name}"
        if "site-packages" in file:
            if not library and ("transformers" in file or "open_clip" in file):
                library = f" <- {file.split('site-packages/')[-1]}:{place}"
        elif file.startswith(ROOT) and file != __file__:
            return f"{file.removeprefix(ROOT + '/')}:{place}{library}"
        frame = frame.f_back
    return "?"


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any, mask: Any, options: dict[str, Any]) -> CudaTensor:
        ctx.save_for_backward(query, key, value)
        ctx.mask, ctx.options = mask, options
        _devices[-1].operations["attention"] += 1
        return CudaTensor(_attend([_upcast(x) for x in (query, key, value)], mask, options).to(query.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        _devices[-1].operations["attention_backward"] += 1
        with torch.enable_grad():
            raw = [_upcast(x).detach().requires_grad_() for x in ctx.saved_tensors]
            gradients = torch.autograd.grad(_attend(raw, ctx.mask, ctx.options), raw, _upcast(gradient))
        pairs = zip(gradients, ctx.saved_tensors, strict=True)
        return *(CudaTensor(g.to(x.dtype)) for g, x in pairs), None, None


def _attend(inputs: list[torch.Tensor], mask: Any, options: dict[str, Any]) -> torch.Tensor:
    return plain_attention(*inputs, attn_mask=None if mask is None else _upcast(mask), **options)


def _upcast(x: CudaTensor) -> torch.Tensor:
    return x.raw.float() if x.dtype in HALVES else x.raw


def _attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0, is_causal: bool = False, **more: Any
) -> Any:
    """`F.scaled_dot_product_attention` as one operation, with its autocast."""
    options = {"dropout_p": dropout_p, "is_causal": is_causal, **more}
    if not isinstance(query, CudaTensor):
        return plain_attention(query, key, value, attn_mask, **options)
    inputs = [query, key, value, attn_mask]
    if torch.is_autocast_enabled("cuda"):
        kind, casts = torch.get_autocast_dtype("cuda"), (torch.float32, *HALVES)
        inputs = [x.to(kind) if x is not None and x.dtype in casts else x for x in inputs]
    kinds = {x.dtype for x in inputs if x is not None and x.dtype != torch.bool}
    if len(kinds) > 1 or any(x is not None and not isinstance(x, CudaTensor) for x in inputs):
        raise RuntimeError(f"attention: expected one type on one device, got {kinds}, {[type(x) for x in inputs]}")
    return _Attention.apply(*inputs, options)


@functools.cache
def _register() -> Any:
    """Let autograd's engine believe that the machine's accelerator is another one, without streams."""
    from torch.utils.backend_registration import _DummyBackendModule

    class Guard(torch._C._acc.DeviceGuard):
        def type_(self) -> Any:
            return torch._C._autograd.DeviceType.PrivateUse1

    class Hooks(torch._C._acc.PrivateUse1Hooks):
        is_available = is_built = has_primary_context = lambda self, *_: False

    class Module(_DummyBackendModule):
        is_available = device_count = lambda self: 0

    torch.utils.rename_privateuse1_backend("nothing")
    torch._register_device_module("nothing", Module())
    kept = Hooks(), Guard()
    torch._C._acc.register_python_privateuseone_hook(kept[0])
    torch._C._acc.register_python_privateuseone_device_guard(kept[1])
    torch._C._ensureCUDADeviceGuardSet()
    return kept  # by the cache


def _within(value: bool, plain: Any) -> Any:
    """The function, with `_engine.inside` so."""

    def call(*args: Any, **kwargs: Any) -> Any:
        before, _engine.inside = getattr(_engine, "inside", False), value
        try:
            return plain(*args, **kwargs)
        finally:
            _engine.inside = before

    return call


@contextlib.contextmanager
def pretend_cuda() -> Iterator[Device]:
    """One CUDA device for the time being; torch's deterministic mode is put back at the end."""
    _register()
    device = Device()
    run_backward = _within(True, torch.autograd.graph._engine_run_backward)
    plain_compatible = torch._has_compatible_shallow_copy_type

    def synchronize(*_: Any) -> None:
        device.wait("synchronize", "asked for")

    def compatible(*pair: torch.Tensor) -> bool:  # whether Module.to keeps the parameter's object
        return not any(isinstance(x, CudaTensor) for x in pair) and plain_compatible(*pair)

    def graphed(module: torch.nn.Module, example: tuple[torch.Tensor], allow_unused_input: bool) -> Any:
        kept: list[CudaTensor] = []

        def replay(images: torch.Tensor) -> torch.Tensor:
            if [images.shape, images.dtype] != [example[0].shape, example[0].dtype]:
                raise RuntimeError(f"captured for {example[0].shape}, {example[0].dtype}, got {images.shape}")
            for old in kept:  # its memory is written anew
                old.raw.fill_(torch.nan)
            before, device.sync_mode = device.sync_mode, "error"
            kept[:] = [module(images)]
            device.sync_mode = before
            device.operations["replay"] += 1
            return kept[0]

        return replay

    answers = {
        "is_available": True, "device_count": 1, "current_device": 0, "is_initialized": True, "_is_in_bad_fork": False,
        "get_device_name": "a pretended GPU", "get_device_capability": (9, 0), "is_bf16_supported": True,
        "max_memory_allocated": 0, "is_current_stream_capturing": False, "current_stream": mock.MagicMock(),
        **dict.fromkeys(["_lazy_init", "empty_cache", "set_device", "reset_peak_memory_stats", "manual_seed_all"]),
    }  # fmt: skip
    apply = _within(False, torch.autograd.function.BackwardCFunction.apply)
    replaced = [(torch.cuda, name, lambda *_, answer=answer, **__: answer) for name, answer in answers.items()] + [
        (torch.cuda, "Event", lambda **_: mock.Mock(synchronize=synchronize, elapsed_time=lambda _: 0.0)),
        (torch.cuda, "synchronize", synchronize),
        (torch.cuda, "make_graphed_callables", graphed),
        (torch.cuda, "set_sync_debug_mode", lambda mode: setattr(device, "sync_mode", mode)),
        (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        (torch.autograd.graph, "_engine_run_backward", run_backward),
        (torch.autograd, "_engine_run_backward", run_backward),
        (torch.autograd.function.BackwardCFunction, "apply", apply),
        (torch, "_has_compatible_shallow_copy_type", compatible),
        (F, "scaled_dot_product_attention", _attention),
    ]
    with contextlib.ExitStack() as stack:
        for place, name, value in replaced:
            stack.enter_context(mock.patch.object(place, name, value))
        stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.callback(torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled())
        stack.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda"): on the CPU first, then a copy
        stack.callback(_devices.pop)
        _devices.append(device)
        stack.enter_context(_Mode())
        yield device


if __name__ == "__main__":  # python -m tests.pretend_cuda MODULE ...: a command as on a machine with a GPU
    sys.argv = sys.argv[1:]
    from tests import pretend_cuda as imported  # which this one is not, but __main__

    with imported.pretend_cuda():
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
