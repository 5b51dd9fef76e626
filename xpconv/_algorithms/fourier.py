"""Fourier transforms (overlap-save): the basis in which a convolution is a product, frequency by frequency.

Outputs are computed as with stride 1, and taps lie apart by the dilation; outputs that a stride skips are dropped.

Source: T. G. Stockham, "High-speed Convolution and Correlation", 1966; M. Mathieu, M. Henaff, Y. LeCun, "Fast Training
of Convolutional Networks through FFTs", ICLR, 2014.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from .._arrays.devices import device
from .._arrays.doors import conj, put
from .._arrays.namespace import fourier, is_real
from .._arrays.typing import ArrayT, Namespace
from .._spec.geometry import Axis, Geometry
from .basis import Footprint
from .tiled import Tile, Transformed

__all__ = ["Fourier", "circle", "shortest"]


@dataclass(frozen=True)
class Fourier(Transformed):
    """With transforms of `length` inputs along each axis."""

    length: tuple[int, ...]

    name = "fft"

    def footprint(self, geometry: Geometry) -> Footprint:
        frequencies = math.prod(self.length[:-1]) * (self.length[-1] // 2 + 1)  # half tell the whole
        columns = geometry.samples
        padded = 1
        for axis, length in zip(geometry.axes, self.length, strict=True):
            outputs, tile = _outputs(axis, length)
            columns *= -(-outputs // tile)
            padded *= length if outputs == tile else axis.padded
        x, y = geometry.groups * geometry.inputs, geometry.groups * geometry.outputs
        complexes = 2 * frequencies  # in real numbers
        numbers = 3 * complexes * columns * x // 2, complexes * y * geometry.inputs, 3 * complexes * columns * y // 2
        products, effort = 4 * frequencies * y * geometry.inputs * columns, 1 + math.log2(math.prod(self.length))
        return Footprint(
            *numbers,
            geometry.outputs,
            geometry.inputs,
            columns,
            products,
            effort,
            w_made=complexes * y * geometry.inputs,
            padded=padded,
        )

    def unit(self, geometry: Geometry) -> tuple[int, ...]:
        tiles = zip(geometry.axes, self.length, strict=True)
        return tuple(-(-_outputs(axis, length)[1] // axis.stride) for axis, length in tiles)

    def rows(self, geometry: Geometry) -> Iterable[tuple[Axis, Tile]]:
        for axis, length in zip(geometry.axes, self.length, strict=True):
            outputs, tile = _outputs(axis, length)
            hi = outputs - 1 + axis.extent - axis.lo - axis.size
            yield Axis(axis.size, axis.extent, 1, 1, axis.lo, hi), Tile(tile, length)

    def ew(self, w: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        return super().ew(_dilated(w, [axis.dilation for axis in geometry.axes], xp=xp), geometry, xp=xp)

    def ew_adjoint(self, W: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        w = super().ew_adjoint(W, geometry, xp=xp)
        return w[(..., *(slice(None, None, axis.dilation) for axis in geometry.axes))]

    def ey(self, y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        return super().ey(_dilated(y, [axis.stride for axis in geometry.axes], xp=xp), geometry, xp=xp)

    def ey_adjoint(self, Y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        y = super().ey_adjoint(Y, geometry, xp=xp)
        return y[(..., *(slice(None, None, axis.stride) for axis in geometry.axes))]

    def transform(self, slot: str, x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(*tile, *columns) -> (*frequency, columns); zeros follow a tile that is shorter than the transform."""
        if slot != "x":  # to correlate, not to convolve
            return conj(self.transform("x", conj(x, xp=xp), geometry, xp=xp), xp=xp)
        ndim = len(self.length)
        transform = fourier(xp).rfftn if is_real(x, xp=xp) else fourier(xp).fftn
        x = xp.permute_dims(x, (*range(ndim, x.ndim), *range(ndim)))
        X = transform(x, s=self.length, axes=tuple(range(x.ndim - ndim, x.ndim)))
        X = xp.reshape(X, (-1, *X.shape[x.ndim - ndim :]))
        X = xp.permute_dims(X, (*range(1, ndim + 1), 0))
        if x.shape[1] == 1:
            return cast(ArrayT, X)
        # Matrices are multiplied, and that is slow where their numbers lie apart.
        matrices: ArrayT = xp.empty(X.shape, dtype=X.dtype, device=device(X))
        return put(matrices, (...,), cast(ArrayT, X), xp=xp)

    def transform_adjoint(self, slot: str, X: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        if slot == "x":
            return conj(self.transform_adjoint("w", conj(X, xp=xp), geometry, xp=xp), xp=xp)
        ndim = len(self.length)
        transform = fourier(xp).irfftn if X.shape[ndim - 1] < self.length[-1] else fourier(xp).ifftn
        x = transform(xp.permute_dims(X, (ndim, *range(ndim))), s=self.length, axes=tuple(range(1, ndim + 1)))
        return cast(ArrayT, xp.permute_dims(x, (*range(1, ndim + 1), 0)))


def _outputs(axis: Axis, length: int) -> tuple[int, int]:
    """How many outputs there are from the first to the last; and in a tile: all, where the length allows."""
    outputs = axis.stride * (axis.out - 1) + 1
    whole = length >= shortest(axis) or length == circle(axis)
    return outputs, outputs if whole else length - axis.extent + 1


def circle(axis: Axis) -> int:
    """The length of a transform that reads a circular border where it stands in the input; 0 where there is none.

    In a transform of length L, outputs meet inputs mod L, and an input with its border is the same at all places that
    are equal mod its period. So the first L = period places are all of it, and the others are not read.
    """
    return axis.period if axis.period >= max(axis.stride * (axis.out - 1) + 1, axis.extent) else 0


def shortest(axis: Axis) -> int:
    """The least length of a transform for all outputs of an axis in one tile.

    In a transform of length L, output j and tap t meet each input i at which j + dilation*t is equal to i + lo mod L.
    It has to be equal. Left of it are the places 0 <= p < span of the windows, right of it those of the inputs,
    begin <= q < end; the rest is padding. No p is a place q - L if L >= end, and none is q + L if L >= span - begin. So
    the zeros before the inputs and those after them may be the same places.
    """
    outputs = axis.stride * (axis.out - 1) + 1
    span = outputs + axis.extent - 1
    begin, end = (min(max(place, 0), span) for place in (axis.lo, axis.lo + axis.size))
    return max(end, span - begin, outputs, axis.extent)


def _dilated(x: ArrayT, steps: Sequence[int], *, xp: Namespace) -> ArrayT:
    """(n, c, *size) -> the same with zeros between neighbours, `step` apart."""
    if all(step == 1 for step in steps):
        return x
    size = (step * (n - 1) + 1 for n, step in zip(x.shape[2:], steps, strict=True))
    zeros: ArrayT = xp.zeros((*x.shape[:2], *size), dtype=x.dtype, device=device(x))
    return put(zeros, (..., *(slice(None, None, step) for step in steps)), x, xp=xp)
