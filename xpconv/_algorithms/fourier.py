"""Fourier transforms (overlap-save): the basis in which a convolution is a product, frequency by frequency.

    b is frequency, k is channel, l is (sample, tile)

Outputs are computed as with stride 1, and taps lie apart by the dilation; outputs that a stride skips are dropped.

Source: T. G. Stockham, "High-speed Convolution and Correlation", 1966; M. Mathieu, M. Henaff, Y. LeCun, "Fast Training
of Convolutional Networks through FFTs", ICLR, 2014.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

from .._arrays.devices import device
from .._arrays.doors import conj, put
from .._arrays.namespace import fourier, is_real
from .._arrays.padding import pad, pad_adjoint
from .._arrays.typing import ArrayT, Namespace
from .._arrays.windows import fold, windows
from .._spec.geometry import Axis, Geometry
from .._spec.memory import derived
from .basis import Footprint

__all__ = ["Fourier"]


@dataclass(frozen=True)
class Fourier:
    """With transforms of `length` inputs along each axis."""

    length: tuple[int, ...]

    name = "fft"
    swapped = False
    propagates_nonfinite = frozenset("yxw")

    def reshapes(self, slot: str, geometry: Geometry) -> bool:  # noqa: ARG002
        return False

    def footprint(self, geometry: Geometry) -> Footprint:
        frequencies = math.prod(self.length[:-1]) * (self.length[-1] // 2 + 1)  # half tell the whole
        columns = geometry.samples
        for axis, out, length in zip(geometry.axes, geometry.out, self.length, strict=True):
            columns *= -(-(axis.stride * (out - 1) + 1) // (length - axis.extent + 1))
        x, y = geometry.groups * geometry.inputs, geometry.groups * geometry.outputs
        half = 6 * frequencies  # three of each at a time; a complex number is two real ones
        numbers = half * columns * x, half * y * geometry.inputs, half * columns * y
        products, effort = 4 * frequencies * y * geometry.inputs * columns, 1 + math.log2(math.prod(self.length))
        return Footprint(*numbers, geometry.outputs, geometry.inputs, columns, products, effort)

    def unit(self, geometry: Geometry) -> tuple[int, ...]:
        return tuple(
            max(-(-(length - axis.extent + 1) // axis.stride), 1)
            for axis, length in zip(geometry.axes, self.length, strict=True)
        )

    def ex(self, x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(n, g*c, *size) -> (g, *frequency, c, n*tiles)."""
        tiles = self._tiles(geometry)
        x = windows(pad(x, tiles, xp=xp), tiles, xp=xp)  # (n, g*c, *length, *tiles)
        return self._to_basis(self._spectrum(self._turned(x, xp=xp), xp=xp), geometry, xp=xp)

    def ex_adjoint(self, X: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        tiles = self._tiles(geometry)
        x = self._from_basis(conj(X, xp=xp), geometry, xp=xp)
        x = conj(self._signal(x, xp=xp), xp=xp)
        return pad_adjoint(fold(self._turned(x, xp=xp), tiles, xp=xp), tiles, xp=xp)

    def ew(self, w: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(g*o, c, *kernel) -> (g, *frequency, o, c)."""
        padded: ArrayT = xp.zeros((*w.shape[:2], *self.length), dtype=w.dtype, device=device(w))
        padded = put(padded, (..., *self._taps(geometry)), conj(w, xp=xp), xp=xp)
        W = conj(self._spectrum(padded, xp=xp), xp=xp)
        W = xp.reshape(W, (geometry.groups, geometry.outputs, *W.shape[1:]))
        return xp.permute_dims(W, (0, *range(3, W.ndim), 1, 2))

    def ew_adjoint(self, W: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        W = xp.permute_dims(W, (0, W.ndim - 2, W.ndim - 1, *range(1, W.ndim - 2)))
        W = xp.reshape(W, (W.shape[0] * W.shape[1], *W.shape[2:]))
        return self._signal(W, xp=xp)[(..., *self._taps(geometry))]

    def ey(self, y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(n, g*o, *out) -> (g, *frequency, o, n*tiles)."""
        outputs = self._outputs(geometry)
        dense: ArrayT = xp.zeros((*y.shape[:2], *outputs.size), dtype=y.dtype, device=device(y))
        dense = put(dense, (..., *self._strides(geometry)), conj(y, xp=xp), xp=xp)
        y = self._turned(windows(dense, outputs, xp=xp), xp=xp)  # (n, g*o, *tiles, *tile)
        return self._to_basis(conj(self._spectrum(y, xp=xp), xp=xp), geometry, xp=xp)

    def ey_adjoint(self, Y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        ndim, outputs = len(self.length), self._outputs(geometry)
        y = self._signal(self._from_basis(Y, geometry, xp=xp), xp=xp)  # (n, g*o, *tiles, *length)
        y = y[(..., *(slice(m) for m in outputs.kernel))]
        by_axis = (axis for i in range(ndim) for axis in (2 + i, 2 + ndim + i))
        y = xp.reshape(xp.permute_dims(y, (0, 1, *by_axis)), (*y.shape[:2], *outputs.size))
        return y[(..., *self._strides(geometry))]

    @derived
    def _tiles(self, geometry: Geometry) -> Geometry:
        """Each tile's inputs as a window."""
        axes = []
        for axis, length, tile in zip(geometry.axes, self.length, self._outputs(geometry).axes, strict=True):
            padded = tile.kernel * (tile.out - 1) + length
            axes.append(Axis(axis.size, length, tile.kernel, 1, axis.lo, padded - axis.lo - axis.size))
        return geometry.over(axes)

    @derived
    def _outputs(self, geometry: Geometry) -> Geometry:
        """Each tile's outputs, with stride 1, as a window: so many that no input wraps around in the transform."""
        axes = []
        for axis, length in zip(geometry.axes, self.length, strict=True):
            m = length - axis.extent + 1
            axes.append(Axis(m * -(-(axis.stride * (axis.out - 1) + 1) // m), m, m, 1, 0, 0))
        return geometry.over(axes)

    def _taps(self, geometry: Geometry) -> list[slice]:
        return [slice(0, axis.extent, axis.dilation) for axis in geometry.axes]

    def _strides(self, geometry: Geometry) -> list[slice]:
        return [slice(0, axis.stride * (axis.out - 1) + 1, axis.stride) for axis in geometry.axes]

    def _turned(self, x: ArrayT, *, xp: Namespace) -> ArrayT:
        """(n, c, *a, *b) -> (n, c, *b, *a)."""
        ndim = len(self.length)
        return xp.permute_dims(x, (0, 1, *range(2 + ndim, 2 + 2 * ndim), *range(2, 2 + ndim)))

    def _spectrum(self, x: ArrayT, *, xp: Namespace) -> ArrayT:
        transform = fourier(xp).rfftn if is_real(x, xp=xp) else fourier(xp).fftn
        return cast(ArrayT, transform(x, s=self.length, axes=tuple(range(x.ndim - len(self.length), x.ndim))))

    def _signal(self, X: ArrayT, *, xp: Namespace) -> ArrayT:
        transform = fourier(xp).irfftn if X.shape[-1] < self.length[-1] else fourier(xp).ifftn
        return cast(ArrayT, transform(X, s=self.length, axes=tuple(range(X.ndim - len(self.length), X.ndim))))

    def _to_basis(self, X: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(n, g*c, *tiles, *frequency) -> (g, *frequency, c, n*tiles)."""
        ndim = len(self.length)
        tiles = range(3, 3 + ndim)
        X = xp.reshape(X, (geometry.samples, geometry.groups, -1, *X.shape[2:]))
        X = xp.permute_dims(X, (1, *range(3 + ndim, 3 + 2 * ndim), 2, 0, *tiles))
        return xp.reshape(X, (*X.shape[: 2 + ndim], -1))

    def _from_basis(self, X: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        ndim, tiles = len(self.length), self._outputs(geometry).out
        X = xp.reshape(X, (*X.shape[: 2 + ndim], geometry.samples, *tiles))
        X = xp.permute_dims(X, (2 + ndim, 0, 1 + ndim, *range(3 + ndim, 3 + 2 * ndim), *range(1, 1 + ndim)))
        return xp.reshape(X, (geometry.samples, -1, *X.shape[3:]))
