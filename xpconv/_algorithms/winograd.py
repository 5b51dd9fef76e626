"""Winograd's minimal filtering: the basis in which a tile of outputs takes fewer products than it has terms.

The outputs of a tile are coefficients of a product of polynomials, and a product is known by its values at as many
points as it has coefficients: one multiplication for each point. A tile of m outputs of r taps has m + r - 1 points
along each axis, where the direct way takes m*r products; 36 for 144 with 4 x 4 outputs of 3 x 3 taps.

Source: S. Winograd, "Arithmetic Complexity of Computations", 1980; A. Lavin, S. Gray, "Fast Algorithms for
Convolutional Neural Networks", CVPR, 2016. The matrices are Toom's and Cook's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._arrays.doors import constant
from .._arrays.typing import ArrayT, Namespace
from .._spec.geometry import Axis, Geometry
from .basis import Footprint
from .tiled import Tile, Transformed

__all__ = ["Winograd"]


@dataclass(frozen=True)
class Winograd(Transformed):
    """With tiles of `tile` outputs along each axis."""

    tile: tuple[int, ...]

    name = "winograd"

    def footprint(self, geometry: Geometry) -> Footprint:
        points = math.prod([m + taps - 1 for taps, m in zip(geometry.kernel, self.tile, strict=True)])
        columns = geometry.samples * math.prod([-(-out // m) for out, m in zip(geometry.out, self.tile, strict=True)])
        x, y = geometry.groups * geometry.inputs, geometry.groups * geometry.outputs
        products = points * y * geometry.inputs * columns
        numbers = 2 * points * columns * x, 2 * points * y * geometry.inputs, 2 * points * columns * y
        # Each number goes through a product with a matrix of all points.
        made = 2 * points * points  # the matrices
        return Footprint(*numbers, geometry.outputs, geometry.inputs, columns, products, 10 + points, made)

    def unit(self, geometry: Geometry) -> tuple[int, ...]:  # noqa: ARG002
        return self.tile

    def rows(self, geometry: Geometry) -> Iterable[tuple[Axis, Tile]]:
        return ((axis, Tile(m, m + axis.kernel - 1)) for axis, m in zip(geometry.axes, self.tile, strict=True))

    def transform(self, slot: str, x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        x = xp.reshape(x, (math.prod(x.shape[: len(self.tile)]), -1))
        return xp.matmul(self._matrix(slot, geometry, x, xp=xp), x)  # (points, columns): those of all axes as one

    def transform_adjoint(self, slot: str, X: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        tile = {"x": self.tiles(geometry)[0].kernel, "w": geometry.kernel, "y": self.tile}[slot]
        x = xp.matmul(xp.matrix_transpose(self._matrix(slot, geometry, X, xp=xp)), X)
        return xp.reshape(x, (*tile, -1))

    def _matrix(self, slot: str, geometry: Geometry, like: ArrayT, *, xp: Namespace) -> ArrayT:
        return constant(_matrix, self.tile, geometry.kernel, "xwy".index(slot), like=like, xp=xp)


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
