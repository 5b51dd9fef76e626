"""Doors: what the standard lacks or leaves slow in one library, each with a portable way for all other libraries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import product
from typing import Any, TypeVar, cast

import array_api_compat
import array_api_extra
import numpy as np
from array_api_compat import (
    is_cupy_array,
    is_dask_array,
    is_dask_namespace,
    is_jax_array,
    is_torch_array,
)

from .._spec.memory import remember
from .._spec.options import current
from .devices import device
from .namespace import is_kind, missing_dtypes
from .threads import run_all
from .typing import ArrayT, Namespace

__all__ = [
    "MOST_CONSTANTS",
    "add",
    "at_a_time",
    "bits_of",
    "block_bytes",
    "can_check_finite",
    "chunked_like",
    "comparable",
    "complex_of",
    "complex_of_sum",
    "conj",
    "constant",
    "convert",
    "flip",
    "integer_product",
    "is_finite",
    "is_whole",
    "item_bytes",
    "known_equal",
    "lasting",
    "limbs_of",
    "makes_together",
    "matmul",
    "most_parts",
    "multiplied_into",
    "multiplies_halves",
    "multiplies_in_place",
    "on_gpu",
    "place_of",
    "put",
    "quietly",
    "real_parts",
    "scaled",
    "side_by_side",
    "strided_view",
    "taps_outermost",
    "workspace_bytes",
]

S = TypeVar("S")


def taps_outermost(w: ArrayT) -> bool:
    """Whether the taps of a weight (o, c, *kernel) lie further apart in memory than its channels, as in HWIO and OHWI.

    False where the library does not say.
    """
    if isinstance(w, np.ndarray):
        strides = () if w.flags.c_contiguous else w.strides
    else:
        strides = cast(Any, w).stride() if is_torch_array(w) and not cast(Any, w).is_contiguous() else ()
    return len(strides) > 2 and strides[1] < min(strides[2:])


def strided_view(x: ArrayT, shape: tuple[int, ...], axes: tuple[int, ...], steps: tuple[int, ...]) -> ArrayT | None:
    """A view of x, not to be written to, whose axis r walks along axis `axes[r]` of x in steps of `steps[r]`.

    None where the library has no such views: the caller then goes by slices.
    """
    if is_torch_array(x):
        strides = [step * x.stride(axis) for axis, step in zip(axes, steps, strict=True)]
        return cast(ArrayT, x.as_strided(shape, strides, x.storage_offset()))
    if isinstance(x, np.ndarray) and x.flags.c_contiguous:
        strides = [step * x.strides[axis] for axis, step in zip(axes, steps, strict=True)]
        return cast(ArrayT, np.ndarray(shape, x.dtype, x, 0, strides))
    if isinstance(x, np.ndarray) or is_cupy_array(x):
        xp = np if isinstance(x, np.ndarray) else array_api_compat.array_namespace(x)
        as_strided = cast(Any, xp).lib.stride_tricks.as_strided
        strides = [step * x.strides[axis] for axis, step in zip(axes, steps, strict=True)]  # type: ignore[attr-defined]
        return cast(ArrayT, as_strided(x, shape, strides))
    return None


def constant(make: Callable[..., Any], *sizes: Any, like: ArrayT, xp: Namespace) -> ArrayT:
    """A NumPy array that depends on sizes alone, made by `make(*sizes)`, in the library and dtype of another array.

    Copied to a device once, and kept there: for each device, and for each stream of work on it, since what one stream
    copies another may not wait for. Not kept where arrays may belong to a trace, and end with it.
    """
    place = place_of(like)
    key = make, sizes, str(like.dtype), place, _stream(like) if place else None
    kept = _constants.get(key)
    if kept is None:
        kept = xp.asarray(make(*sizes), dtype=like.dtype, device=device(like))
    if place is not None:  # the one that was used last is the newest
        remember(_constants, key, kept, MOST_CONSTANTS)
    return cast(ArrayT, kept)


MOST_CONSTANTS = 64
_constants: dict[Any, Any] = {}


def place_of(x: Any) -> tuple[object, ...] | None:
    """The library and the device where x lies; None where nothing may be kept from call to call."""
    if isinstance(x, np.ndarray):
        return ("numpy",)
    if is_cupy_array(x):
        return "cupy", int(x.device)
    return ("torch", str(x.device)) if is_torch_array(x) and is_whole(x) else None


def _stream(x: Any) -> int:
    """The stream that works on x now; 0 where there is only one."""
    if is_cupy_array(x):
        return int(array_api_compat.array_namespace(x).cuda.get_current_stream().ptr)
    if is_torch_array(x) and x.device.type == "cuda":
        return int(array_api_compat.array_namespace(x).cuda.current_stream(x.device).cuda_stream)
    return 0


def put(out: ArrayT, where: tuple[Any, ...], block: ArrayT, *, xp: Namespace) -> ArrayT:
    """`out` with `block` written at `where`; in place where the library can, so never for an array of the caller's."""
    block = convert(block, out.dtype, xp=xp)
    if _is_writable(out):
        out[where] = block  # type: ignore[index]
        return out
    return cast(ArrayT, array_api_extra.at(cast(Any, out))[where].set(cast(Any, block), xp=cast(Any, xp)))


