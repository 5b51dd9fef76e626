"""Floor 0: the one place that knows array libraries, and the only importer of array-api-compat and -extra.

`agree` finds the namespace of a call's arrays. The rest are doors: what the standard lacks or leaves slow in one
library, each with a portable way that every library can take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, TypeVar, cast

import array_api_compat
import array_api_extra
import numpy as np
from array_api_compat import device, is_cupy_array, is_numpy_array, is_torch_array

from ._typing import ArrayT, Namespace

__all__ = [
    "add",
    "agree",
    "block_bytes",
    "conj",
    "creation",
    "device",
    "item_bytes",
    "matmul",
    "put",
    "side_by_side",
    "strided_view",
]

S = TypeVar("S")
T = TypeVar("T")


# Agreement between the arguments of one call.


def agree(*, bias: object = None, **arrays: object) -> Namespace:
    """The namespace that all arguments share, or a sentence about the first that does not fit; a bias may be None."""
    if bias is not None:
        arrays["bias"] = bias
    kinds = {name: _kind(name, array) for name, array in arrays.items()}
    (first, (xp, *kind)), *others = kinds.items()
    for name, (_, *other) in others:
        for what, ours, theirs in zip(("library", "dtype", "device"), kind, other, strict=True):
            if ours != theirs and not (ours is None or theirs is None):  # while JAX traces, an array has no device
                raise TypeError(f"{first} and {name} must have one {what}: got {ours} and {theirs}")
    return cast(Namespace, xp)


def _kind(name: str, array: Any) -> tuple[Any, str, Any, Any]:
    """An array's namespace, the name of its library, its dtype and its device, or a sentence."""
    if not _is_plain(array):
        kind = f"{type(array).__module__}.{type(array).__qualname__}".removeprefix("builtins.")
        raise TypeError(f"{name} must be a plain array of a library that speaks the Array API: got {kind}")
    xp = array_api_compat.array_namespace(array)
    if not _is_supported(xp, array.dtype):
        numbers = "real or complex numbers of 32 bits or more, or of integers that its library multiplies"
        raise TypeError(f"{name} must be of {numbers}: got {array.dtype}")
    return xp, xp.__name__.removeprefix("array_api_compat."), array.dtype, device(array)


def _is_plain(array: object) -> bool:
    """Whether arithmetic means what it says: of NumPy's subclasses (masks, matrices, units) only memory maps."""
    if isinstance(array, np.ndarray):
        return type(array) in (np.ndarray, np.memmap)
    if is_torch_array(array):
        return str(cast(Any, array).layout) == "torch.strided" and not cast(Any, array).is_nested
    return array_api_compat.is_array_api_obj(array) and not isinstance(array, np.generic | type)


@lru_cache
def _is_supported(xp: Any, dtype: Any) -> bool:
    try:
        if _is_floating(xp, dtype):
            return bool(xp.finfo(dtype).bits >= 32)
        one = xp.ones((1, 1), dtype=dtype)
        return bool(xp.isdtype(dtype, "integral")) and xp.matmul(one, one).dtype == dtype
    except Exception:  # a dtype that the standard does not know, or that the library stores but does not multiply
        return False


def _is_floating(xp: Any, dtype: Any) -> bool:
    return bool(xp.isdtype(dtype, ("real floating", "complex floating")))


def creation(xp: Any, dtype: Any, device: Any) -> Callable[[Any], Any]:
    """What makes a library's array of a NumPy array; without a dtype, in the library's default for real numbers."""
    if not hasattr(xp, "empty"):
        raise TypeError(f"xp must be an array library that speaks the Array API: got {xp!r}")
    xp = array_api_compat.array_namespace(xp.empty(0))
    try:
        xp.empty(0, device=device)
    except Exception as error:  # each library says no in its own way
        raise ValueError(f"device must be one that {xp.__name__} has here: got {device!r} ({error})") from None
    if dtype is None:
        dtype = xp.__array_namespace_info__().default_dtypes(device=device)["real floating"]
    try:
        fits = _is_supported(xp, dtype) and _is_floating(xp, dtype)
    except TypeError:  # not even hashable
        fits = False
    if not fits:
        raise TypeError(f"dtype must be one for real or complex numbers of 32 bits or more: got {dtype!r}")
    return lambda array: xp.asarray(array, dtype=dtype, device=device)


# Doors.


def strided_view(x: ArrayT, shape: tuple[int, ...], axes: tuple[int, ...], steps: tuple[int, ...]) -> ArrayT | None:
    """A view of x, not to be written to, whose axis r walks along axis `axes[r]` of x in steps of `steps[r]`.

    None where the library has no such views: the caller then goes by slices.
    """
    if is_torch_array(x):
        strides = [step * x.stride(axis) for axis, step in zip(axes, steps, strict=True)]
        return cast(ArrayT, x.as_strided(shape, strides, x.storage_offset()))
    if is_numpy_array(x) or is_cupy_array(x):
        as_strided = array_api_compat.array_namespace(x).lib.stride_tricks.as_strided
        strides = [step * x.strides[axis] for axis, step in zip(axes, steps, strict=True)]  # type: ignore[attr-defined]
        return cast(ArrayT, as_strided(x, shape, strides))
    return None


def put(out: ArrayT, where: tuple[Any, ...], block: ArrayT, *, xp: Namespace) -> ArrayT:
    """`out` with `block` written at `where`; in place where the library can, so only for arrays of our own."""
    return cast(ArrayT, array_api_extra.at(cast(Any, out))[where].set(cast(Any, block), xp=cast(Any, xp)))


def add(out: ArrayT, where: tuple[Any, ...], block: ArrayT, *, xp: Namespace) -> ArrayT:
    """`out` with `block` added at `where`; in place where the library can, so only for arrays of our own."""
    return cast(ArrayT, array_api_extra.at(cast(Any, out))[where].add(cast(Any, block), xp=cast(Any, xp)))


def matmul(a: ArrayT, b: ArrayT, *, xp: Namespace) -> ArrayT:
    """(g, ..., m, k) times (g, ..., k, n), each shape in the way that is fast everywhere.

    With one k it is an outer product, for which NumPy's matmul has no BLAS. One group is a product of matrices, which
    CuPy makes without copying its operands.
    """
    if a.shape[-1] == 1:
        return xp.multiply(a, b)
    if a.shape[0] == 1:
        return xp.matmul(a[0, ...], b[0, ...])[None, ...]
    return xp.matmul(a, b)


def conj(x: ArrayT, *, xp: Namespace) -> ArrayT:
    """The complex conjugate; a real x as it is."""
    return xp.conj(x) if xp.isdtype(x.dtype, "complex floating") else x


def block_bytes(x: ArrayT) -> int:
    """How large a block of columns to work on: what a CPU's caches keep, or enough to fill an accelerator."""
    # With BLAS on two Zen 4 cores 4 to 8 MiB were best of 0.5 to 16, and 4 the steadier. 64 MiB is not measured yet.
    return 2**22 if "cpu" in str(device(x)).lower() else 2**26


def item_bytes(x: ArrayT) -> int:
    """How many bytes one number takes; the most that is common where the library does not say."""
    return int(getattr(x.dtype, "itemsize", 16))


def side_by_side(function: Callable[[S], T], blocks: Iterable[S]) -> Iterator[tuple[S, T]]:
    """Each block with the function of it, in the order of the blocks."""
    return ((block, function(block)) for block in blocks)
