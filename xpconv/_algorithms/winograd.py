"""Winograd's minimal filtering: the basis in which a tile of outputs takes fewer products than it has terms.

    b is the point of the tile, k is channel, l is (sample, tile)

The outputs of a tile are coefficients of a product of polynomials, and a product is known by its values at as many
points as it has coefficients: one multiplication for each point. A tile of m outputs of r taps has m + r - 1 points
along each axis, where the direct way takes m*r products; 36 for 144 with 4 x 4 outputs of 3 x 3 taps.

Source: S. Winograd, "Arithmetic Complexity of Computations", 1980; A. Lavin, S. Gray, "Fast Algorithms for
Convolutional Neural Networks", CVPR, 2016. The matrices are Toom's and Cook's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._arrays.doors import constant
from .._arrays.padding import pad, pad_adjoint
from .._arrays.typing import ArrayT, Namespace
from .._arrays.windows import fold, windows
from .._spec.geometry import Axis, Geometry
from .._spec.memory import derived
from .basis import Footprint

__all__ = ["Winograd"]


@dataclass(frozen=True)
class Winograd:
    """With tiles of `tile` outputs along each axis."""

    tile: tuple[int, ...]

    name = "winograd"
    swapped = False
    propagates_nonfinite = frozenset("yxw")

    def reshapes(self, slot: str, geometry: Geometry) -> bool:  # noqa: ARG002
        return False

    def footprint(self, geometry: Geometry) -> Footprint:
        points = math.prod(self._points(geometry))
        columns = geometry.samples * math.prod([-(-out // m) for out, m in zip(geometry.out, self.tile, strict=True)])
        x, y = geometry.groups * geometry.inputs, geometry.groups * geometry.outputs
        products = points * y * geometry.inputs * columns
        numbers = 2 * points * columns * x, 2 * points * y * geometry.inputs, 2 * points * columns * y
        # Each number goes through a product with a matrix of all points.
        made = 2 * points * points  # the matrices
        return Footprint(*numbers, geometry.outputs, geometry.inputs, columns, products, 10 + points, made)

    def unit(self, geometry: Geometry) -> tuple[int, ...]:  # noqa: ARG002
        return self.tile

    def ex(self, x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(n, g*c, *size) -> (g, points, c, n*tiles)."""
        tiles = self._tiles(geometry)
        x = windows(pad(x, tiles, xp=xp), tiles, xp=xp)
        return self._transform(x, 0, geometry.groups, geometry, xp=xp)

    def ex_adjoint(self, X: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        tiles = self._tiles(geometry)
        x = self._transform_adjoint(X, 0, tiles, geometry, xp=xp)
        return pad_adjoint(fold(x, tiles, xp=xp), tiles, xp=xp)

    def ew(self, w: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(g*o, c, *kernel) -> (g, points, o, c)."""
        w = xp.permute_dims(xp.reshape(w, (-1, geometry.taps)), (1, 0))  # (taps, g*o*c)
        W = xp.matmul(self._matrix(1, geometry, w, xp=xp), w)
        W = xp.reshape(W, (-1, geometry.groups, geometry.outputs, geometry.inputs))
        return xp.permute_dims(W, (1, 0, 2, 3))

    def ew_adjoint(self, W: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        W = xp.reshape(xp.permute_dims(W, (1, 0, 2, 3)), (W.shape[1], -1))  # (points, g*o*c)
        w = xp.matmul(xp.matrix_transpose(self._matrix(1, geometry, W, xp=xp)), W)
        return xp.reshape(xp.permute_dims(w, (1, 0)), geometry.w_shape)

    def ey(self, y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(n, g*o, *out) -> (g, points, o, n*tiles)."""
        tiles = self._outputs(geometry)
        y = windows(pad(y, tiles, xp=xp), tiles, xp=xp)
        return self._transform(y, 2, geometry.groups, geometry, xp=xp)

    def ey_adjoint(self, Y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        tiles = self._outputs(geometry)
        y = self._transform_adjoint(Y, 2, tiles, geometry, xp=xp)  # (n, g*o, *tile, *tiles)
        ndim = len(self.tile)
        by_axis = (axis for i in range(ndim) for axis in (2 + ndim + i, 2 + i))
        y = xp.reshape(xp.permute_dims(y, (0, 1, *by_axis)), (*y.shape[:2], *tiles.padded))
        return y[(..., *(slice(size) for size in geometry.out))]

    def _points(self, geometry: Geometry) -> tuple[int, ...]:
        return tuple([m + taps - 1 for taps, m in zip(geometry.kernel, self.tile, strict=True)])

    @derived
    def _tiles(self, geometry: Geometry) -> Geometry:
        """Each tile's inputs as a window."""
        axes = []
        for axis, m, points in zip(geometry.axes, self.tile, self._points(geometry), strict=True):
            padded = m * (-(-axis.out // m) - 1) + points
            axes.append(Axis(axis.size, points, m, 1, axis.lo, padded - axis.lo - axis.size))
        return geometry.over(axes)

    @derived
    def _outputs(self, geometry: Geometry) -> Geometry:
        """Each tile's outputs as a window."""
        axes = [Axis(axis.out, m, m, 1, 0, -axis.out % m) for axis, m in zip(geometry.axes, self.tile, strict=True)]
        return geometry.over(axes)

    def _transform(self, x: ArrayT, which: int, groups: int, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(n, g*c, *tile, *tiles) -> (g, points, c, n*tiles)."""
        ndim = len(self.tile)
        samples, channels, *_ = x.shape
        tiles = x.shape[2 + ndim :]
        x = xp.permute_dims(x, (*range(2, 2 + ndim), 1, 0, *range(2 + ndim, 2 + 2 * ndim)))  # (*tile, g*c, n, *tiles)
        x = xp.reshape(x, (math.prod(x.shape[:ndim]), -1))
        X = xp.matmul(self._matrix(which, geometry, x, xp=xp), x)
        X = xp.reshape(X, (-1, groups, channels // groups, samples * math.prod(tiles)))
        return xp.permute_dims(X, (1, 0, 2, 3))

    def _transform_adjoint(
        self, X: ArrayT, which: int, tiles: Geometry, geometry: Geometry, *, xp: Namespace
    ) -> ArrayT:
        ndim = len(self.tile)
        channels = X.shape[0] * X.shape[2]
        X = xp.reshape(xp.permute_dims(X, (1, 0, 2, 3)), (X.shape[1], -1))
        x = xp.matmul(xp.matrix_transpose(self._matrix(which, geometry, X, xp=xp)), X)
        x = xp.reshape(x, (*tiles.kernel, channels, geometry.samples, *tiles.out))
        return xp.permute_dims(x, (ndim + 1, ndim, *range(ndim), *range(ndim + 2, 2 * ndim + 2)))

    def _matrix(self, which: int, geometry: Geometry, like: ArrayT, *, xp: Namespace) -> ArrayT:
        return constant(_matrix, self.tile, geometry.kernel, which, like=like, xp=xp)


def _matrix(tile: tuple[int, ...], kernel: tuple[int, ...], which: int) -> np.ndarray[Any, Any]:
    """The matrix of x, w or y for all axes at once: a Kronecker product of the matrices of each axis."""
    matrix = np.ones((1, 1))
    for m, taps in zip(tile, kernel, strict=True):
        matrix = np.kron(matrix, _along(m, taps)[which])
    return matrix


def _along(m: int, taps: int) -> tuple[np.ndarray[Any, Any], ...]:
    """The matrices of x, w and y along one axis.

    Those of w and y evaluate polynomials at the points; that of x is the transpose of the way back to coefficients.

    The last point is infinity, where a polynomial's value is its highest coefficient. The others are exact in binary
    and close to 1: with 3/4 and 5/4, a tile of 4 outputs has a quarter of the error that it has with 1 and 2.
    """
    count = m + taps - 1
    finite = np.asarray([0.0, 1.0, -1.0] if count <= 4 else [0.0, 0.75, -0.75, 1.25, -1.25])[: count - 1]
    products = [_coefficients(np.delete(finite, i)) for i in range(count - 1)]
    scales = [np.polyval(product[::-1], point) for product, point in zip(products, finite, strict=True)]
    ex = np.zeros((count, count))
    for i, product in enumerate(products):
        ex[i, : count - 1] = product
    ex[-1] = _coefficients(finite)
    infinity = np.arange(taps) == taps - 1
    ew = np.vstack([*(point ** np.arange(taps) / scale for point, scale in zip(finite, scales, strict=True)), infinity])
    ey = np.vstack([*(point ** np.arange(m) for point in finite), np.arange(m) == m - 1])
    return ex, ew, ey


def _coefficients(roots: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Of the product of all (z - root), by rising powers of z."""
    return np.atleast_1d(np.poly(roots))[::-1]