def add(out: ArrayT, where: tuple[Any, ...], block: ArrayT, *, xp: Namespace) -> ArrayT:
    """`out` with `block` added at `where`; in place where the library can, so never for an array of the caller's."""
    block = convert(block, out.dtype, xp=xp)
    if _is_writable(out):
        part = out[where]
        part += block  # type: ignore[operator]  # not `out[where] += block`, which has torch copy the sum onto itself
        return out
    return cast(ArrayT, array_api_extra.at(cast(Any, out))[where].add(cast(Any, block), xp=cast(Any, xp)))


def scaled(out: ArrayT, factor: ArrayT, *, xp: Namespace) -> ArrayT:
    """`out` times a factor; in place where the library can, so never for an array of the caller's."""
    if _is_writable(out):
        out *= factor  # type: ignore[operator]
        return out
    return xp.multiply(out, factor)


def _is_writable(out: object) -> bool:
    """Whether a part of an array is a view, and writing to it changes the array."""
    return isinstance(out, np.ndarray) or is_torch_array(out) or is_cupy_array(out)


def convert(x: ArrayT, dtype: Any, *, xp: Namespace) -> ArrayT:
    """x in another dtype; integers that floating point holds wrap around as integers do."""
    if x.dtype == dtype:
        return x
    if is_kind(cast(Any, xp), x.dtype, "real floating") and is_kind(cast(Any, xp), dtype, "integral"):
        if isinstance(x, np.ndarray):
            return cast(ArrayT, _wrapped(x, dtype))
        x = xp.astype(x, xp.int64)
    return xp.astype(x, dtype)


def _wrapped(x: np.ndarray[Any, Any], dtype: Any) -> np.ndarray[Any, Any]:
    """Numbers in floating point as integers of a dtype, by way of int64, but not all of them at the same time."""
    out = np.empty_like(x, dtype=dtype)
    roles: Any = (["readonly"], ["writeonly"])
    with np.nditer(
        (x, out), ["external_loop", "buffered", "zerosize_ok"], roles, (np.int64, dtype), casting="unsafe"
    ) as blocks:
        for wide, narrow in blocks:
            narrow[...] = wide
    return out


def flip(x: ArrayT, axes: Sequence[int], *, copied: bool = True, xp: Namespace) -> ArrayT:
    """x in reverse order along the axes, in memory of its own, without negative strides, which BLAS cannot read.

    Kernels that read memory as it lies take a view. Elsewhere than on NumPy and CuPy by indices: under `jit`, JAX's own
    way can end the process (an error of XLA's), and torch has none for unsigned integers of more than 8 bits.
    """
    if isinstance(x, np.ndarray) or is_cupy_array(x):
        where = [slice(None)] * x.ndim
        for axis in axes:
            where[axis] = slice(None, None, -1)
        turned = cast(Any, x)[tuple(where)]
        return cast(ArrayT, turned.copy() if copied else turned)
    if is_dask_namespace(cast(Any, xp)):
        return xp.flip(x, axis=tuple(axes))
    dtype = x.dtype
    if is_torch_array(x) and is_kind(cast(Any, xp), dtype, "unsigned integer"):
        x = convert(x, xp.int64, xp=xp)
    for axis in axes:
        last = x.shape[axis] - 1
        x = xp.take(x, xp.arange(last, -1, -1, dtype=xp.int32, device=device(x)), axis=axis)
    return convert(x, dtype, xp=xp)


