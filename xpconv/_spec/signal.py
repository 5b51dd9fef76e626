"""Arrays without channels, in integers: what `convolve` and `correlate` are as a convolution with channels.

Along the axes that are convolved, `full` is the whole result, and each mode is a part of it:

    convolve   full[i] = sum over t of  x[i - t] * k[t]                    i from 0 to size + extent - 2
    correlate  full[i] = sum over t of  x[i + t - (extent - 1)] * k[t]     with k conjugated

Each other axis is a batch: where the kernel has one element, an axis of samples; where x has one, of outputs; where
both have more, of groups. So nothing is copied to broadcast it, and each group has one input.

In `full`, x and the kernel may exchange their places: the sums of `convolve` stay the same, and those of `correlate`
come in the reverse order. The smaller one is the weight, and the taps of a dilated kernel a dilated input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeAlias

from .geometry import PerAxis, integer, is_listing, per_axis
from .memory import remember
from .parameters import Parameters, canonical

__all__ = ["Signals", "View"]

Shape: TypeAlias = tuple[int, ...]


class View(NamedTuple):
    """Where an array of the caller's has its axes, and the shape that a convolution takes it in."""

    order: Shape  # the axes as the caller counts them: first those of the batch, then those that are convolved
    split: Shape  # the sizes of these
    inner: Shape  # the shape that a convolution takes

    @property
    def shape(self) -> Shape:
        """The shape that the caller has."""
        return tuple(size for _, size in sorted(zip(self.order, self.split, strict=True)))


class Signals(NamedTuple):
    """A call of `convolve` or `correlate` without its arrays."""

    swapped: bool  # whether the kernel stands in the place of the input, and x in that of the weight
    reverse: bool  # whether the result comes in the reverse order
    operands: tuple[View, View]  # of the input and the weight
    y: View
    params: dict[str, Any]  # of `conv`

    @classmethod
    def of(cls, x_shape: Shape, kernel_shape: Shape, mode: str, axes: PerAxis | None, params: Parameters) -> Signals:
        """The parameters are those of the call; with `flip` it is `convolve`, without it `correlate`."""
        try:
            key = tuple(x_shape), tuple(kernel_shape), *map(canonical, (mode, axes, *params))
            found = _signals.get(key)
        except TypeError:  # not every value can be a key; the sentence about it is said below
            return _of(x_shape, kernel_shape, mode, axes, params)
        return found or remember(_signals, key, _of(x_shape, kernel_shape, mode, axes, params), MOST_REMEMBERED, 8)


MOST_REMEMBERED = 1024
_signals: dict[Hashable, Signals] = {}

