"""A door for the direct algorithm: kernels that compute a convolution where its operands lie.

Those for CuPy are here. Their source is `direct.cu`, in CUDA C++; CuPy compiles it once for each combination of dtypes,
rank and width of indices, and keeps what it has compiled. What depends on sizes is handed over with each launch, as
integers. Those for NumPy are in `direct_cpu.py`, and there only where llvmlite is installed.

The kernels pad with zeros: any other border is a matter of the operand, which is read together with it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from importlib import resources
from sys import modules
from typing import Any

import numpy as np
from array_api_compat import is_cupy_array

from .._spec.geometry import Geometry
from . import direct_cpu
from .assembly import can_compile
from .devices import on_device_of

__all__ = ["direct_forward", "direct_waste", "direct_weight_grad", "direct_workspace", "has_kernels", "kernels_for"]

THREADS = 128  # in a block
SUMMING = 2**17  # threads that sum dw, where there are so many products: they keep a large device busy
LEAST = 32  # products that a thread sums, where there are so many: partial sums are few compared to products
NEIGHBOURS = 32  # threads at least that sum the same numbers of dw: as many as read memory together
SAMPLES, CHANNELS, TAPS = 4, 4, 8  # what one thread computes together, at most
MOST = 2**30  # elements that are counted in 32 bits: half of what these hold, as places may lie beyond the padding

TYPES = {
    "float16": "Half",
    "bfloat16": "BFloat16",
    "float32": "float",
    "float64": "double",
    "complex64": "Complex<float>",
    "complex128": "Complex<double>",
}
FIELDS = ("size", "kernel", "stride", "dilation", "lo", "out")  # what a kernel knows of each axis


def has_kernels(x: Any, *dtypes: Any) -> bool:
    """Whether there are kernels for the library of x, with numbers of its dtype and these.

    CuPy has them for floats and complex numbers, NumPy with llvmlite for float32 and float64.
    """
    if isinstance(x, np.ndarray):
        return all(dtype in direct_cpu.TYPES for dtype in (x.dtype, *dtypes)) and can_compile()
    return is_cupy_array(x) and all(str(dtype) in TYPES for dtype in (x.dtype, *dtypes))


def kernels_for(geometry: Geometry, slot: str, item_bytes: int, on_gpu: bool) -> str | None:
    """Which kernels, where there are any, fill that slot of such a geometry; None if none do."""
    return "direct" if on_gpu else direct_cpu.kind(geometry, slot, item_bytes)


def direct_workspace(kernels: str, geometry: Geometry, slot: str, item_bytes: int) -> int:
    """How many bytes such kernels take, at so many a number: for partial sums of dw, and for a thread's jobs.

    An operand that is not in C order is copied into it for a GPU, which takes its own size besides.
    """
    if kernels != "direct":
        return direct_cpu.workspace(kernels, geometry, slot, item_bytes)
    return math.prod(geometry.w_shape) * math.prod(_slices(geometry)) * item_bytes if slot == "w" else 0


def direct_waste(kernels: str, geometry: Geometry, slot: str, turned: bool) -> float:
    """How much longer a product takes than it might, about; `turned` where the taps are reversed."""
    return 1.0 if kernels == "direct" else direct_cpu.waste(kernels, geometry, slot, turned)


def direct_forward(x: Any, w: Any, bias: Any, out: Any, within: tuple[slice, ...] | None, geometry: Geometry) -> None:
    """Write y to `out`, which is in C order, or to the elements that slices of its last axes choose.

    The weight, and the bias or None, have the dtype to compute in; x and `out` may have another one.
    """
    if isinstance(out, np.ndarray):
        direct_cpu.forward(x, w, bias, out, within, geometry)
        return
    if not math.prod(geometry.y_shape):
        return
    steps = [math.prod(out.shape[axis + 1 :]) for axis in range(out.ndim)]
    slices = (slice(None),) * (out.ndim - len(within or ())) + (within or ())
    chosen = [range(size)[one] for size, one in zip(out.shape, slices, strict=True)]
    first = sum(one.start * step for one, step in zip(chosen, steps, strict=True))
    sample, channel, *along = (one.step * step for one, step in zip(chosen, steps, strict=True))
    numbers = (first, sample, channel, *[0] * (_rank(geometry) - len(along)), *along)
    threads = -(-geometry.samples // SAMPLES) * _channel_blocks(geometry) * geometry.positions
    with on_device_of(x):
        arrays = (_in_order(x), _in_order(w), np.uintp(0) if bias is None else _in_order(bias), out)
        _launch("direct_forward", threads, arrays, numbers, (x.dtype, w.dtype, out.dtype), geometry)


def direct_weight_grad(dy: Any, x: Any, geometry: Geometry, dtype: Any) -> Any:
    """dw in the dtype to compute in, which dy and x need not have.

    Each thread sums a part of the products, and the partial sums are added in an order that follows from their number:
    the same call has the same result to the last bit.
    """
    if isinstance(x, np.ndarray):
        return direct_cpu.weight_grad(dy, x, geometry, dtype)
    cupy: Any = modules["cupy"]
    with on_device_of(x):
        if not (math.prod(geometry.w_shape) and geometry.samples and geometry.positions):
            return cupy.zeros(geometry.w_shape, dtype=dtype)
        slices = _slices(geometry)
        sums = cupy.empty((math.prod(geometry.w_shape), math.prod(slices)), dtype=dtype)
        threads, arrays = _tiles(geometry) * math.prod(slices), (_in_order(dy), _in_order(x), sums)
        _launch("direct_weight_grad", threads, arrays, slices, (x.dtype, sums.dtype, dy.dtype), geometry)
        return cupy.sum(sums, axis=1).reshape(geometry.w_shape)


def _launch(
    name: str,
    threads: int,
    arrays: tuple[Any, ...],
    numbers: tuple[int, ...],
    dtypes: tuple[Any, ...],
    geometry: Geometry,
) -> None:
    """Run a kernel in so many threads or a few more, on the device and the stream that are current."""
    axes = [(*axis[:5], axis.out) for axis in geometry.axes]
    axes = [(1, 1, 1, 1, 0, 1)] * (_rank(geometry) - len(axes)) + axes
    wide = max(threads, _reach(geometry), *(array.size for array in arrays)) > MOST
    values = (*geometry.counts, *numbers, *(value for field in zip(*axes, strict=True) for value in field))
    kernel = _kernel(name, len(axes), _channels(geometry), wide, tuple(TYPES[str(dtype)] for dtype in dtypes))
    kernel((-(-threads // THREADS),), (THREADS,), (*arrays, *map(np.int64 if wide else np.int32, values)))


@lru_cache(maxsize=256)
def _kernel(name: str, rank: int, channels: int, wide: bool, types: tuple[str, ...]) -> Any:
    return modules["cupy"].RawKernel(kernel_source(rank, channels, wide, types), name)


def kernel_source(rank: int, channels: int, wide: bool, types: tuple[str, ...]) -> str:
    """The source of both kernels: for so many axes, for channels computed together, and for the types of x, w and y."""
    names = {field: [f"{field}{axis}" for axis in range(rank)] for field in ("step", *FIELDS)}

    def parameters(*fields: str) -> str:
        return ", ".join(f"const Index {name}" for field in fields for name in names[field])

    def values(*fields: str) -> str:
        return ", ".join(f"{{{', '.join(names[field])}}}" for field in fields)

    written = {
        "Y_STEP_PARAMETERS": parameters("step"),
        "Y_STEP_VALUES": values("step"),
        "AXIS_PARAMETERS": parameters(*FIELDS),
        "AXIS_VALUES": values(*FIELDS),
    }
    sizes = {"RANK": rank, "SAMPLES": SAMPLES, "CHANNELS": channels, "TAPS": TAPS}
    named = dict(zip(("Input", "Number", "Output"), types, strict=True))
    defined = {**sizes, "Index": "long long" if wide else "int", **named}
    source = resources.files(__package__).joinpath("direct.cu").read_text(encoding="utf-8")
    for mark, text in written.items():
        source = source.replace(mark, text)
    return "".join(f"#define {name} {value}\n" for name, value in defined.items()) + source


def _rank(geometry: Geometry) -> int:
    """The axes that kernels have: with two at least, fewer of them are compiled."""
    return max(len(geometry.axes), 2)


def _channels(geometry: Geometry) -> int:
    """How many output channels of a group a thread computes: a power of two, so that fewer kernels are compiled."""
    return CHANNELS if geometry.outputs > 2 else max(geometry.outputs, 1)


def _channel_blocks(geometry: Geometry) -> int:
    return geometry.groups * -(-geometry.outputs // _channels(geometry))


def _tiles(geometry: Geometry) -> int:
    """How many runs of taps dw consists of, each of them for as many output channels as a thread computes."""
    *rows, row = (1, *geometry.kernel)
    return _channel_blocks(geometry) * geometry.inputs * math.prod(rows) * -(-row // TAPS)


def _slices(geometry: Geometry) -> tuple[int, int]:
    """Into how many slices the samples and the positions are cut that dw is summed over, a thread for each of them."""
    products = geometry.samples * geometry.positions
    threads = max(min(SUMMING // max(_tiles(geometry), 1), products // LEAST), NEIGHBOURS)
    positions = max(min(geometry.positions, threads), 1)
    return min(geometry.samples, max(threads // positions, 1)), positions


def _reach(geometry: Geometry) -> int:
    """More than the largest number of elements that a kernel counts in x, with its padding."""
    spans = (max(axis.size, axis.padded, axis.extent) + TAPS * axis.dilation for axis in geometry.axes)
    return geometry.samples * geometry.groups * geometry.inputs * math.prod(spans)


def _in_order(x: Any) -> Any:
    """x in C order: kernels take memory as it lies."""
    return modules["cupy"].asarray(x, order="C")
