"""Which library arrays come from, and what dtypes it has.

`agree` finds the namespace of a call's arrays. Of the five folders, this one alone imports array-api-compat and
-extra.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from numbers import Number
from typing import Any, cast

import array_api_compat
import numpy as np
from array_api_compat import (
    is_cupy_array,
    is_cupy_namespace,
    is_dask_array,
    is_dask_namespace,
    is_jax_namespace,
    is_torch_array,
    is_torch_namespace,
)

from .devices import device, device_number, moved
from .typing import ArrayT, Namespace

__all__ = [
    "agree",
    "as_dtype",
    "copied_like",
    "creation",
    "float_bits",
    "fourier",
    "has",
    "has_fft",
    "is_bfloat16",
    "is_bool",
    "is_complex",
    "is_dask_array",
    "is_dask_namespace",
    "is_floating",
    "is_jax_namespace",
    "is_kind",
    "is_real",
    "is_supported",
    "is_torch_array",
    "is_torch_namespace",
    "library",
    "missing_dtypes",
    "native",
]


def agree(*, bias: object = None, **arrays: object) -> Namespace:
    """The namespace that all arguments share, or an error about the first that does not fit; a bias may be None."""
    if bias is not None:
        arrays["bias"] = bias
    first: Any
    first, *rest = arrays.values()
    if type(first) is np.ndarray and is_supported(np, first.dtype):
        for one in rest:
            if type(one) is not np.ndarray or one.dtype is not first.dtype:
                break
        else:
            return np  # type: ignore[return-value]  # NumPy's own is the standard's since 2.1, and faster
    kinds = {name: _kind(name, array) for name, array in arrays.items()}
    (leader, (xp, *kind)), *others = kinds.items()
    for name, (_, *other) in others:
        for what, ours, theirs in zip(("library", "device"), kind, other, strict=True):
            if ours != theirs and not (ours is None or theirs is None):  # while JAX traces, an array has no device
                raise TypeError(f"{leader} and {name} must have one {what}: got {ours} and {theirs}")
    return cast(Namespace, next((one for one, *_ in kinds.values() if is_dask_namespace(one)), xp))


def library(name: str, array: Any) -> Namespace:
    """The namespace of an array of any dtype."""
    if not _is_plain(array):
        kind = f"{type(array).__module__}.{type(array).__qualname__}".removeprefix("builtins.")
        instead = _instead(name, array)
        raise TypeError(f"{name} must be a plain array of a library that speaks the Array API: got {kind}{instead}")
    return cast(Namespace, np if isinstance(array, np.ndarray) else array_api_compat.array_namespace(array))


def _kind(name: str, array: Any) -> tuple[Any, str, Any]:
    """An array's namespace, the name of its library and its device, or an error; of dask's chunks the latter two."""
    if is_dask_array(array):
        if any(size != size for size in cast(Any, array).shape):
            raise ValueError(
                f"{name} must have chunks of known sizes: got shape {cast(Any, array).shape}; call its "
                "compute_chunk_sizes() first"
            )
        return library(name, array), *_kind(name, cast(Any, array)._meta)[1:]
    xp: Any = library(name, array)
    if not is_supported(xp, array.dtype):
        if array.dtype == xp.bool:
            raise TypeError(
                f"{name} must be of numbers: got {array.dtype}; convert it first, to float32 for weighted sums or to "
                "int32 for counts"
            )
        numbers = "real or complex numbers of 16, 32 or 64 bits, or of integers"
        raise TypeError(f"{name} must be of {numbers}: got {array.dtype}")
    return xp, xp.__name__.removeprefix("array_api_compat."), device(array)


def _is_plain(array: object) -> bool:
    """Whether arithmetic means what it says: of NumPy's subclasses (masks, matrices, units) only memory maps."""
    if isinstance(array, np.ndarray):
        return type(array) in (np.ndarray, np.memmap)
    if is_torch_array(array):
        return str(cast(Any, array).layout) == "torch.strided" and not cast(Any, array).is_nested
    return array_api_compat.is_array_api_obj(array) and not isinstance(array, np.generic | type)