# Where a mode begins in `full`, and how many elements it has, for the size of x and the extent of the kernel.
_MODES: dict[str, Callable[[int, int], tuple[int, int]]] = {
    "full": lambda size, extent: (0, size + extent - 1),
    "same": lambda size, extent: ((extent - 1) // 2, size),
    "valid": lambda size, extent: (min(size, extent) - 1, abs(size - extent) + 1),
}


def _of(x_shape: Shape, kernel_shape: Shape, mode: str, axes: PerAxis | None, params: Parameters) -> Signals:
    if type(mode) is not str or mode not in _MODES:
        kind = ValueError if type(mode) is str else TypeError
        raise kind(f"mode must be 'full', 'same' or 'valid': got {mode!r}")
    convolved, others = _axes(len(x_shape), len(kernel_shape), axes)
    size, x_batch = _parted("x", x_shape, convolved, others)
    taps, kernel_batch = _parted("kernel", kernel_shape, convolved, others)
    stride = per_axis("stride", params.stride, len(taps), 1)
    dilation = per_axis("dilation", params.dilation, len(taps), 1)
    extent = tuple(d * (k - 1) + 1 for k, d in zip(taps, dilation, strict=True))

    swapped = _is_swapped(mode, params.padding_mode, size, taps, extent)
    reverse = swapped and not params.flip
    rows = [
        _row(_MODES[mode](n, m), (m, n) if swapped else (n, m), s, reverse)
        for n, m, s in zip(size, extent, stride, strict=True)
    ]
    out = tuple(count for count, _ in rows)
    operands = (taps, kernel_batch), (size, x_batch)
    groups, *views = _views(others, convolved, operands if swapped else operands[::-1], out)
    names = ("input_dilation", "dilation") if swapped else ("dilation", "input_dilation")
    of_conv = {
        "stride": stride,
        "padding": tuple(padding for _, padding in rows),
        "groups": max(groups, 1),
        "padding_mode": params.padding_mode,
        "flip": params.flip,
        "dtype": params.dtype,
        **dict(zip(names, (dilation, (1,) * len(taps)), strict=True)),
    }
    shapes = (kernel_shape, x_shape) if swapped else (x_shape, kernel_shape)
    data, weight = (
        view if len(shape) == len(view.order) else View(tuple(range(len(taps))), tuple(shape), view.inner)
        for view, shape in zip(views, shapes, strict=False)
    )
    return Signals(swapped, reverse, (data, weight), views[2], of_conv)


def _axes(x_ndim: int, kernel_ndim: int, axes: PerAxis | None) -> tuple[Shape, Shape]:
    """The axes that are convolved and all others, of the operand that has more."""
    most = max(x_ndim, kernel_ndim)
    if axes is None:
        if x_ndim != kernel_ndim:
            raise ValueError(
                f"x and kernel must have the same number of axes where `axes` is not given: got {x_ndim} and "
                f"{kernel_ndim}"
            )
        return tuple(range(most)), ()
    given = axes if is_listing(axes) else (axes,)
    convolved = tuple(integer("axes", axis, -most, most - 1) % most for axis in given)  # type: ignore[union-attr]
    if len(set(convolved)) < len(convolved):
        raise ValueError(f"axes must name each axis once: got {axes!r}")
    for name, ndim in (("x", x_ndim), ("kernel", kernel_ndim)):
        if ndim not in (most, len(convolved)):
            raise ValueError(
                f"{name} must have {most} axes as the other array has, or just the {len(convolved)} that `axes` "
                f"names: got {ndim}"
            )
    return convolved, tuple(axis for axis in range(most) if axis not in convolved)


def _parted(name: str, shape: Shape, convolved: Shape, others: Shape) -> tuple[Shape, Shape]:
    """The sizes along the axes that are convolved, and along the others: ones where there are no others."""
    whole = len(shape) == len(convolved) + len(others)
    sizes = tuple(shape[axis] for axis in convolved) if whole else tuple(shape)
    if 0 in sizes:
        raise ValueError(f"{name} must have an element on each axis that is convolved: got shape {tuple(shape)}")
    return sizes, tuple(shape[axis] for axis in others) if whole else (1,) * len(others)


def _is_swapped(mode: str, padding_mode: Any, size: Shape, taps: Shape, extent: Shape) -> bool:
    """Whether the kernel takes the place of x: where it must, in "valid", or where it has more elements."""
    if mode == "valid":
        larger = [m > n for n, m in zip(size, extent, strict=True)]
        if any(larger) and any(n > m for n, m in zip(size, extent, strict=True)):
            raise ValueError(
                "mode must be 'full' or 'same' where neither x nor the kernel is at least as large as the other on "
                f"each axis: got 'valid', x of {size}, a kernel that spans {extent}"
            )
        return any(larger)
    return padding_mode == "zeros" and math.prod(taps) > math.prod(size)


def _row(part: tuple[int, int], sizes: tuple[int, int], stride: int, reverse: bool) -> tuple[int, tuple[int, int]]:
    """How many elements of `full` are computed on an axis, and the padding for windows that begin at the first."""
    (first, length), (size, window) = part, sizes
    outputs = (length - 1) // stride + 1
    if reverse:  # the last of them comes first
        length = stride * (outputs - 1) + 1
        first = size + window - 1 - first - length
    lo = window - 1 - first
    return outputs, (lo, length + window - 1 - size - lo)


def _views(others: Shape, convolved: Shape, operands: Any, out: Shape) -> tuple[int, View, View, View]:
    """The number of groups, and how the input, the weight and the result are seen.

    operands: of the input and the weight the sizes on the axes that are convolved, and on the others.
    """
    (size, data), (taps, weight) = operands
    for axis, n, m in zip(others, data, weight, strict=True):
        if n != m and 1 not in (n, m):
            raise ValueError(
                f"x and kernel must have the same size, or one of them 1, on each axis that is not convolved: got "
                f"{n} and {m} on axis {axis}"
            )
    places = range(len(others))
    samples = [i for i in places if weight[i] == 1]
    outputs = [i for i in places if data[i] == 1 != weight[i]]
    groups = [i for i in places if 1 not in (data[i], weight[i])]
    n, g, o = (math.prod(one[i] for i in role) for one, role in ((data, samples), (data, groups), (weight, outputs)))

    def view(roles: list[int], sizes: Shape, last: Shape, inner: tuple[int, int]) -> View:
        order = (*(others[i] for i in roles), *convolved)
        return View(order, (*(sizes[i] for i in roles), *last), (*inner, *last))

    broadcast = tuple(m if n == 1 else n for n, m in zip(data, weight, strict=True))
    return (
        g,
        view(samples + groups + outputs, data, size, (n, g)),
        view(groups + outputs + samples, weight, taps, (g * o, min(g, 1))),
        view(samples + groups + outputs, broadcast, out, (n, g * o)),
    )
