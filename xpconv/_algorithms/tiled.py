"""What the bases of tiles share: outputs are cut into tiles, and a tile is computed from the inputs of its windows.

Neighbouring tiles share inputs, but no outputs. The inputs of a tile are a window, and so are its outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import chain
from typing import ClassVar, NamedTuple

from .._arrays.padding import pad, pad_adjoint
from .._arrays.typing import ArrayT, Namespace
from .._arrays.windows import fold, windows
from .._spec.geometry import Axis, Geometry
from .._spec.memory import derived

__all__ = ["Tile", "Tiled", "Transformed"]


class Tile(NamedTuple):
    """So many outputs next to each other along an axis, and so many inputs, which lie `dilation` apart."""

    outputs: int
    inputs: int
    dilation: int = 1


class Tiled(ABC):
    """Where the slots x and y are cut into tiles: `rows` says how, and `into` and `back` bring tiles into the basis."""

    swapped = False
    propagates_nonfinite: ClassVar[frozenset[str]] = frozenset("yxw")

    def reshapes(self, slot: str, geometry: Geometry) -> bool:  # noqa: ARG002
        return False

    def makes_y(self, geometry: Geometry) -> bool:
        return all(axis.hi == 0 for axis in self.tiles(geometry)[1].axes)  # whole tiles, of which nothing is dropped

    @abstractmethod
    def rows(self, geometry: Geometry) -> Iterable[tuple[Axis, Tile]]:
        """The axes to cut, and what a tile has along each."""

    @abstractmethod
    def into(self, slot: str, x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(*tile, g, row, n, *tiles) -> what it is in the basis."""

    @abstractmethod
    def back(self, slot: str, X: ArrayT, shape: tuple[int, ...], geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """The adjoint; `shape` is (*tile, g, row, n, *tiles)."""

    @derived
    def tiles(self, geometry: Geometry) -> tuple[Geometry, Geometry]:
        """Each tile's inputs as a window, and each tile's outputs."""
        inputs, outputs = zip(*(_windows(*row) for row in self.rows(geometry)), strict=True)
        return geometry.over(inputs), geometry.over(outputs)

    def ex(self, x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        return self.into("x", _cut(x, self.tiles(geometry)[0], xp=xp), geometry, xp=xp)

    def ex_adjoint(self, X: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        inputs, _ = self.tiles(geometry)
        shape = (*inputs.kernel, geometry.groups, geometry.inputs, geometry.samples, *inputs.out)
        return _joined(self.back("x", X, shape, geometry, xp=xp), inputs, xp=xp)

    def ey(self, y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        return self.into("y", _cut(y, self.tiles(geometry)[1], xp=xp), geometry, xp=xp)

    def ey_adjoint(self, Y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        _, outputs = self.tiles(geometry)
        shape = (*outputs.kernel, geometry.groups, geometry.outputs, geometry.samples, *outputs.out)
        return _joined(self.back("y", Y, shape, geometry, xp=xp), outputs, xp=xp)


class Transformed(Tiled):
    """Where a tile of x, of y or of w is transformed by itself: b is the point, k is channel, l is (sample, tile)."""

    @abstractmethod
    def transform(self, slot: str, x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(*tile, *columns) -> (*point, columns)."""

    @abstractmethod
    def transform_adjoint(self, slot: str, X: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(*point, columns) -> (*tile, columns), or more than a tile, of which the rest is dropped."""

    def ew(self, w: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(g*o, c, *kernel) -> (g, *point, o, c)."""
        w = xp.reshape(w, (geometry.groups, geometry.outputs, *w.shape[1:]))
        return self.into("w", xp.permute_dims(w, (*range(3, w.ndim), 0, 1, 2)), geometry, xp=xp)

    def ew_adjoint(self, W: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        extent = (axis.dilation * (axis.kernel - 1) + 1 for axis in geometry.axes)
        shape = (*extent, geometry.groups, geometry.outputs, geometry.inputs)
        w = self.back("w", W, shape, geometry, xp=xp)
        w = xp.permute_dims(w, (*range(w.ndim - 3, w.ndim), *range(w.ndim - 3)))
        return xp.reshape(w, (w.shape[0] * w.shape[1], *w.shape[2:]))

    def into(self, slot: str, x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(*tile, g, row, *columns) -> (g, *point, row, columns)."""
        ndim = len(geometry.axes)
        X = self.transform(slot, x, geometry, xp=xp)
        points = X.ndim - 1
        X = xp.reshape(X, (*X.shape[:-1], *x.shape[ndim : ndim + 2], -1))
        return xp.permute_dims(X, (points, *range(points), points + 1, points + 2))

    def back(self, slot: str, X: ArrayT, shape: tuple[int, ...], geometry: Geometry, *, xp: Namespace) -> ArrayT:
        points, ndim = X.ndim - 3, len(geometry.axes)
        X = xp.permute_dims(X, (*range(1, points + 1), 0, points + 1, points + 2))
        x = self.transform_adjoint(slot, xp.reshape(X, (*X.shape[:points], -1)), geometry, xp=xp)
        return xp.reshape(x[(*map(slice, shape[:ndim]), ...)], shape)


def _windows(axis: Axis, tile: Tile) -> tuple[Axis, Axis]:
    count, step = -(-axis.out // tile.outputs), axis.stride * tile.outputs
    inputs = Axis(axis.size, tile.inputs, step, tile.dilation, axis.lo, 0)
    inputs = inputs._replace(hi=step * (count - 1) + inputs.extent - axis.lo - axis.size)
    return inputs, Axis(axis.out, tile.outputs, tile.outputs, 1, 0, -axis.out % tile.outputs)


def _cut(x: ArrayT, tiles: Geometry, *, xp: Namespace) -> ArrayT:
    """(n, g*c, *size) -> (*tile, g, c, n, *tiles)."""
    ndim = len(tiles.axes)
    x = x[(..., *(slice(axis.size + min(axis.hi, 0)) for axis in tiles.axes))]  # around a circle, a part is read
    x = windows(pad(x, tiles, xp=xp), tiles, xp=xp)
    x = xp.reshape(x, (tiles.samples, tiles.groups, -1, *x.shape[2:]))
    return xp.permute_dims(x, (*range(3, 3 + ndim), 1, 2, 0, *range(3 + ndim, 3 + 2 * ndim)))


def _joined(x: ArrayT, tiles: Geometry, *, xp: Namespace) -> ArrayT:
    """(*tile, g, c, n, *tiles) -> (n, g*c, *size): each value added to where `_cut` took it from."""
    ndim = len(tiles.axes)
    tile, channels, places = range(ndim), (ndim + 2, ndim, ndim + 1), range(ndim + 3, 2 * ndim + 3)
    if all((axis.stride, axis.dilation) == (axis.kernel, 1) for axis in tiles.axes):  # side by side: nothing to add
        x = xp.permute_dims(x, (*channels, *chain.from_iterable(zip(places, tile, strict=True))))
        return pad_adjoint(xp.reshape(x, (tiles.samples, -1, *tiles.padded)), tiles, xp=xp)
    x = xp.permute_dims(x, (*channels, *tile, *places))
    return fold(xp.reshape(x, (tiles.samples, -1, *tiles.kernel, *tiles.out)), tiles, xp=xp)