def _instead(name: str, array: Any) -> str:
    """What to hand over instead of what is no plain array, where that can be told from its type."""
    if is_torch_array(array):
        if array.is_nested:
            return " that is nested; pass its .to_padded_tensor(0.0)"
        return f" of layout {array.layout}; pass its .to_dense()"
    if isinstance(array, type):
        return ""
    if isinstance(array, np.ma.MaskedArray):
        return "; fill it first, or pass its .data, which forgets the mask"
    values = getattr(array, "data", None)
    if _is_plain(values) and getattr(array, "shape", None) == cast(Any, values).shape:  # not those of a sparse matrix
        return "; pass its .data"
    if dense := next((way for way in ("toarray", "todense") if hasattr(array, way)), None):
        return f"; pass its .{dense}()"
    makes = isinstance(array, np.generic | Number | Sequence | memoryview) and not isinstance(array, str | bytes)
    if makes or hasattr(array, "__array__") or hasattr(array, "__array_interface__"):
        return f"; pass np.asarray({name})"
    if hasattr(array, "_value") and hasattr(array, "shape"):  # autograd's ArrayBox
        return "; pass the array in it, and tell the library that traces it of the gradient: conv_backward's"
    return ""


@lru_cache
def is_supported(xp: Any, dtype: Any) -> bool:
    try:
        if is_kind(xp, dtype, "integral"):
            return True
        real = is_kind(xp, dtype, "real floating")
        return (real or is_kind(xp, dtype, "complex floating")) and float_bits(xp, dtype) in (16, 32, 64)[not real :]
    except Exception:  # a dtype that the standard does not know
        return False


def missing_dtypes(x: Any, *, xp: Any) -> frozenset[str]:
    """Which of float64, complex128, int64 and uint64 do not exist on the device of x: their names."""
    if isinstance(x, np.ndarray):
        return _NONE
    place = None if is_dask_namespace(xp) else device(x)  # x may be a chunk's kind of array beside dask's
    key = xp, str(place)  # by name: the devices of some libraries cannot be hashed, CuPy's among them
    if key not in _MISSING or is_jax_namespace(xp):  # in JAX it is a setting, which may change
        there = xp.__array_namespace_info__().dtypes(device=place)
        missing = {"float64", "complex128", "int64"}.difference(there)
        # torch has uint64 and does not say so.
        _MISSING[key] = frozenset(missing | {"uint64"} if "int64" in missing else missing)
    return _MISSING[key]


_NONE: frozenset[str] = frozenset()


_MISSING: dict[tuple[Any, str], frozenset[str]] = {}


def has(xp: Any, dtype: Any, missing: frozenset[str]) -> bool:
    """Whether a dtype of the library is none of those that are missing."""
    return not any(dtype == getattr(xp, name) for name in missing)


def as_dtype(xp: Any, dtype: Any) -> Any:
    """What a user gave, as a dtype that arrays have: NumPy's dtypes, which others use too, have several names."""
    return native(np.dtype(dtype)) if isinstance(xp.empty(0).dtype, np.dtype) else dtype


def native(dtype: Any) -> Any:
    """A dtype in the byte order of the processor: NumPy has some in the other, as files store them."""
    return dtype if getattr(dtype, "isnative", True) else np.dtype(dtype.type)


