"""Lowering to GEMM (im2col): the basis in which a position is a column of all that its window sees.

    b has one value, k is (channel, tap), l is (sample, position)

Source: K. Chellapilla, S. Puri, P. Simard, "High Performance Convolutional Neural Networks for Document Processing",
2006.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from .._arrays.padding import pad
from .._arrays.typing import ArrayT, Namespace
from .._arrays.windows import columns, fold, windows
from .._spec.geometry import Geometry
from .basis import Footprint

__all__ = ["BySample", "Lowering", "TapsFirst"]


@dataclass(frozen=True)
class Lowering:
    swapped = False
    propagates_nonfinite: ClassVar[frozenset[str]] = frozenset()

    @property
    def name(self) -> str:
        return "lowering"

    def reshapes(self, slot: str, geometry: Geometry) -> bool:
        return slot == "w" or (geometry.samples == 1 and (slot == "y" or geometry.is_pointwise))

    def makes_y(self, geometry: Geometry) -> bool:
        return self.reshapes("y", geometry)

    def footprint(self, geometry: Geometry) -> Footprint:
        height, columns = geometry.inputs * geometry.taps, geometry.samples * geometry.positions
        w = 0  # a view
        x = 0 if self.reshapes("x", geometry) else geometry.groups * columns * height
        y = (1 if self.reshapes("y", geometry) else 2) * geometry.groups * columns * geometry.outputs
        return Footprint(
            x, w, y, geometry.outputs, height, columns, geometry.groups * geometry.outputs * height * columns
        )

    def unit(self, geometry: Geometry) -> tuple[int, ...]:
        return (1,) * len(geometry.axes)

    def ex(self, x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(n, g*c, *size) -> (g, c*taps, n*positions)."""
        shape = (geometry.groups, geometry.inputs * geometry.taps, geometry.samples * geometry.positions)
        if geometry.is_pointwise and geometry.samples == 1:
            return xp.reshape(x, shape)
        return xp.reshape(columns(pad(x, geometry, xp=xp), geometry, xp=xp), shape)

    def ex_adjoint(self, X: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        if geometry.is_pointwise and geometry.samples == 1:
            return xp.reshape(X, geometry.x_shape)
        ndim = len(geometry.axes)
        taps, out = range(1, 1 + ndim), range(2 + ndim, 2 + 2 * ndim)
        shape = (geometry.groups * geometry.inputs, *geometry.kernel, geometry.samples, *geometry.out)
        X = xp.reshape(X, shape)  # (g*c, *kernel, n, *out)
        X = xp.permute_dims(X, (1 + ndim, 0, *taps, *out))  # (n, g*c, *kernel, *out)
        return fold(X, geometry, xp=xp)

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
        if geometry.samples == 1:
            return xp.reshape(y, geometry.y_shape)
        y = xp.reshape(y, (geometry.groups * geometry.outputs, geometry.samples, *geometry.out))  # (g*o, n, *out)
        return xp.permute_dims(y, (1, 0, *range(2, y.ndim)))


@dataclass(frozen=True)
class TapsFirst(Lowering):
    """With k as (tap, channel), for a weight that lies in memory as HWIO or OHWI: so that W is a view."""

    def ex(self, x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        ndim = len(geometry.axes)
        X = columns(pad(x, geometry, xp=xp), geometry, xp=xp)
        X = xp.reshape(X, (geometry.groups, geometry.inputs, *X.shape[1:]))  # (g, c, *kernel, n, *out)
        X = xp.permute_dims(X, (0, *range(2, 2 + ndim), 1, *range(2 + ndim, X.ndim)))  # (g, *kernel, c, n, *out)
        height, width = geometry.inputs * geometry.taps, geometry.samples * geometry.positions
        return xp.reshape(X, (geometry.groups, height, width))

    def ex_adjoint(self, X: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        ndim = len(geometry.axes)
        X = xp.reshape(X, (geometry.groups, *geometry.kernel, geometry.inputs, X.shape[-1]))
        X = xp.permute_dims(X, (0, 1 + ndim, *range(1, 1 + ndim), 2 + ndim))  # (g, c, *kernel, n*positions)
        return super().ex_adjoint(X, geometry, xp=xp)

    def ew(self, w: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(g*o, c, *kernel) -> (g, o, taps*c)."""
        w = xp.permute_dims(w, (0, *range(2, w.ndim), 1))
        return xp.reshape(w, (geometry.groups, geometry.outputs, geometry.inputs * geometry.taps))

    def ew_adjoint(self, w: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        w = xp.reshape(w, (geometry.groups * geometry.outputs, *geometry.kernel, geometry.inputs))
        return xp.permute_dims(w, (0, w.ndim - 1, *range(1, w.ndim - 1)))


@dataclass(frozen=True)
class BySample(Lowering):
    """With b as the sample, beside the group: the product is y as it lies in memory, and 1x1 needs no columns.

    Each sample has a product of its own, which a GPU makes at the same time.
    """

    def reshapes(self, slot: str, geometry: Geometry) -> bool:
        return slot != "x" or geometry.is_pointwise

    def footprint(self, geometry: Geometry) -> Footprint:
        footprint, products = super().footprint(geometry), 0
        if geometry.is_pointwise:  # only then it makes weight gradients: one for each sample, which are added
            products = geometry.samples * math.prod(geometry.w_shape)
        y = geometry.groups * geometry.outputs * footprint.columns
        x = 0 if geometry.is_pointwise else footprint.x
        return footprint._replace(x=x, w=products, y=y, columns=geometry.positions)

    def ex(self, x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(n, g*c, *size) -> (n, g, c*taps, positions)."""
        X = x if geometry.is_pointwise else windows(pad(x, geometry, xp=xp), geometry, xp=xp)
        return xp.reshape(X, (*_matrices(geometry), geometry.inputs * geometry.taps, geometry.positions))

    def ex_adjoint(self, X: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        if geometry.is_pointwise:
            return xp.reshape(X, geometry.x_shape)
        X = xp.reshape(X, (geometry.samples, geometry.groups * geometry.inputs, *geometry.kernel, *geometry.out))
        return fold(X, geometry, xp=xp)

    def ew(self, w: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(g*o, c, *kernel) -> (1, g, o, c*taps)."""
        _, *groups = _matrices(geometry)
        return xp.reshape(w, (1, *groups, geometry.outputs, geometry.inputs * geometry.taps))

    def ew_adjoint(self, w: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        w = w[0, ...] if w.shape[0] == 1 else xp.sum(w, axis=0, dtype=w.dtype)
        return xp.reshape(w, geometry.w_shape)

    def ey(self, y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(n, g*o, *out) -> (n, g, o, positions)."""
        return xp.reshape(y, (*_matrices(geometry), geometry.outputs, geometry.positions))

    def ey_adjoint(self, y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        return xp.reshape(y, geometry.y_shape)


def _matrices(geometry: Geometry) -> tuple[int, ...]:
    """The samples, and the groups if there are several: an axis of one takes launches, too."""
    return (geometry.samples, geometry.groups) if geometry.groups > 1 else (geometry.samples,)
