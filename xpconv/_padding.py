"""Floor 1: padding, and its exact adjoint.

Only the parts of a convolution are padded, never a whole input. A part reads what it needs (`Axis.part`), so `pad`
never meets negative padding: cropping has already happened where the part was cut.
"""

from __future__ import annotations

from functools import lru_cache

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


def pad_adjoint(padded: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
    """(n, c, *padded) -> (n, c, *size): what stands on the zeros touches no input, so it is dropped.

    Negative padding has cropped inputs that no window reads: zeros.
    """
    kept = padded[_inner(geometry)]
    if all(min(axis.lo, axis.hi) >= 0 for axis in geometry.axes):
        return kept
    x: ArrayT = xp.zeros((*padded.shape[:2], *geometry.size), dtype=padded.dtype, device=device(padded))
    where = (slice(max(-axis.lo, 0), axis.size + min(axis.hi, 0)) for axis in geometry.axes)
    return put(x, (slice(None), slice(None), *where), kept, xp=xp)


@lru_cache(maxsize=1024)
def _inner(geometry: Geometry) -> tuple[slice, ...]:
    spans = (slice(max(axis.lo, 0), axis.padded - max(axis.hi, 0)) for axis in geometry.axes)
    return (slice(None), slice(None), *spans)
