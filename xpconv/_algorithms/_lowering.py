"""Lowering to GEMM (im2col): the basis in which a position is a column of all that its window sees.

    b is nothing, k is (channel, tap), l is (sample, position)

Source: K. Chellapilla, S. Puri, P. Simard, "High Performance Convolutional Neural Networks for Document Processing",
2006.
"""

from __future__ import annotations

from .._geometry import Geometry
from .._typing import ArrayT, Namespace
from .._windows import fold, windows

__all__ = ["column_size", "ew", "ew_adjoint", "ex", "ex_adjoint", "ey", "ey_adjoint"]


def column_size(geometry: Geometry) -> int:
    return geometry.inputs * geometry.taps


def ex(x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
    """(n, g*c, *padded) -> (g, c*taps, n*positions)."""
    ndim = len(geometry.axes)
    taps, out = range(2, 2 + ndim), range(2 + ndim, 2 + 2 * ndim)
    columns = windows(x, geometry, xp=xp)  # (n, g*c, *kernel, *out)
    columns = xp.permute_dims(columns, (1, *taps, 0, *out))  # (g*c, *kernel, n, *out)
    return xp.reshape(columns, (geometry.groups, column_size(geometry), geometry.samples * geometry.positions))


def ex_adjoint(columns: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
    ndim = len(geometry.axes)
    taps, out = range(1, 1 + ndim), range(2 + ndim, 2 + 2 * ndim)
    shape = (geometry.groups * geometry.inputs, *geometry.kernel, geometry.samples, *geometry.out)
    columns = xp.reshape(columns, shape)  # (g*c, *kernel, n, *out)
    columns = xp.permute_dims(columns, (1 + ndim, 0, *taps, *out))  # (n, g*c, *kernel, *out)
    return fold(columns, geometry, xp=xp)


def ew(w: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
    """(g*o, c, *kernel) -> (g, o, c*taps)."""
    return xp.reshape(w, (geometry.groups, geometry.outputs, column_size(geometry)))


def ew_adjoint(w: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
    return xp.reshape(w, geometry.w_shape)


def ey(y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
    """(n, g*o, *out) -> (g, o, n*positions)."""
    y = xp.permute_dims(y, (1, 0, *range(2, y.ndim)))  # (g*o, n, *out)
    return xp.reshape(y, (geometry.groups, geometry.outputs, geometry.samples * geometry.positions))


def ey_adjoint(y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
    y = xp.reshape(y, (geometry.groups * geometry.outputs, geometry.samples, *geometry.out))  # (g*o, n, *out)
    return xp.permute_dims(y, (1, 0, *range(2, y.ndim)))
