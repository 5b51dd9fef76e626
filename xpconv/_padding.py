"""Floor 1: padding, and its exact adjoint.

Only the parts of a convolution are padded, never a whole input. A part reads what it needs (`Axis.part`), so its
padding is never negative: cropping has already happened where the part was cut.
"""

from __future__ import annotations

from ._geometry import Geometry
from ._namespace import device, put
from ._typing import ArrayT, Namespace

__all__ = ["pad", "pad_adjoint"]


def pad(x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
    """(n, c, *size) -> (n, c, *padded): zeros around x, or x itself where there is nothing to add."""
    if geometry.padded == geometry.size:
        return x
    padded: ArrayT = xp.zeros((*x.shape[:2], *geometry.padded), dtype=x.dtype, device=device(x))
    return put(padded, _inner(geometry), x, xp=xp)


def pad_adjoint(padded: ArrayT, geometry: Geometry) -> ArrayT:
    """(n, c, *padded) -> (n, c, *size): what stands on the zeros touches no input, so it is dropped."""
    inner: ArrayT = padded[_inner(geometry)]
    return inner


def _inner(geometry: Geometry) -> tuple[slice, ...]:
    return (slice(None), slice(None), *(slice(axis.lo, axis.lo + axis.size) for axis in geometry.axes))
