"""Floor 2: windows (im2col) and their adjoint, the fold (col2im).

Without a view both go axis by axis: a window of many axes is a window along one, then along the next. So a kernel of
k taps on each of d axes takes d*k slices, not k**d.
"""

from __future__ import annotations

from typing import Any

from ._geometry import Axis, Geometry
from ._namespace import add, device, strided_view
from ._typing import ArrayT, Namespace

__all__ = ["fold", "windows"]


def windows(x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
    """(n, c, *padded) -> (n, c, *kernel, *out): each tap's value at each position; a view where there are such."""
    axes, ndim = geometry.axes, len(geometry.axes)
    spatial = tuple(range(2, 2 + ndim))
    shape = (*x.shape[:2], *geometry.kernel, *geometry.out)
    steps = (1, 1, *(axis.dilation for axis in axes), *(axis.stride for axis in axes))
    view = strided_view(x, shape, (0, 1, *spatial, *spatial), steps)
    return windows_by_slices(x, geometry, xp=xp) if view is None else view


def windows_by_slices(x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
    """The same for a library without strided views."""
    along = 1 + len(geometry.axes)
    for axis in reversed(geometry.axes):
        # (n, c, *kernel[i + 1:], *padded[:i + 1], *out[i + 1:]) -> (n, c, *kernel[i:], *padded[:i], *out[i:])
        x = xp.stack([x[_along(along, _reach(axis, tap))] for tap in range(axis.kernel)], axis=2)
    return x


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
