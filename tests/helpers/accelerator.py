"""A pretended accelerator: tensors say they are on `pgpu:0`, and are computed, for real, on the CPU.

What it is for: finding on a machine without a GPU what a GPU would refuse (tensors of two devices in one operation,
`.numpy()` or a CPU generator where the device's is needed), and counting what decides a GPU's speed: kernels started,
waits of the host for the device, bytes copied each way. Values are those of the CPU, so that a training on it must end
with the CPU's assignments. Under `torch.autocast("pgpu", torch.bfloat16)` products take and give bfloat16, and where
`torch.get_float32_matmul_precision()` is not `highest` float32 ones round their factors to TF32's 10 bits.

    with accelerator() as count:
        result = trainer.train(settings, data, PlainRun(device="pgpu"))
    print(count)   # Counter: kernels, views, host syncs, h2d copies, h2d bytes, d2h copies, d2h bytes

The host waits for results that it reads, for operations whose result has a size that only the device knows, and for
copies to the device that are not `non_blocking`. Collectives of torch.distributed reach gloo with the inner tensors.

Not for: speed, memory, NCCL, bf16 on the card, anything of torch.cuda. Works with torch 2.14 (the Python backend of
`PrivateUse1`, which is experimental: it stays in the tests).
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "pgpu"
aten = torch.ops.aten
COUNT: Counter[str] = Counter()


class _Backend(_DummyBackendModule):
    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def synchronize(self, *_: Any) -> None:
        COUNT["host syncs"] += 1

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


_setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
DEVICE = torch.device(NAME, 0)
_ANY, _AMP = (torch.library.Library(name, "IMPL", "AutocastPrivateUse1") for name in ("_", "aten"))
_ANY.fallback(torch.library.fallthrough_kernel)
_INDEXING = {
    aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}  # fmt: skip
_COPIES = {aten.copy_.default, aten._to_copy.default, aten._copy_from.default, aten.lift_fresh.default}
_WAITS = {
    aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default, aten._unique2.default,
    aten.unique_consecutive.default, aten.unique_dim.default, aten.masked_select.default, aten.bincount.default,
    aten.repeat_interleave.Tensor, aten.isin.Tensor_Tensor, aten._linalg_eigh.default, aten._linalg_solve_ex.default,
}  # fmt: skip
_FACTORS = {  # of products, where among the arguments
    aten.mm.default: (0, 1), aten.mm.out: (0, 1), aten.bmm.default: (0, 1), aten.addmm.default: (1, 2),
    aten.addmm_.default: (1, 2), aten.convolution.default: (0, 1), aten.convolution_backward.default: (0, 1, 2),
}  # fmt: skip
_SEEDS: set[int] = set()  # of the device's generators: torch hands a dispatcher a new wrapper of a generator


class Generator(torch.Generator):
    """While the accelerator is in use: a generator of the device that it is asked for, with the CPU's draws."""

    def __new__(cls, device: Any = "cpu") -> "Generator":
        return super().__new__(cls, "cpu")

    def __init__(self, device: Any = "cpu") -> None:
        self.on_device = _ours(device)

    def manual_seed(self, seed: int) -> "Generator":
        if self.on_device:
            _SEEDS.add(seed)
        super().manual_seed(seed)
        return self


