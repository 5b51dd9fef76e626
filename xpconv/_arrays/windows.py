"""Windows (im2col) and their adjoint, the fold (col2im).

Without a view both go axis by axis: a window of many axes is a window along one, then along the next. So a kernel of
k taps on each of d axes takes d*k slices, not k**d, and far fewer where k is large. In libraries that compile, each
slice costs time.
"""

from __future__ import annotations

import math
import operator
from itertools import product
from typing import Any

from .._spec.geometry import Axis, Geometry
from .._spec.memory import derived
from .devices import device
from .doors import add, put, strided_view
from .typing import ArrayT, Namespace

__all__ = ["fold", "row_windows", "windows"]

FEW = 15  # up to so many slices are faster than the alternative; four times as many, if they have no gaps


def windows(x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
    """(n, c, *padded) -> (n, c, *kernel, *out): each tap's value at each position; a view if the library has them."""
    places, along, steps = _view(geometry)
    view = strided_view(x, (*x.shape[:2], *places), along, steps)
    return windows_by_slices(x, geometry, xp=xp) if view is None else view


@derived
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
        if axis.kernel <= (4 * FEW if axis.stride == 1 else FEW):
            x = xp.stack([x[_along(along, _reach(axis, tap))] for tap in range(axis.kernel)], axis=2)
        else:
            x = xp.moveaxis(_gathered(x, axis, along, xp=xp), along, 2)
    return x


def _gathered(x: ArrayT, axis: Axis, along: int, *, xp: Namespace) -> ArrayT:
    """(..., padded, ...) -> (..., kernel, out, ...)."""
    # Not made by NumPy: a compiler would store all of them as constants.
    taps, outs = (
        xp.arange(0, count * step, step, dtype=xp.int32, device=device(x))
        for count, step in ((axis.kernel, axis.dilation), (axis.out, axis.stride))
    )
    places = xp.add(xp.reshape(taps, (-1, 1)), outs)
    x = xp.take(x, xp.reshape(places, (-1,)), axis=along)
    return xp.reshape(x, (*x.shape[:along], axis.kernel, axis.out, *x.shape[along + 1 :]))


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
        if _pieces(axis, axis.kernel, axis.dilation, axis.stride) <= _pieces(
            axis, axis.out, axis.stride, axis.dilation
        ):
            columns = _added(columns, along, axis.dilation, axis.stride, axis.padded, xp=xp)
        else:
            columns = xp.moveaxis(columns, along, along + 1)
            columns = _added(columns, along, axis.stride, axis.dilation, axis.padded, xp=xp)
        # (n, c, *kernel[i + 1:], *padded[:i + 1], *out[i + 1:])
    return columns


def _pieces(axis: Axis, count: int, step: int, stride: int) -> int:
    return -(-count // stride) if step == 1 and min(axis.kernel, axis.out) > FEW else count


def _added(pieces: ArrayT, along: int, step: int, stride: int, size: int, *, xp: Namespace) -> ArrayT:
    """(..., n, m, ...) -> (..., size, ...): entry j of piece i is added at place `step * i + stride * j`.

    Of many pieces, i = q*k + r, those of one r are added first: for all r at the same time, one q after the other.
    """
    n, m = pieces.shape[along : along + 2]
    head, tail = pieces.shape[:along], pieces.shape[along + 2 :]

    def zeros(*middle: int) -> ArrayT:
        nothing: ArrayT = xp.zeros((*head, *middle, *tail), dtype=pieces.dtype, device=device(pieces))
        return nothing

    if n == 1 and m == size:
        return pieces[_along(along, 0)]
    if n > FEW and step == 1 < stride:  # k = stride: the places of one r are all r + stride * (q + j)
        k, count = stride, -(-n // stride)
        if n < k * count:
            pieces = put(zeros(k * count, m), _along(along, slice(0, n)), pieces, xp=xp)
        pieces = xp.moveaxis(xp.reshape(pieces, (*head, count, k, m, *tail)), along, along + 1)
        sums = _added(pieces, along + 1, 1, 1, max(-(-size // stride), count + m - 1), xp=xp)
        sums = xp.reshape(xp.moveaxis(sums, along, along + 1), (*head, -1, *tail))
        return sums[_along(along, slice(0, size))]
    done, total = 0, None
    if n > 2 * FEW and stride == 1:
        k = math.isqrt(n)
        count = n // k
        done = k * count
        most = xp.reshape(pieces[_along(along, slice(0, done))], (*head, count, k, m, *tail))
        most = xp.moveaxis(most, along, along + 1)
        sums = _added(most, along + 1, step * k, 1, step * k * (count - 1) + m, xp=xp)
        total = _added(sums, along, step, 1, size, xp=xp)
    total = zeros(size) if total is None else total
    for i in range(done, n):
        where = slice(step * i, step * i + stride * (m - 1) + 1, stride)
        total = add(total, _along(along, where), pieces[_along(along, i)], xp=xp)
    return total


def _reach(axis: Axis, tap: int) -> slice:
    """The padded inputs that one tap meets, window by window."""
    first = axis.dilation * tap
    return slice(first, first + axis.stride * (axis.out - 1) + 1, axis.stride)


def _along(position: int, key: slice | int) -> tuple[Any, ...]:
    """A part of the axis at a position, all of every other axis."""
    return (*(slice(None),) * position, key, ...)
