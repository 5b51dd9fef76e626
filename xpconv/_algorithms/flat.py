"""Lowering of whole rows: the basis in which a window begins at every place of a row, padding included.

    b has one value, k is (channel, tap), l is (sample, leading position, place in the padded trailing axes)

Where the stride is 1, what one tap meets is then one run through memory, from row to row without a break, which is
copied several times as fast as many short ones. Columns that belong to no output are dropped; the gradients' are zero.
"""

from __future__ import annotations

from dataclasses import dataclass

from .._arrays.padding import pad
from .._arrays.typing import ArrayT, Namespace
from .._arrays.windows import row_windows
from .._spec.geometry import Axis, Geometry
from .._spec.memory import derived
from .basis import Footprint
from .lowering import Lowering

__all__ = ["Flat"]


@dataclass(frozen=True)
class Flat(Lowering):
    """For two or more axes, all but the first of stride 1."""

    name = "flat"
    propagates_nonfinite = frozenset("w")  # zeros of Y meet windows that reach around the end of a row

    def reshapes(self, slot: str, geometry: Geometry) -> bool:  # noqa: ARG002
        return slot == "w"

    def footprint(self, geometry: Geometry) -> Footprint:
        return super().footprint(_whole_rows(geometry))

    def ex(self, x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(n, g*c, *size) -> (g, c*taps, n*rows)."""
        ndim, rows = len(geometry.axes), _whole_rows(geometry)
        columns = row_windows(pad(x, _longer(geometry), xp=xp), geometry, xp=xp)  # (n, g*c, *kernel, out, row)
        columns = xp.permute_dims(columns, (1, *range(2, 2 + ndim), 0, 2 + ndim, 3 + ndim))
        shape = (geometry.groups, geometry.inputs * geometry.taps, geometry.samples * rows.positions)
        return xp.reshape(columns, shape)

    def ex_adjoint(self, columns: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        rows = _whole_rows(geometry)
        columns = xp.reshape(columns, (*columns.shape[:2], geometry.samples, *rows.out))
        columns = columns[(..., *(slice(size) for size in geometry.out))]
        columns = xp.reshape(columns, (*columns.shape[:2], geometry.samples * geometry.positions))
        return super().ex_adjoint(columns, geometry, xp=xp)

    def ey(self, y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        """(n, g*o, *out) -> (g, o, n*rows)."""
        rows = _whole_rows(geometry)
        axes = (Axis(size, 1, 1, 1, 0, row - size) for size, row in zip(geometry.out, rows.out, strict=True))
        return super().ey(pad(y, geometry.over(axes), xp=xp), rows, xp=xp)

    def ey_adjoint(self, y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
        y = super().ey_adjoint(y, _whole_rows(geometry), xp=xp)
        return y[(..., *(slice(size) for size in geometry.out))]


@derived
def _whole_rows(geometry: Geometry) -> Geometry:
    """A window at every place of the trailing axes."""
    first, *others = geometry.axes
    return geometry.over((first, *(axis._replace(hi=axis.hi + axis.extent - 1) for axis in others)))


@derived
def _longer(geometry: Geometry) -> Geometry:
    """With one row more, which the last windows reach into."""
    first, *others = geometry.axes
    return geometry.over((first._replace(hi=first.hi + 1), *others))
