"""Dtypes: the one of the result, and the one that it is computed in."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

from .namespace import as_dtype, float_bits, has, is_bfloat16, is_complex, is_kind, is_supported, native
from .typing import Namespace

__all__ = [
    "DTypes",
    "accumulating",
    "exact",
    "fitting",
    "gradient_dtype",
    "holds",
    "real_dtype",
    "result_dtype",
    "widest",
    "working",
]


@lru_cache
def real_dtype(dtype: Any, *, xp: Any) -> Any:
    """The dtype of the real part of complex numbers; a real dtype itself."""
    dtype, parts = native(dtype), {"complex64": "float32", "complex128": "float64"}
    return next((_named(xp, part) for name, part in parts.items() if dtype == getattr(xp, name)), dtype)


def result_dtype(xp: Any, wanted: Any, missing: frozenset[str], **dtypes: Any) -> Any:
    """The dtype of what is computed from operands of these dtypes, or an error about those that do not fit."""
    if wanted is not None:
        return _wanted(xp, wanted, missing, dtypes)
    (first, ours), (name, theirs) = dtypes.items()
    found = _promoted(xp, ours, theirs)
    if found is None or not has(xp, found, missing):
        raise TypeError(
            f"{first} and {name} must both be integers that one dtype holds, or both real or complex numbers, or go "
            f"with a dtype for the result: got {ours} and {theirs}"
        )
    return found


def gradient_dtype(xp: Any, wanted: Any, missing: frozenset[str], **dtypes: Any) -> Any:
    """The same for a gradient, which may be narrower than the operands, and real where they are complex."""
    if wanted is None:
        return result_dtype(xp, None, missing, **dtypes)
    return _wanted(xp, wanted, missing, dtypes, gradient=True)


@lru_cache
def _promoted(xp: Any, first: Any, second: Any) -> Any:
    """The narrowest dtype that has the numbers of both, as the standard says; None for an integer with another kind."""
    first, second = native(first), native(second)
    if first == second:
        return first
    integral = [is_kind(xp, dtype, "integral") for dtype in (first, second)]
    if all(integral):
        names = (f"{kind}{bits}" for bits in (8, 16, 32, 64) for kind in ("int", "uint"))
        candidates = (_named(xp, name) for name in names)
        return next((one for one in candidates if _holds(xp, one, first) and _holds(xp, one, second)), None)
    if any(integral):
        return None
    for one, other in ((first, second), (second, first)):
        if is_complex(one, xp=xp) >= is_complex(other, xp=xp) and float_bits(xp, one) > float_bits(xp, other):
            return one
    wide = max(float_bits(xp, first), float_bits(xp, second)) == 64
    if is_complex(first, xp=xp) or is_complex(second, xp=xp):
        return _named(xp, "complex128" if wide else "complex64")
    return _named(xp, "float64" if wide else "float32")  # of two that have 16 bits each


def holds(xp: Any, wide: Any, dtype: Any) -> bool:
    """Whether a dtype is what it and another are promoted to."""
    found = _promoted(xp, wide, dtype)
    return found is not None and bool(found == wide)  # to NumPy, None is a dtype, too


def _wanted(xp: Any, wanted: Any, missing: frozenset[str], dtypes: dict[str, Any], gradient: bool = False) -> Any:
    """The dtype that a user asks for, if the operands' convert to it without loss; integers to any other kind."""
    given = wanted
    try:
        wanted = as_dtype(xp, wanted)
        fits = is_supported(xp, wanted)
    except TypeError:  # nothing like a dtype; not even hashable
        fits = False
    if not fits:
        raise TypeError(f"dtype must be one for numbers, of the operands' library: got {given!r}")
    if not has(xp, wanted, missing):
        raise TypeError(f"dtype must be one that the operands' device has: got {given!r}")
    complexes = any(is_complex(dtype, xp=xp) for dtype in dtypes.values())
    real = is_complex(wanted, xp=xp) < complexes and not gradient
    for name, dtype in dtypes.items():
        integers = is_kind(xp, wanted, "integral") and not is_kind(xp, dtype, "integral")
        other = integers or real or is_complex(wanted, xp=xp) > complexes
        if other or not (gradient or _holds(xp, wanted, native(dtype))):
            lossless = "" if gradient else " and hold all its numbers"
            raise TypeError(f"dtype must be of the kind of {name}'s{lossless}: got {wanted} for {dtype}")
    return wanted


def _holds(xp: Any, wide: Any, dtype: Any) -> bool:
    """Whether a dtype has all numbers of another of its kind; torch's `can_cast` is true for others, too.

    Integers become numbers of any other kind as `astype` makes them.
    """
    if wide == dtype or is_kind(xp, dtype, "integral") > is_kind(xp, wide, "integral"):
        return True
    if is_kind(xp, dtype, "integral"):
        ours, theirs = xp.iinfo(wide), xp.iinfo(dtype)
        return bool(ours.min <= theirs.min and theirs.max <= ours.max)
    ours, theirs = float_bits(xp, wide), float_bits(xp, dtype)
    return ours > theirs or ours == theirs > 16