def creation(xp: Any, dtype: Any, device: Any) -> Callable[[Any], Any]:
    """A function from NumPy's arrays to a library's; without a dtype, to the library's default for real numbers."""
    if not hasattr(xp, "empty"):
        raise TypeError(f"xp must be an array library that speaks the Array API: got {xp!r}")
    xp = array_api_compat.array_namespace(xp.empty(0))
    if is_cupy_namespace(xp) and not (device is None or type(device) is int or isinstance(device, xp.cuda.Device)):
        raise TypeError(f"device must be a cupy.cuda.Device or its number, or None for the current one: got {device!r}")
    try:
        there = xp.asarray(0.0, device=device)
    except Exception as error:  # each library says no in its own way
        name = xp.__name__.removeprefix("array_api_compat.")
        raise ValueError(f"device must be one that {name} has here: got {device!r} ({error})") from None
    given = dtype
    if dtype is None:
        dtype = xp.__array_namespace_info__().default_dtypes(device=device)["real floating"]
    try:
        dtype = as_dtype(xp, dtype)
        fits = is_supported(xp, dtype) and not is_kind(xp, dtype, "integral")
    except TypeError:  # not even hashable
        fits = False
    if not fits:
        raise TypeError(f"dtype must be one for real or complex numbers of 16, 32 or 64 bits: got {given!r}")
    if not has(xp, dtype, missing_dtypes(there, xp=xp)):
        raise TypeError(f"dtype must be one that the device has: got {given!r}")
    return lambda array: xp.asarray(array, dtype=dtype, device=device)


def copied_like(x: Any, like: Any, dtype: Any = None, name: str = "state") -> Any:
    """A copy of x in another array's library and on its device; with its own dtype, where none is given."""
    xp = array_api_compat.array_namespace(like)
    library(name, x)
    x = x.detach() if is_torch_array(x) else x if native(x.dtype) == x.dtype else x.astype(native(x.dtype))
    try:
        x = moved(x, device_number(like)) if array_api_compat.array_namespace(x) is xp else _numpy(x)
        return xp.asarray(x, dtype=dtype, device=device(like), copy=True)
    except TypeError:
        raise TypeError(f"{name} must be of numbers that NumPy and {xp.__name__} have: got {x.dtype}") from None


def _numpy(x: Any) -> Any:
    """The values of x, wherever they lie."""
    if is_torch_array(x) or is_cupy_array(x):
        return np.asarray(array_api_compat.to_device(x, "cpu"))
    main = array_api_compat.array_namespace(x).__array_namespace_info__().default_device()
    return np.asarray(x if main is None else array_api_compat.to_device(x, main))


@lru_cache
def is_kind(xp: Any, dtype: Any, kind: str) -> bool:
    return kind == "real floating" if is_bfloat16(dtype) else bool(xp.isdtype(dtype, kind))


@lru_cache
def float_bits(xp: Any, dtype: Any) -> int:
    """How many bits a real number, or each part of a complex one, has."""
    return 16 if is_bfloat16(dtype) else int(xp.finfo(dtype).bits)


def is_bfloat16(dtype: Any) -> bool:
    """Whether it is the dtype that the package ml_dtypes adds to NumPy, CuPy and JAX: NumPy takes it for no number."""
    return isinstance(dtype, np.dtype) and dtype.name == "bfloat16"


def is_real(x: ArrayT, *, xp: Namespace) -> bool:
    return is_kind(cast(Any, xp), x.dtype, "real floating")


def is_bool(x: ArrayT, *, xp: Namespace) -> bool:
    return is_kind(cast(Any, xp), x.dtype, "bool")


def is_complex(dtype: Any, *, xp: Any) -> bool:
    return is_kind(xp, dtype, "complex floating")


def is_floating(dtype: Any, *, xp: Any) -> bool:
    return not is_kind(xp, dtype, "integral")


def has_fft(xp: Namespace) -> bool:
    """Whether the library has the standard's extension for Fourier transforms."""
    return hasattr(xp, "fft")


def fourier(xp: Namespace) -> Any:
    """The library's Fourier transforms; for NumPy SciPy's where it is installed, twice as fast under the same names."""
    return (_scipy_fft() if cast(Any, xp) is np else None) or xp.fft


@lru_cache(maxsize=1)
def _scipy_fft() -> Any:
    try:
        return import_module("scipy.fft")
    except ImportError:
        return None
