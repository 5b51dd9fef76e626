"""Bands (Toeplitz matrices): the basis in which a row of a tile's outputs is one product with a banded matrix.

    b has one value, k is (channel, tap of the leading axes, input of the tile), l is (sample, leading position, tile),
    o is (output channel, output of the tile)

Lowering gives each group a matrix of as many rows as it has output channels: few for grouped and one for depthwise
convolutions, and BLAS is slow at few rows. Here a tile of outputs along the last axis are rows, too. Most of the matrix
is zeros, and yet it is faster. Inputs are copied as they lie in memory, one run for each tile.
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

__all__ = ["Banded"]


@dataclass(frozen=True)
class Banded:
    """With tiles of `tile` outputs along the last axis."""

    tile: int

    name = "banded"
    swapped = True  # in memory the rows are the innermost axis
    propagates_nonfinite = frozenset("yxw")

    def reshapes(self, slot: str, geometry: Geometry) -> bool:  # noqa: ARG002
        return False

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

    def ex(self, x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(n, g*c, *size) -> (g, c*leading taps*tile's inputs, n*leading positions*tiles)."""
        tiles, ndim = self._tiles(geometry), len(geometry.axes)
        x = windows(pad(x, tiles, xp=xp), tiles, xp=xp)
        x = xp.reshape(x, (geometry.samples, geometry.groups, geometry.inputs, *tiles.kernel, *tiles.out))
        # (g, n, *leading positions, tiles, c, *leading taps, tile's inputs)
        x = xp.permute_dims(x, (1, 0, *range(3 + ndim, 3 + 2 * ndim), 2, *range(3, 3 + ndim)))
        height = geometry.inputs * tiles.taps
        return xp.matrix_transpose(xp.reshape(x, (geometry.groups, geometry.samples * tiles.positions, height)))

    def ex_adjoint(self, X: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        tiles, ndim = self._tiles(geometry), len(geometry.axes)
        shape = (geometry.groups, geometry.samples, *tiles.out, geometry.inputs, *tiles.kernel)
        x = xp.reshape(xp.matrix_transpose(X), shape)
        x = xp.permute_dims(x, (1, 0, *range(2 + ndim, 3 + 2 * ndim), *range(2, 2 + ndim)))
        x = xp.reshape(x, (geometry.samples, geometry.groups * geometry.inputs, *tiles.kernel, *tiles.out))
        return pad_adjoint(fold(x, tiles, xp=xp), tiles, xp=xp)

    def ew(self, w: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(g*o, c, *kernel) -> (g, o*tile, c*leading taps*tile's inputs)."""
        outputs = (geometry.groups * geometry.outputs, -1, self.tile, self._tiles(geometry).kernel[-1])
        W = xp.reshape(xp.matmul(w, self._matrix(geometry, w, xp=xp)), outputs)  # (g*o, c*leading taps, tile, inputs)
        W = xp.permute_dims(W, (0, 2, 1, 3))
        return xp.reshape(W, (geometry.groups, geometry.outputs * self.tile, -1))

    def ew_adjoint(self, W: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        inputs = self._tiles(geometry).kernel[-1]
        W = xp.reshape(W, (geometry.groups * geometry.outputs, self.tile, -1, inputs))
        W = xp.permute_dims(W, (0, 2, 1, 3))
        W = xp.reshape(W, (*geometry.w_shape[:-1], self.tile * inputs))
        return xp.matmul(W, xp.matrix_transpose(self._matrix(geometry, W, xp=xp)))

    def ey(self, y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(n, g*o, *out) -> (g, o*tile, n*leading positions*tiles)."""
        ndim, tiles = len(geometry.axes), self._tiles(geometry)
        axes = [Axis(size, 1, 1, 1, 0, 0) for size in geometry.out]
        axes[-1] = axes[-1]._replace(hi=-axes[-1].size % self.tile)
        y = pad(y, geometry.over(axes), xp=xp)
        y = xp.reshape(y, (geometry.samples, geometry.groups, geometry.outputs, *tiles.out, self.tile))
        y = xp.permute_dims(y, (1, 0, *range(3, 3 + ndim), 2, 3 + ndim))  # (g, n, *leading out, tiles, o, tile)
        rows = geometry.outputs * self.tile
        return xp.matrix_transpose(xp.reshape(y, (geometry.groups, geometry.samples * tiles.positions, rows)))

    def ey_adjoint(self, Y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        ndim, tiles = len(geometry.axes), self._tiles(geometry)
        shape = (geometry.groups, geometry.samples, *tiles.out, geometry.outputs, self.tile)
        y = xp.reshape(xp.matrix_transpose(Y), shape)
        y = xp.permute_dims(y, (1, 0, 2 + ndim, *range(2, 2 + ndim), 3 + ndim))  # (n, g, o, *leading out, tiles, tile)
        whole = (geometry.samples, geometry.groups * geometry.outputs, *geometry.out[:-1], tiles.out[-1] * self.tile)
        return xp.reshape(y, whole)[..., : geometry.out[-1]]

    @derived
    def _tiles(self, geometry: Geometry) -> Geometry:
        """The geometry in which a window of the last axis has all inputs of a tile."""
        last = geometry.axes[-1]
        inputs, step, tiles = (
            last.stride * (self.tile - 1) + last.extent,
            last.stride * self.tile,
            -(-last.out // self.tile),
        )
        padded = step * (tiles - 1) + inputs
        tiled = Axis(last.size, inputs, step, 1, last.lo, padded - last.lo - last.size)
        return geometry.over((*geometry.axes[:-1], tiled))

    def _matrix(self, geometry: Geometry, like: ArrayT, *, xp: Namespace) -> ArrayT:
        last = geometry.axes[-1]
        return constant(_matrix, last.kernel, last.stride, last.dilation, self.tile, like=like, xp=xp)


def _matrix(kernel: int, stride: int, dilation: int, tile: int) -> np.ndarray[Any, Any]:
    """(taps, tile*inputs): where each output of a tile meets each tap of the last axis."""
    tap, output = np.arange(kernel)[:, None, None], np.arange(tile)[:, None]
    inputs = stride * (tile - 1) + dilation * (kernel - 1) + 1
    met: np.ndarray[Any, Any] = np.arange(inputs) == stride * output + dilation * tap
    return met.reshape(kernel, tile * inputs)
