"""Bands (Toeplitz matrices): the basis in which a row of a tile's outputs is one product with a banded matrix.

    b has one value, k is (channel, tap of the leading axes, input of the tile), l is (sample, leading position, tile),
    o is (output channel, output of the tile)

Lowering gives each group a matrix of as many rows as it has output channels: few for grouped and one for depthwise
convolutions, and BLAS is slow at few rows. Here a tile of outputs along the last axis are rows, too. Most of the matrix
is zeros, and yet it is faster. Inputs are copied as they lie in memory, one run for each tile.
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
from .tiled import Tile, Tiled

__all__ = ["Banded"]


@dataclass(frozen=True)
class Banded(Tiled):
    """With tiles of `tile` outputs along the last axis."""

    tile: int

    name = "banded"
    swapped = True  # in memory the rows are the innermost axis

    def footprint(self, geometry: Geometry) -> Footprint:
        last, out = geometry.axes[-1], geometry.out
        inputs = last.stride * (self.tile - 1) + last.extent  # of a tile
        rows, height = geometry.outputs * self.tile, geometry.inputs * geometry.taps // last.kernel * inputs
        columns = geometry.samples * math.prod(out[:-1]) * -(-out[-1] // self.tile)
        x, w, y = (geometry.groups * n for n in (columns * height, rows * height, 2 * columns * rows))
        # The inputs of a tile are copied in runs, and each run costs time to begin.
        made = w + 2 * last.kernel * self.tile * inputs  # W in another order, and the matrix that it is made with
        return Footprint(x, w, y, rows, height, columns, w * columns, 1 + 8 / inputs, made)

    def unit(self, geometry: Geometry) -> tuple[int, ...]:
        return (*(1,) * (len(geometry.axes) - 1), self.tile)

    def rows(self, geometry: Geometry) -> Iterable[tuple[Axis, Tile]]:
        *leading, last = geometry.axes
        yield from ((axis, Tile(1, axis.kernel, axis.dilation)) for axis in leading)
        yield last, Tile(self.tile, last.stride * (self.tile - 1) + last.extent)

    def into(self, slot: str, x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:  # noqa: ARG002
        """(*tile, g, c, n, *tiles) -> (g, c*tile, n*tiles)."""
        ndim = len(geometry.axes)
        x = xp.permute_dims(x, (ndim, *range(ndim + 2, x.ndim), ndim + 1, *range(ndim)))
        columns = math.prod(x.shape[1 : ndim + 2])
        return xp.matrix_transpose(xp.reshape(x, (x.shape[0], columns, -1)))  # of (g, n*tiles, c*tile)

    def back(self, slot: str, X: ArrayT, shape: tuple[int, ...], geometry: Geometry, *, xp: Namespace) -> ArrayT:  # noqa: ARG002
        ndim = len(geometry.axes)
        x = xp.reshape(xp.matrix_transpose(X), (shape[ndim], *shape[ndim + 2 :], shape[ndim + 1], *shape[:ndim]))
        return xp.permute_dims(x, (*range(ndim + 3, x.ndim), 0, ndim + 2, *range(1, ndim + 2)))

    def ew(self, w: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(g*o, c, *kernel) -> (g, o*tile, c*leading taps*tile's inputs)."""
        outputs = (geometry.groups * geometry.outputs, -1, self.tile, self.tiles(geometry)[0].kernel[-1])
        rows = xp.matmul(xp.reshape(w, (-1, w.shape[-1])), self._matrix(geometry, w, xp=xp))
        W = xp.reshape(rows, outputs)  # (g*o, c*leading taps, tile, inputs)
        W = xp.permute_dims(W, (0, 2, 1, 3))
        return xp.reshape(W, (geometry.groups, geometry.outputs * self.tile, -1))

    def ew_adjoint(self, W: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        inputs = self.tiles(geometry)[0].kernel[-1]
        W = xp.reshape(W, (geometry.groups * geometry.outputs, self.tile, -1, inputs))
        W = xp.permute_dims(W, (0, 2, 1, 3))
        W = xp.reshape(W, (-1, self.tile * inputs))
        w = xp.matmul(W, xp.matrix_transpose(self._matrix(geometry, W, xp=xp)))
        return xp.reshape(w, geometry.w_shape)

    def _matrix(self, geometry: Geometry, like: ArrayT, *, xp: Namespace) -> ArrayT:
        last = geometry.axes[-1]
        return constant(_matrix, last.kernel, last.stride, last.dilation, self.tile, like=like, xp=xp)


def _matrix(kernel: int, stride: int, dilation: int, tile: int) -> np.ndarray[Any, Any]:
    """(taps, tile*inputs): where each output of a tile meets each tap of the last axis."""
    tap, output = np.arange(kernel)[:, None, None], np.arange(tile)[:, None]
    inputs = stride * (tile - 1) + dilation * (kernel - 1) + 1
    met: np.ndarray[Any, Any] = np.arange(inputs) == stride * output + dilation * tap
    return met.reshape(kernel, tile * inputs)
