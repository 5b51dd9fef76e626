"""Windows (im2col) and their adjoint, the fold (col2im).

Without a view both go axis by axis: a window of many axes is a window along one, then along the next. So a kernel of
k taps on each of d axes takes d*k slices, not k**d, and far fewer where k is large. In libraries that compile, each
slice costs time.
"""

from __future__ import annotations

import math
import operator
from itertools import product
from typing import Any, NamedTuple

from .._spec.geometry import Axis, Geometry
from .devices import device
from .doors import add, put, strided_view
from .typing import ArrayT, Namespace

__all__ = ["columns", "fold", "fold_axis", "row_windows", "windows"]

FEW = 15  # up to so many slices are faster than the alternative; four times as many, if they have no gaps


def windows(x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
    """(n, c, *padded) -> (n, c, *kernel, *out): each tap's value at each position; a view if the library has them."""
    view = strided_view(x, (*x.shape[:2], *geometry.kernel, *geometry.out), *geometry.walk)
    return windows_by_slices(x, geometry, xp=xp) if view is None else view


def columns(x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
    """(n, c, *padded) -> (c, *kernel, n, *out): the windows, in the order in which lowering stores them."""
    view = strided_view(x, *geometry.columns)
    if view is not None:
        return view
    ndim = len(geometry.axes)
    x = windows_by_slices(x, geometry, xp=xp)  # (n, c, *kernel, *out)
    return xp.permute_dims(x, (1, *range(2, 2 + ndim), 0, *range(2 + ndim, 2 + 2 * ndim)))


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
    """(n, c, *kernel, *out) -> (n, c, *size): each value added to the input that it was taken from."""
    along = 1 + len(geometry.axes)
    for axis in geometry.axes:
        columns = fold_axis(columns, axis, along, xp=xp)
    return columns


def fold_axis(columns: ArrayT, axis: Axis, along: int, *, xp: Namespace) -> ArrayT:
    """(n, c, *kernel[i:], *size[:i], *out[i:]) -> (n, c, *kernel[i + 1:], *size[:i + 1], *out[i + 1:])."""
    columns = xp.moveaxis(columns, 2, along)  # (n, c, *kernel[i + 1:], *size[:i], kernel[i], *out[i:])
    taps, outputs, met = axis.met()
    if met is None:
        shape = (*columns.shape[:along], axis.size, *columns.shape[along + 2 :])
        zeros: ArrayT = xp.zeros(shape, dtype=columns.dtype, device=device(columns))
        return zeros
    if (met.kernel, met.out) != (axis.kernel, axis.out):
        columns = columns[(*(slice(None),) * along, taps, outputs, ...)]
    # Tap by tap or window by window, whichever are fewer: a value of (tap, window) belongs to both.
    by_tap = _pieces(met, met.kernel, met.dilation, met.stride) <= _pieces(met, met.out, met.stride, met.dilation)
    if by_tap:
        return _added(columns, along, _Places(met.dilation, met.stride, met.lo, met.size), xp=xp)
    columns = xp.moveaxis(columns, along, along + 1)
    return _added(columns, along, _Places(met.stride, met.dilation, met.lo, met.size), xp=xp)


def _pieces(axis: Axis, count: int, step: int, stride: int) -> int:
    return -(-count // stride) if step == 1 and min(axis.kernel, axis.out) > FEW else count


class _Places(NamedTuple):
    """Entry j of piece i belongs at `step * i + stride * j - lo`, if that is one of `size` places."""

    step: int
    stride: int
    lo: int
    size: int


def _added(pieces: ArrayT, along: int, places: _Places, *, xp: Namespace) -> ArrayT:
    """(..., n, m, ...) -> (..., size, ...): each entry of each piece is added at its place.

    Of many pieces, i = q*k + r, those of one r are added first: for all r at the same time, one q after the other.
    """
    n, m = pieces.shape[along : along + 2]
    head, tail = pieces.shape[:along], pieces.shape[along + 2 :]
    step, stride, lo, size = places

    def zeros(*middle: int) -> ArrayT:
        nothing: ArrayT = xp.zeros((*head, *middle, *tail), dtype=pieces.dtype, device=device(pieces))
        return nothing

    if n == 1 and (stride == 1 or m == 1) and 0 <= lo <= m - size:
        return pieces[(*(slice(None),) * along, 0, slice(lo, lo + size), ...)]
    if n > FEW and step == 1 < stride:  # k = stride: the places of one r are all r + stride * (q + j)
        k, count = stride, -(-n // stride)
        if n < k * count:
            pieces = put(zeros(k * count, m), _along(along, slice(0, n)), pieces, xp=xp)
        pieces = xp.moveaxis(xp.reshape(pieces, (*head, count, k, m, *tail)), along, along + 1)
        sums = _added(pieces, along + 1, _Places(1, 1, 0, count + m - 1), xp=xp)
        sums = xp.reshape(xp.moveaxis(sums, along, along + 1), (*head, -1, *tail))
        begin, end = max(lo, 0), min(lo + size, sums.shape[along])
        sums = sums[_along(along, slice(begin, end))]
        return (
            sums if end - begin == size else put(zeros(size), _along(along, slice(begin - lo, end - lo)), sums, xp=xp)
        )
    done, total = 0, None
    if n > 2 * FEW and stride == 1:
        k = math.isqrt(n)
        count = n // k
        done = k * count
        most = xp.reshape(pieces[_along(along, slice(0, done))], (*head, count, k, m, *tail))
        most = xp.moveaxis(most, along, along + 1)
        sums = _added(most, along + 1, _Places(step * k, 1, 0, step * k * (count - 1) + m), xp=xp)
        total = _added(sums, along, _Places(step, 1, lo, size), xp=xp)
    total = zeros(size) if total is None else total
    for i in range(done, n):
        first = step * i - lo
        begin, end = max(-(first // stride), 0), min((size - 1 - first) // stride + 1, m)
        if begin < end:
            where = slice(first + stride * begin, first + stride * (end - 1) + 1, stride)
            piece = pieces[(*(slice(None),) * along, i, slice(begin, end), ...)]
            total = add(total, _along(along, where), piece, xp=xp)
    return total


def _reach(axis: Axis, tap: int) -> slice:
    """The padded inputs that one tap meets, window by window."""
    first = axis.dilation * tap
    return slice(first, first + axis.stride * (axis.out - 1) + 1, axis.stride)


def _along(position: int, key: slice | int) -> tuple[Any, ...]:
    """A part of the axis at a position, all of every other axis."""
    return (*(slice(None),) * position, key, ...)
