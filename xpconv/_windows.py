"""Floor 2: windows (im2col) and their adjoint, the fold (col2im).

Without a view both go axis by axis: a window of many axes is a window along one, then along the next. So a kernel of
k taps on each of d axes takes d*k slices, not k**d.
"""

from __future__ import annotations

import math
import operator
from functools import lru_cache
from itertools import product
from typing import Any

from ._geometry import Axis, Geometry
from ._namespace import add, device, strided_view
from ._typing import ArrayT, Namespace

__all__ = ["fold", "row_windows", "windows"]


def windows(x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
    """(n, c, *padded) -> (n, c, *kernel, *out): each tap's value at each position; a view where there are such."""
    places, along, steps = _view(geometry)
    view = strided_view(x, (*x.shape[:2], *places), along, steps)
    return windows_by_slices(x, geometry, xp=xp) if view is None else view


@lru_cache(maxsize=1024)
def _view(geometry: Geometry) -> tuple[tuple[int, ...], ...]:
    """The sizes of the view behind (n, c), the axes of x that its axes walk along, and in which steps."""
    spatial = tuple(range(2, 2 + len(geometry.axes)))
    steps = (1, 1, *(axis.dilation for axis in geometry.axes), *(axis.stride for axis in geometry.axes))
    return (*geometry.kernel, *geometry.out), (0, 1, *spatial, *spatial), steps


def windows_by_slices(x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
    """The same for a library without strided views."""
    along = 1 + len(geometry.axes)
    for axis in reversed(geometry.axes):
        # (n, c, *kernel[i + 1:], *padded[:i + 1], *out[i + 1:]) -> (n, c, *kernel[i:], *padded[:i], *out[i:])
        x = xp.stack([x[_along(along, _reach(axis, tap))] for tap in range(axis.kernel)], axis=2)
    return x


def row_windows(x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
    """(n, c, *padded, the first by one longer) -> (n, c, *kernel, out, row): a window at every place of each row.

    Rows are all axes but the first as they lie in memory. Windows reach around the end of a row into the next.
    """
    first = geometry.axes[0]
    lengths = [math.prod(geometry.padded[i + 1 :]) for i in range(len(geometry.axes))]  # from place to place, in memory
    steps = [axis.dilation * length for axis, length in zip(geometry.axes, lengths, strict=True)]
    row, ndim = lengths[0], len(geometry.axes)
    x = xp.reshape(x, (*x.shape[:2], -1))
    shape = (*x.shape[:2], *geometry.kernel, first.out, row)
    view = strided_view(x, shape, (0, 1, *(2,) * (ndim + 2)), (1, 1, *steps, first.stride * row, 1))
    if view is not None:
        return view
    # Tap by tap, a run from the tap's place in the first window to that in the last.
    places = [sum(map(operator.mul, tap, steps)) for tap in product(*map(range, geometry.kernel))]
    span = first.stride * (first.out - 1) + 1
    x = xp.stack([x[..., place : place + span * row] for place in places], axis=2)
    x = xp.reshape(x, (*x.shape[:2], *geometry.kernel, span, row))
    return x[..., :: first.stride, :]


def fold(columns: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
    """(n, c, *kernel, *out) -> (n, c, *padded): each value added to where `windows` took it from."""
    along = 1 + len(geometry.axes)
    for axis in geometry.axes:
        # (n, c, *kernel[i:], *padded[:i], *out[i:]) -> (n, c, *kernel[i + 1:], *padded[:i], kernel[i], *out[i:])
        columns = xp.moveaxis(columns, 2, along)
        # Tap by tap or window by window, whichever are fewer: a value of (tap, window) belongs to both.
        if axis.kernel <= axis.out:
            pieces = [(_reach(axis, tap), columns[_along(along, tap)]) for tap in range(axis.kernel)]
        else:
            pieces = [(_span(axis, window), columns[_along(along + 1, window)]) for window in range(axis.out)]
        if len(pieces) == 1 and pieces[0][1].shape[along] == axis.padded:
            columns = pieces[0][1]  # the one piece is the whole
        else:
            shape = (*columns.shape[:along], axis.padded, *columns.shape[along + 2 :])
            columns = xp.zeros(shape, dtype=columns.dtype, device=device(columns))
            for where, piece in pieces:
                columns = add(columns, _along(along, where), piece, xp=xp)
        # (n, c, *kernel[i + 1:], *padded[:i + 1], *out[i + 1:])
    return columns


def _reach(axis: Axis, tap: int) -> slice:
    """The padded inputs that one tap meets, window by window."""
    first = axis.dilation * tap
    return slice(first, first + axis.stride * (axis.out - 1) + 1, axis.stride)


def _span(axis: Axis, window: int) -> slice:
    """The padded inputs that one window meets, tap by tap."""
    first = axis.stride * window
    return slice(first, first + axis.extent, axis.dilation)


def _along(position: int, key: slice | int) -> tuple[Any, ...]:
    """A part of the axis at a position, all of every other axis."""
    return (*(slice(None),) * position, key, ...)