def real_parts(x: ArrayT, *, xp: Namespace) -> tuple[ArrayT, ArrayT | None]:
    """The real part of x and, of complex numbers, the imaginary one."""
    if not is_kind(cast(Any, xp), x.dtype, "complex floating"):
        return x, None
    return xp.real(x), xp.imag(x)


def complex_of(real: ArrayT, imaginary: ArrayT, dtype: Any, *, xp: Namespace) -> ArrayT:
    """Complex numbers from their real and imaginary parts."""
    if isinstance(real, np.ndarray) or is_cupy_array(real):
        z: Any = xp.empty(real.shape, dtype=dtype, device=device(real))
        z.real, z.imag = real, imaginary
        return cast(ArrayT, z)
    if is_torch_array(real):
        return cast(ArrayT, cast(Any, xp).complex(real, imaginary))
    return complex_of_sum(real, imaginary, dtype, xp=xp)


def complex_of_sum(real: ArrayT, imaginary: ArrayT, dtype: Any, *, xp: Namespace) -> ArrayT:
    """The same for a library that has only arithmetic.

    The product of i and an infinite number has a real part of 0 * inf, which is NaN. So only finite numbers are
    multiplied by i; infinities and NaN are added as the constants inf i, -inf i and NaN i.
    """
    finite: Any = xp.isfinite(imaginary)
    i: ArrayT = xp.multiply(xp.astype(xp.where(finite, imaginary, 0.0), dtype), cast(Any, 1j))
    for value, at in ((math.inf, imaginary > 0), (-math.inf, imaginary < 0), (math.nan, imaginary != imaginary)):  # type: ignore[operator]
        constant = xp.asarray(complex(0.0, value), dtype=dtype, device=device(real))
        i = xp.where(xp.logical_and(xp.logical_not(finite), at), constant, i)
    return xp.add(xp.astype(real, dtype), i)


def matmul(a: ArrayT, b: ArrayT, *, pieces: int = 1, xp: Namespace) -> ArrayT:
    """(g, ..., m, k) times (g, ..., k, n), each shape in the way that is fast everywhere.

    On NumPy several threads may make it in pieces. With k = 1 it is an outer product, for which NumPy's matmul has no
    BLAS. One group is a product of matrices, which CuPy makes without copying its operands.
    """
    if a.shape[-1] == 1:
        return xp.multiply(a, b)
    if not isinstance(a, np.ndarray) and _lacks_product(a, xp=xp):
        return integer_product(a, b, xp=xp)
    if isinstance(a, np.ndarray) and pieces > 1:
        out = np.empty((*a.shape[:-1], b.shape[-1]), dtype=a.dtype)
        return cast(ArrayT, _multiply(a, cast(Any, b), out, pieces))
    if a.ndim == 3 and a.shape[0] == b.shape[0] == 1:
        return xp.matmul(a[0, ...], b[0, ...])[None, ...]
    return xp.matmul(a, b)


