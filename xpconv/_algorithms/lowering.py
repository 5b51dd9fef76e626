"""Lowering to GEMM (im2col): the basis in which a position is a column of all that its window sees.

    b has one value, k is (channel, tap), l is (sample, position)

Source: K. Chellapilla, S. Puri, P. Simard, "High Performance Convolutional Neural Networks for Document Processing",
2006.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .._arrays.padding import pad, pad_adjoint
from .._arrays.typing import ArrayT, Namespace
from .._arrays.windows import fold, windows
from .._spec.geometry import Geometry

__all__ = ["Lowering"]


@dataclass(frozen=True)
class Lowering:
    name = "lowering"
    swapped = False
    spreads: ClassVar[frozenset[str]] = frozenset()

    def numbers(self, geometry: Geometry) -> tuple[int, int, int]:
        columns = geometry.groups * geometry.samples * geometry.positions
        w = 0  # a view
        return columns * geometry.inputs * geometry.taps, w, 2 * columns * geometry.outputs

    def product(self, geometry: Geometry) -> tuple[int, int, int, int]:
        height, columns = geometry.inputs * geometry.taps, geometry.samples * geometry.positions
        return geometry.outputs, height, columns, geometry.groups * geometry.outputs * height * columns

    def effort(self, geometry: Geometry) -> float:  # noqa: ARG002
        return 1.0

    def unit(self, geometry: Geometry) -> tuple[int, ...]:
        return (1,) * len(geometry.axes)

    def ex(self, x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(n, g*c, *size) -> (g, c*taps, n*positions)."""
        ndim = len(geometry.axes)
        taps, out = range(2, 2 + ndim), range(2 + ndim, 2 + 2 * ndim)
        columns = windows(pad(x, geometry, xp=xp), geometry, xp=xp)  # (n, g*c, *kernel, *out)
        columns = xp.permute_dims(columns, (1, *taps, 0, *out))  # (g*c, *kernel, n, *out)
        shape = (geometry.groups, geometry.inputs * geometry.taps, geometry.samples * geometry.positions)
        return xp.reshape(columns, shape)

    def ex_adjoint(self, columns: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        ndim = len(geometry.axes)
        taps, out = range(1, 1 + ndim), range(2 + ndim, 2 + 2 * ndim)
        shape = (geometry.groups * geometry.inputs, *geometry.kernel, geometry.samples, *geometry.out)
        columns = xp.reshape(columns, shape)  # (g*c, *kernel, n, *out)
        columns = xp.permute_dims(columns, (1 + ndim, 0, *taps, *out))  # (n, g*c, *kernel, *out)
        return pad_adjoint(fold(columns, geometry, xp=xp), geometry, xp=xp)

    def ew(self, w: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(g*o, c, *kernel) -> (g, o, c*taps)."""
        return xp.reshape(w, (geometry.groups, geometry.outputs, geometry.inputs * geometry.taps))

    def ew_adjoint(self, w: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        return xp.reshape(w, geometry.w_shape)

    def ey(self, y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(n, g*o, *out) -> (g, o, n*positions)."""
        y = xp.permute_dims(y, (1, 0, *range(2, y.ndim)))  # (g*o, n, *out)
        return xp.reshape(y, (geometry.groups, geometry.outputs, geometry.samples * geometry.positions))

    def ey_adjoint(self, y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        y = xp.reshape(y, (geometry.groups * geometry.outputs, geometry.samples, *geometry.out))  # (g*o, n, *out)
        return xp.permute_dims(y, (1, 0, *range(2, y.ndim)))
