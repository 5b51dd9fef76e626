"""Lowering of a long kernel in two steps: the basis in which a window has so many taps of the last axis at a time.

    b has one value, k is (channel, tap of the leading axes, tap of a block), l is (sample, place), o is (output, block)

    y[j] = sum over q of Z[q, j + T q],    Z[q, p] = sum over r < T of w[T q + r] x[p + r]

A window of T taps at every place is T times the input, and Z has a row for each block: together about 2 sqrt(taps)
times the input, where all windows are `taps` times. Each output is the sum of its own products, so NaN stay in place;
in the gradients they do not, as zeros stand beside the output's gradient there. `choose` takes it for y.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from .._arrays.devices import device
from .._arrays.doors import put
from .._arrays.typing import ArrayT, Namespace
from .._spec.geometry import Geometry
from .basis import Footprint
from .lowering import Lowering

__all__ = ["Split", "block"]

FEWEST = 32  # taps


@dataclass(frozen=True)
class Split:
    """With `taps` of the last axis at a time, which divide its kernel; its stride is 1."""

    taps: int

    name = "lowering"
    swapped = False
    # Zeros of Y meet windows that no output of theirs reads.
    propagates_nonfinite: ClassVar[frozenset[str]] = frozenset("xw")

    def reshapes(self, slot: str, geometry: Geometry) -> bool:  # noqa: ARG002
        return False

    def makes_y(self, geometry: Geometry) -> bool:  # noqa: ARG002
        return False

    def footprint(self, geometry: Geometry) -> Footprint:
        inner = Lowering().footprint(self._block(geometry))
        blocks, weights = geometry.axes[-1].kernel // self.taps, math.prod(geometry.w_shape)
        rows = geometry.outputs * blocks
        y = geometry.groups * (rows + geometry.outputs) * inner.columns
        return Footprint(inner.x, weights, y, rows, inner.terms, inner.columns, inner.products * blocks)

    def unit(self, geometry: Geometry) -> tuple[int, ...]:
        return (1,) * len(geometry.axes)

    def ex(self, x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(n, g*c, *size) -> (g, c*taps of a block, n*places)."""
        return Lowering().ex(x, self._block(geometry), xp=xp)

    def ex_adjoint(self, X: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        return Lowering().ex_adjoint(X, self._block(geometry), xp=xp)

    def ew(self, w: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(g*o, c, *kernel) -> (g, o*blocks, c*taps of a block)."""
        w = xp.reshape(w, (*w.shape[:-1], -1, self.taps))
        w = xp.permute_dims(w, (0, w.ndim - 2, *range(1, w.ndim - 2), w.ndim - 1))  # (g*o, blocks, c, *taps)
        return xp.reshape(w, (geometry.groups, geometry.outputs * w.shape[1], -1))

    def ew_adjoint(self, W: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        *leading, last = geometry.kernel
        w = xp.reshape(W, (geometry.w_shape[0], last // self.taps, geometry.inputs, *leading, self.taps))
        w = xp.permute_dims(w, (0, *range(2, w.ndim - 1), 1, w.ndim - 1))
        return xp.reshape(w, geometry.w_shape)

    def ey(self, y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(n, g*o, *out) -> (g, o*blocks, n*places)."""
        last, places = geometry.axes[-1], self._block(geometry).out
        channels, step = geometry.groups * geometry.outputs, self.taps * last.dilation
        y = xp.permute_dims(y, (1, 0, *range(2, y.ndim)))  # (g*o, n, *out)
        blocks = last.kernel // self.taps
        Z: ArrayT = xp.zeros((channels, blocks, geometry.samples, *places), dtype=y.dtype, device=device(y))
        for q in range(blocks):
            Z = put(Z, (slice(None), q, ..., slice(q * step, q * step + last.out)), y, xp=xp)
        return xp.reshape(Z, (geometry.groups, geometry.outputs * blocks, -1))

    def ey_adjoint(self, y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(g, o*blocks, n*places) -> (n, g*o, *out)."""
        last, places = geometry.axes[-1], self._block(geometry).out
        channels, step = geometry.groups * geometry.outputs, self.taps * last.dilation
        Z = xp.reshape(y, (channels, -1, geometry.samples, *places))
        out = Z[:, 0:1, ..., : last.out]
        for q in range(1, Z.shape[1]):  # new arrays: to a compiler they are one sum
            out = xp.add(out, Z[:, q : q + 1, ..., q * step : q * step + last.out])
        out = out[:, 0, ...]  # (g*o, n, *out)
        return xp.permute_dims(out, (1, 0, *range(2, out.ndim)))

    def _block(self, geometry: Geometry) -> Geometry:
        """The windows of a block, one at every place."""
        return geometry.over((*geometry.axes[:-1], geometry.axes[-1]._replace(kernel=self.taps)))


def block(geometry: Geometry) -> int | None:
    """How many taps at a time: a divisor of a long kernel, above its square root; None where none is near."""
    last = geometry.axes[-1] if geometry.axes else None
    if last is None or last.stride > 1 or last.kernel < FEWEST:
        return None
    root = math.isqrt(last.kernel)
    # A few blocks less than the root: each is an operation for a compiler, and taps are one.
    blocks = next(blocks for blocks in range(root * 4 // 5, 0, -1) if not last.kernel % blocks)
    return last.kernel // blocks if 4 * blocks >= root else None