def _multiply(a: Any, b: Any, out: Any, pieces: int) -> Any:
    """`out` after a @ b is written to it, in pieces that do not depend on the number of threads.

    BLAS's own threads would round differently for each number of them, and be in one another's way where several calls
    are made at the same time.
    """
    axis = max(range(out.ndim), key=out.shape.__getitem__)
    step = -(-out.shape[axis] // pieces)

    def piece(start: int) -> None:
        where = (*(slice(None),) * axis, slice(start, start + step))
        first = a if axis == out.ndim - 1 else a[where]
        second = b if axis == out.ndim - 2 else b[where]
        np.matmul(first, second, out=out[where])

    run_all(piece, range(0, out.shape[axis], step), current().threads)
    return out


def multiplied_into(out: ArrayT, where: tuple[Any, ...], a: ArrayT, b: ArrayT, pieces: int) -> bool:
    """Writes a @ b, each matrix a run of memory, to `out[where]`; False, with nothing done, where that would copy."""
    if not isinstance(out, np.ndarray) or out.dtype != a.dtype or a.shape[-1] == 1:
        return False
    try:
        place = out[where].reshape((*a.shape[:-1], b.shape[-1]), copy=False)
    except ValueError:
        return False
    if pieces > 1:
        _multiply(a, b, place, pieces)
    else:
        np.matmul(cast(Any, a), cast(Any, b), out=place)
    return True


def makes_together(x: ArrayT) -> bool:
    """Whether `side_by_side` makes several parts of arrays like x at the same time."""
    return isinstance(x, np.ndarray)


def multiplies_halves(x: ArrayT) -> bool:
    """Whether the library multiplies two matrices of 16-bit numbers as fast as it can, and sums in 32 bits."""
    return is_cupy_array(x)


def multiplies_in_place(x: ArrayT) -> bool:
    """Whether `multiplied_into` writes arrays like x."""
    return isinstance(x, np.ndarray)


def _lacks_product(a: Any, *, xp: Namespace) -> bool:
    """torch multiplies no matrices of integers elsewhere than on a CPU."""
    return is_torch_array(a) and a.device.type != "cpu" and is_kind(cast(Any, xp), a.dtype, "integral")


def integer_product(a: ArrayT, b: ArrayT, *, xp: Namespace) -> ArrayT:
    """The product of integers, wrapping around in their dtype, by products in floating point that are exact.

    Each number is a sum of limbs, which are digits to a base of 2**16: a = sum over i of a_i 2**(16 i). A product of
    two limbs is at most 2**32, so float64, which has 53 bits, adds 2**21 of them without rounding. Limbs whose product
    lies beyond the bits of the dtype are left out. Without float64, limbs of 8 bits are multiplied in float32.
    """
    dtype, bits = a.dtype, cast(Any, xp).iinfo(a.dtype).bits
    wide = "float64" not in missing_dtypes(a, xp=xp)
    limb, digits, floating = (16, 53, xp.float64) if wide else (8, 24, xp.float32)
    count, most = -(-bits // limb), 2 ** (digits - 2 * limb)
    total: ArrayT = xp.zeros((*a.shape[:-1], b.shape[-1]), dtype=xp.int64, device=device(a))
    for start in range(0, a.shape[-1], most):
        stop = min(start + most, a.shape[-1])
        left = limbs_of(a[..., start:stop], limb, count, floating, xp=xp)
        right = limbs_of(b[..., start:stop, :], limb, count, floating, xp=xp)
        for i, j in product(range(count), range(count)):
            if i + j < count:
                part = xp.astype(matmul(left[i], right[j], xp=xp), xp.int64)
                total = xp.add(total, xp.bitwise_left_shift(part, limb * (i + j)))
    return convert(total, dtype, xp=xp)


def limbs_of(x: ArrayT, limb: int, count: int, dtype: Any, *, xp: Namespace) -> list[ArrayT]:
    """The limbs of integers, the lowest first; the highest has their sign."""
    if count == 1:
        return [convert(x, dtype, xp=xp)]
    x, limbs = convert(x, xp.int64, xp=xp), []
    for _ in range(count - 1):
        limbs.append(xp.astype(xp.bitwise_and(x, 2**limb - 1), dtype))
        x = xp.bitwise_right_shift(x, limb)
    return [*limbs, xp.astype(x, dtype)]


def bits_of(x: ArrayT, constants: Sequence[Any] = (), *, xp: Namespace) -> int:
    """How many bits the largest of integers has, without its sign: of the values, or of the dtype where that waits.

    Integers in floating point are of 8 bits. Those of uint64 are taken as int64, which has the same sums.
    """
    if not is_kind(cast(Any, xp), x.dtype, "integral"):
        return 8
    limits = cast(Any, xp).iinfo(x.dtype)
    if limits.bits <= 16 or not can_check_finite(x) or not math.prod(x.shape):
        return int(limits.bits) - int(limits.min < 0)
    x = convert(x, xp.int64, xp=xp)
    ends = int(cast(Any, xp).max(x)), int(cast(Any, xp).min(x)), *map(int, constants)
    return max(max(end.bit_length() for end in ends), 1)


def conj(x: ArrayT, *, xp: Namespace) -> ArrayT:
    """The complex conjugate; a real x as it is."""
    return xp.conj(x) if is_kind(cast(Any, xp), x.dtype, "complex floating") else x


def is_finite(x: ArrayT, *, xp: Namespace) -> bool:
    """Whether x has no NaN and no infinity, which its sum shows; a sum that overflows counts as not finite.

    Returns True unchecked where reading the value would synchronise a device or break a trace.
    """
    if isinstance(x, np.ndarray):
        return bool(np.isfinite(np.add.reduce(x, axis=None)))
    return not can_check_finite(x) or bool(xp.isfinite(xp.sum(x)))


def quietly() -> AbstractContextManager[object]:
    """Turns off NumPy's warnings of overflow and invalid values, where an algorithm itself may cause them."""
    return np.errstate(all="ignore")


def can_check_finite(x: ArrayT) -> bool:
    """Whether the values of x can be read without waiting: not on a GPU, in a trace or in a lazy graph."""
    if isinstance(x, np.ndarray):
        return True
    if is_torch_array(x):
        return cast(Any, x).device.type == "cpu" and is_whole(x)
    if is_cupy_array(x):
        return False
    return not array_api_compat.is_lazy_array(x)


def is_whole(x: Any) -> bool:
    """Whether a tensor of torch has values: its stand-in, while torch compiles, has a type of its own."""
    torch: Any = array_api_compat.array_namespace(x)
    return type(x) in (torch.Tensor, torch.nn.Parameter)


def on_gpu(x: ArrayT) -> bool:
    """Whether x lies on a GPU, or another device that is not the CPU; False in a trace, where that is unknown."""
    return not isinstance(x, np.ndarray) and (place := device(x)) is not None and "cpu" not in str(place).lower()


def workspace_bytes(x: ArrayT) -> int:
    """How many bytes a call may take, where the caller leaves that open."""
    return 2**30 if on_gpu(x) else 2**26


def block_bytes(x: ArrayT, workspace: int) -> int:
    """How many bytes a part should take to be fast: on a GPU all, as nothing but launches grows with parts."""
    if isinstance(x, np.ndarray):
        return min(2**23, workspace // 8)
    if on_gpu(x) and not is_jax_array(x):
        return workspace
    return workspace // 2 if is_jax_array(x) else min(2**22, workspace // 4)


def most_parts(x: ArrayT) -> int:
    """About how many parts to make at most: for JAX each of them is compiled."""
    return 32 if is_jax_array(x) else 2**62


def comparable(x: ArrayT) -> ArrayT | None:
    """A copy of x to compare it with later; None where comparing would wait for a device or break a trace."""
    return cast(ArrayT, x.copy()) if isinstance(x, np.ndarray) else None


def lasting(x: ArrayT | None) -> ArrayT | None:
    """x as it can be copied and pickled: off torch's tape; None if it belongs to a trace, and ends with that."""
    if is_torch_array(x):
        return cast(ArrayT, cast(Any, x).detach())
    return None if x is None or device(x) is None else x


def known_equal(copy: ArrayT | None, x: ArrayT) -> bool:
    """Whether x still has the values that it had when the copy was made."""
    if copy is None or not isinstance(x, np.ndarray) or (copy.dtype, copy.shape) != (x.dtype, x.shape):
        return False
    return bool(np.array_equal(cast(Any, copy), x))


def chunked_like(x: ArrayT, like: ArrayT | None) -> ArrayT:
    """A dask array in the chunks of `like`, if that is a dask array, too."""
    if not is_dask_array(like):
        return x
    return cast(ArrayT, cast(Any, x).rechunk(cast(Any, like).chunks))


def item_bytes(dtype: Any) -> int:
    """How many bytes one number takes; 16, the most that is common, where the library does not say."""
    return int(getattr(dtype, "itemsize", 16))


def at_a_time(x: ArrayT, threads: int) -> int:
    """How many parts `side_by_side` makes at the same time, at most: one where the arrays are not NumPy's."""
    return threads if makes_together(x) else 1


def side_by_side(out: ArrayT, work: Callable[[ArrayT, S], ArrayT], items: Iterable[S], threads: int) -> ArrayT:
    """`out` after all work is done: `work(out, item)` returns it with what belongs to an item.

    On several threads for NumPy's arrays, which work changes in place: other libraries use all cores, or the whole
    device, by themselves. With `threads` 0 the calling thread does it alone, and BLAS uses its own threads.
    """
    if isinstance(out, np.ndarray) and threads:
        run_all(partial(work, out), items, threads)
        return out
    for item in items:
        out = work(out, item)
    return out