class DeviceTensor(torch.Tensor):
    """A tensor of the pretended device; `inner` holds its values on the CPU."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "DeviceTensor":
        more: dict[str, Any] = {}
        if inner.layout == torch.strided:
            more = {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, layout=inner.layout, device=DEVICE, requires_grad=False, **more
        )

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    def __repr__(self) -> str:
        return f"DeviceTensor({self.inner!r})"

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"can't convert a {NAME} tensor to numpy; use Tensor.cpu() first")

    __array__ = numpy

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def data_ptr(self) -> int:
        return self.inner.data_ptr()  # a card's tensors have addresses too, though none that the host may read

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _ours(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, DeviceTensor) else value


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    on_device = [t for t in tensors if isinstance(t, DeviceTensor)]
    others = [t for t in tensors if not isinstance(t, DeviceTensor) and t.dim() > 0]
    if on_device and others and func not in _INDEXING | _COPIES:
        raise RuntimeError(f"expected all tensors on one device, found {NAME} and cpu in {func} "
                           f"(on the cpu: {[tuple(t.shape) for t in others]})")  # fmt: skip
    to_device = _ours(kwargs["device"]) if kwargs.get("device") is not None else bool(on_device)
    if func is aten.copy_.default or func in _INDEXING:
        to_device = isinstance(args[0], DeviceTensor)
    if func in _INDEXING and on_device and not to_device:
        raise RuntimeError(f"indices of a cpu tensor should be on the cpu: {func}")
    generator = kwargs.get("generator")
    if to_device and generator is not None and generator.initial_seed() not in _SEEDS:
        raise RuntimeError(f"expected a generator of {NAME}, found one of the cpu in {func}")
    if on_device or to_device:
        _tally(func, args, kwargs, to_device)
    plain = {key: _inner(value) for key, value in kwargs.items()}
    if _ours(plain.get("device")):
        plain["device"] = torch.device("cpu")
    plain |= {key: False for key in ("pin_memory", "non_blocking") if plain.get(key)}
    originals = {id(t.inner): t for t in on_device}  # what an operation in place returns is the tensor itself

    def wrapped(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or isinstance(value, DeviceTensor):
            return value
        if id(value) in originals:
            return originals[id(value)]
        return DeviceTensor(value) if to_device else value

    return tree_map(wrapped, func(*_rounded(func, tree_map(_inner, args)), **tree_map(_inner, plain)))


def _rounded(func: Any, args: Any) -> list[Any]:
    """The arguments of an operation; those of a product as precise as torch's switch has them."""
    coarse = _FACTORS.get(func, ()) if torch.get_float32_matmul_precision() != "highest" else ()
    return [_tf32(arg) if place in coarse else arg for place, arg in enumerate(args)]


def _tf32(x: torch.Tensor) -> torch.Tensor:
    """Rounded to 10 bits behind the point; sparse matrices, which a card multiplies in float32, are left alone."""
    if x.dtype != torch.float32 or x.layout != torch.strided:
        return x
    return ((x.contiguous().view(torch.int32) + 0x1000) & -0x2000).view(torch.float32)


def _tally(func: Any, args: Any, kwargs: dict[str, Any], to_device: bool) -> None:
    COUNT["views" if func.is_view else "kernels"] += 1
    COUNT["host syncs"] += func in _WAITS
    if func in _INDEXING and to_device:
        indices = [i for i in args[1] if i is not None]
        sizes_unknown = any(i.dtype in (torch.bool, torch.uint8) for i in indices)
        elsewhere = any(i.dim() > 0 and not isinstance(i, DeviceTensor) for i in indices)
        COUNT["host syncs"] += sizes_unknown or elsewhere
    if func not in (aten._to_copy.default, aten.copy_.default, aten.lift_fresh.default):
        return
    source = args[1] if func is aten.copy_.default else args[0]
    way = {(True, False): "d2h", (False, True): "h2d"}.get((isinstance(source, DeviceTensor), to_device))
    if func is aten.lift_fresh.default:  # torch.tensor(..., device=...) has filled it from the host
        way = "h2d"
    if way and source.numel():
        waits = not (kwargs.get("non_blocking") or (func is aten.copy_.default and len(args) > 2 and args[2]))
        COUNT[f"{way} copies"] += 1
        COUNT[f"{way} bytes"] += source.numel() * source.element_size()
        COUNT["host syncs"] += way == "d2h" or waits


@torch.library.impl("aten::empty_strided", "PrivateUse1")
def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> torch.Tensor:
    return DeviceTensor(torch.empty_strided(size, stride, dtype=dtype, device="cpu"))


@torch.library.impl("aten::empty.memory_format", "PrivateUse1")
def _empty(size: Any, *, dtype: Any = None, memory_format: Any = None, **_: Any) -> torch.Tensor:
    kind = memory_format or torch.contiguous_format
    return DeviceTensor(torch.empty(size, dtype=dtype, device="cpu", memory_format=kind))


@torch.library.impl("aten::_copy_from", "PrivateUse1")
def _copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    _inner(target).copy_(_inner(source))
    return target


def _rounding(product: Any) -> Any:
    """The product of inputs that were rounded to bfloat16, in bfloat16."""

    def rounded(*args: Any) -> Any:
        keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return product(*(x.bfloat16() if isinstance(x, torch.Tensor) else x for x in args))

    return rounded


for _name in ("mm", "addmm", "bmm", "convolution"):
    _AMP.impl(_name, _rounding(getattr(aten, _name)))


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@contextmanager
def accelerator() -> Iterator[Counter[str]]:
    """While inside, `device="pgpu"` works; yields the counts since entering."""
    COUNT.clear()
    with _Mode(), mock.patch.object(torch, "Generator", Generator):
        yield COUNT