def fitting(xp: Any, value: complex, dtype: Any) -> complex:
    """A padding value as a number of the kind of x's dtype, or an error where it is none of its numbers."""
    made: complex
    if is_kind(xp, dtype, "bool"):
        made, fits = bool(value), value in (0, 1)
    elif is_kind(xp, dtype, "integral"):
        limits = xp.iinfo(dtype)
        fits = not isinstance(value, complex) and limits.min <= value <= limits.max and value % 1 == 0
        made = int(value.real) if fits else 0
    else:
        largest = float(xp.finfo(xp.float32 if is_bfloat16(dtype) else real_dtype(dtype, xp=xp)).max)
        fits = is_complex(dtype, xp=xp) or not isinstance(value, complex)
        fits = fits and all(abs(part) <= largest or not math.isfinite(part) for part in (value.real, value.imag))
        made = (complex(value) if is_complex(dtype, xp=xp) else float(value.real)) if fits else 0
    if not fits:
        raise ValueError(f"padding_value must be a number that x's dtype has: got {value!r} for {dtype}")
    return made


class DTypes(NamedTuple):
    """The dtypes of one call."""

    x: Any  # of the arrays
    w: Any
    y: Any
    dx: Any  # of the gradients
    dw: Any
    compute: Any  # to multiply and add x and w in
    compute_grad: Any  # to multiply and add dy and one of the others in
    mixed: bool  # whether some are real and some complex

    @classmethod
    def of(cls, x: Any, w: Any, y: Any, missing: frozenset[str], *, xp: Namespace) -> DTypes:
        mixed = len({is_complex(dtype, xp=xp) for dtype in (x, w, y)}) > 1
        real = tuple(real_dtype(dtype, xp=xp) for dtype in (x, w, y)) if mixed else (x, w, y)
        forward, backward = working(xp, missing, *real), working(xp, missing, real[2], *real)
        return cls(x, w, y, _of_gradient(xp, x, y), _of_gradient(xp, w, y), forward, backward, mixed)

    def of_result(self, result: str) -> Any:
        """The dtype of what fills a slot."""
        return self.y if result == "y" else self.dx if result == "x" else self.dw


def _of_gradient(xp: Any, operand: Any, y: Any) -> Any:
    """That of the operand; of an integer one in a result of another kind, that of the result's real part."""
    same = is_kind(xp, operand, "integral") == is_kind(xp, y, "integral")
    return native(operand) if same else real_dtype(y, xp=xp)


@lru_cache
def working(xp: Any, missing: frozenset[str], *dtypes: Any) -> Any:
    """The dtype to multiply the first two in, and to add products in: exact for integers, of 32 bits or more."""
    dtypes = tuple(map(native, dtypes))
    floating = [dtype for dtype in dtypes if not is_kind(xp, dtype, "integral")]  # integers become such, where any is
    if not floating:
        bits = [xp.iinfo(dtype).bits for dtype in dtypes]
        if max(bits[:2]) == 8 and max(bits) <= 32 and "float64" not in missing:
            return _named(xp, "float64")  # exact to 2**37 products, by BLAS, on GPUs too; or float32, see `exact`
        widest = dtypes[bits.index(max(bits))]
        return widest if _multiplies(xp, widest) else _named(xp, "int64")  # which wraps around to the same
    bits = [float_bits(xp, dtype) for dtype in floating]
    if min(bits) == max(bits) > 16:
        return floating[0]
    wide, real = max(bits) == 64, not is_complex(floating[0], xp=xp)
    return _named(xp, ("float64" if wide else "float32") if real else ("complex128" if wide else "complex64"))


@lru_cache
def widest(xp: Any, dtype: Any) -> Any:
    """float64, or complex128 for complex numbers."""
    return _named(xp, "complex128" if is_complex(dtype, xp=xp) else "float64")


@lru_cache
def exact(xp: Any, terms: int, first: Any, second: Any, added: Any = None) -> Any:
    """The narrowest dtype in which sums of so many products of 8-bit integers, and one number `added`, are exact.

    float32 has 24 bits: room for 1,024 products of int8. Its operands are exact in TF32 as well, which has 11.
    """
    largest = terms * _magnitude(xp, first) * _magnitude(xp, second)
    largest += 0 if added is None else _magnitude(xp, added)
    return _named(xp, "float32" if largest <= 2**24 else "float64")


def _magnitude(xp: Any, dtype: Any) -> int:
    limits = xp.iinfo(dtype)
    return max(-int(limits.min), int(limits.max))


def accumulating(xp: Any, dtype: Any, compute: Any) -> Any:
    """The dtype to add parts of a result in: the one they are computed in, but for integers that of the result.

    Sums of integers wrap around to the same number in any order.
    """
    return dtype if is_kind(xp, dtype, "integral") and _multiplies(xp, dtype) else compute


@lru_cache
def _multiplies(xp: Any, dtype: Any) -> bool:
    """torch stores unsigned integers of more than 8 bits, but neither multiplies nor adds them."""
    try:
        one = xp.ones((1, 1), dtype=dtype)
        return bool(xp.matmul(one, one).dtype == dtype)
    except Exception:
        return False


def _named(xp: Any, name: str) -> Any:
    """A dtype by its name, as arrays have it: in some namespaces the name stands for a type instead."""
    return xp.empty(0, dtype=getattr(xp, name)).dtype
