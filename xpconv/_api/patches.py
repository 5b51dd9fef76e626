"""Windows as columns, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, TypeVar

from .._arrays.devices import device
from .._arrays.doors import convert, item_bytes, put
from .._arrays.dtypes import accumulating, fitting, working
from .._arrays.layout import Layout
from .._arrays.namespace import agree, is_bool, library, missing_dtypes, native
from .._arrays.padding import border, fold_runs, pad
from .._arrays.typing import ArrayT, Namespace
from .._arrays.windows import fold_axis, windows
from .._engines.dispatch import linear
from .._engines.entry import public
from .._spec.convolution import Convolution
from .._spec.geometry import Padding, PerAxis, check_elements, is_listing, per_axis
from .._spec.memory import remember
from .._spec.parameters import Parameters, canonical

__all__ = ["fold", "unfold"]

T = TypeVar("T")


@public
def unfold(
    x: ArrayT,
    kernel_size: PerAxis,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    padding_mode: str | Sequence[str] = "zeros",
    padding_value: complex = 0.0,
    channel_axis: int = 1,
) -> ArrayT:
    """Take out all windows of an array, as columns (im2col).

    Parameters
    ----------
    x : array, shape (batch, channels, *spatial)
        Of any dtype, bool too. With a sequence for `kernel_size` there may be no batch axis, or several.
    kernel_size : int or sequence of int
        The sizes of a window. An integer is that of all axes but two.
    stride, padding, dilation, padding_mode, padding_value
        As for `conv`.
    channel_axis : int, default 1
        Where `x` has its channels, as for `conv`. The result has its rows there, too: in front of the batch, in front
        of the positions or, with channels anywhere after the first spatial axis, behind the positions.

    Returns
    -------
    array, shape (batch, channels * prod(kernel_size), positions)
        Column by column what each window sees, the taps of a channel one after the other as in memory; as many
        positions as `conv` has outputs.

    Raises
    ------
    TypeError, ValueError
        As `conv` does.

    See Also
    --------
    fold : The adjoint.

    Notes
    -----
    The columns are `prod(kernel_size)` times as many numbers as `x` where the stride is 1; `conv` itself never holds
    all of them. They are what a convolution by a matrix product needs [1]_:
    ``weight.reshape(out_channels, -1) @ unfold(x, kernel_size)``.

    References
    ----------
    .. [1] K. Chellapilla, S. Puri, P. Simard, "High Performance Convolutional Neural Networks for Document
       Processing", Tenth International Workshop on Frontiers in Handwriting Recognition, 2006.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import unfold
    >>> unfold(np.arange(5.0).reshape(1, 1, 5), 3)
    array([[[0., 1., 2.],
            [1., 2., 3.],
            [2., 3., 4.]]])
    """
    xp = library("x", x)
    ndim = len(per_axis("kernel_size", kernel_size, None, 1)) if is_listing(kernel_size) else x.ndim - 2
    if ndim < 1 and not is_listing(kernel_size):
        raise ValueError(
            f"kernel_size must be a sequence where x is not (batch, channels, *spatial): got {kernel_size!r}, x with "
            f"{x.ndim} axes"
        )
    kernel = per_axis("kernel_size", kernel_size, ndim, 1)
    params = Parameters(stride, padding, dilation, padding_mode=padding_mode, padding_value=padding_value)
    layout = Layout.of("x", x.shape, ndim, channel_axis)
    batch = len(layout.batch)
    x = _moved(x, layout.channels, batch, xp=xp)
    size = tuple(x.shape[batch + 1 :])
    there, back = partial(_unfolded, kernel, params, False), partial(_folded, size, kernel, params)
    columns = linear(partial(_unfolded, kernel, params, True), (there, back), x, ndim)
    return _moved(columns, batch, min(layout.channels, batch + 1), xp=xp)


@public
def fold(
    columns: ArrayT,
    output_size: PerAxis,
    kernel_size: PerAxis,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    padding_mode: str | Sequence[str] = "zeros",
    padding_value: complex = 0.0,
    channel_axis: int = 1,
) -> ArrayT:
    """Add columns to where `unfold` takes them from (col2im): its adjoint.

    Parameters
    ----------
    columns : array, shape (batch, channels * prod(kernel_size), positions)
        Of numbers as for `conv`, or bool, where the sum is whether any is true. There may be no batch axis, or several.
    output_size : int or sequence of int
        The spatial sizes of the result; an integer is that of as many axes as `kernel_size` has, or of a single one.
    kernel_size : int or sequence of int
        The sizes of a window, one for all axes or one for each.
    stride, padding, dilation, padding_mode, padding_value, channel_axis
        What `unfold` was given; a constant border is added to no element. The result has its channels on that axis.

    Returns
    -------
    array, shape (batch, channels, *output_size)
        At each place the sum of what the windows over it hold.

    Raises
    ------
    TypeError, ValueError
        As `conv` does, and if there are not as many columns as windows, or no whole number of channels.

    See Also
    --------
    unfold : With the source.

    Notes
    -----
    ``<unfold(x), c> == <x, fold(c)>``. It does not undo `unfold`: where windows overlap, what they see is added up;
    divide by ``fold(unfold(ones))`` for the mean. Numbers of 16 bits are added in float32.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import fold, unfold
    >>> fold(unfold(np.ones((1, 1, 5)), 3), 5, 3)
    array([[[1., 2., 3., 2., 1.]]])
    >>> images = np.ones((2, 7, 7, 3))
    >>> patches = unfold(images, 3, channel_axis=-1)
    >>> patches.shape, fold(patches, (7, 7), 3, channel_axis=-1).shape
    ((2, 25, 27), (2, 7, 7, 3))
    """
    xp = library("columns", columns)
    if not is_bool(columns, xp=xp):
        agree(columns=columns)
    ndim = next((len(sizes) for sizes in (output_size, kernel_size) if is_listing(sizes)), 1)  # type: ignore[arg-type]
    size = per_axis("output_size", output_size, ndim, 0)
    kernel = per_axis("kernel_size", kernel_size, ndim, 1)
    if columns.ndim < 2:
        raise ValueError(f"columns must have at least 2 axes (channels * taps, positions): got {columns.ndim}")
    batch = columns.ndim - 2
    channels = Layout.of("columns", (1,) * (batch + 1 + ndim), ndim, channel_axis).channels
    columns = _moved(columns, min(channels, batch + 1), batch, xp=xp)
    rows = columns.shape[-2]
    if rows % math.prod(kernel):
        raise ValueError(f"columns must have a multiple of {math.prod(kernel)} rows, one for each tap: got {rows}")
    params = Parameters(stride, padding, dilation, padding_mode=padding_mode, padding_value=padding_value)
    there, back = partial(_folded, size, kernel, params), partial(_unfolded, kernel, params, False)
    x = linear(there, (there, back), columns, 1)
    return _moved(x, batch, channels, xp=xp)


def _moved(x: ArrayT, axis: int, to: int, *, xp: Namespace) -> ArrayT:
    """x with one axis in another place; torch cannot map its `moveaxis` over samples."""
    if axis == to:
        return x
    order = list(range(x.ndim))
    order.insert(to, order.pop(axis))
    return xp.permute_dims(x, tuple(order))


def _planned(make: Callable[..., T], facts: tuple[Any, ...], *more: Any) -> T:
    """What `make` returned before for the same facts: small windows take less time than their integers."""
    try:
        key = make, canonical(facts), more
        found: T | None = _plans.get(key)
    except TypeError:  # not every value can be a key; `make` takes it all the same, or raises an error
        return make(*facts, *more)
    return found if found is not None else remember(_plans, key, make(*facts, *more), MOST_PLANS)


MOST_PLANS = 256
_plans: dict[Hashable, Any] = {}


def _windowed(
    shape: tuple[int, ...], kernel: tuple[int, ...], params: tuple[Any, ...], constant: bool, dtype: Any, xp: Any
) -> tuple[Layout, Convolution]:
    layout = Layout.of("x", shape, len(kernel))
    convolution = Convolution.of(layout.inner(shape), (1, None, *kernel), Parameters(*params))
    convolution = convolution.with_value(lambda value: fitting(xp, value, dtype) if constant else 0)
    samples, channels, *_ = convolution.shape("x")
    check_elements((samples, channels, *kernel, *convolution.geometry.out), item_bytes(dtype), "padding")
    return layout, convolution


def _unfolded(kernel: tuple[int, ...], params: Parameters, constant: bool, x: ArrayT) -> ArrayT:
    """(*batch, channels, *spatial) -> (*batch, channels * taps, positions), with a constant border or without it."""
    xp, ndim = library("x", x), len(kernel)
    layout, convolution = _planned(_windowed, (tuple(x.shape), kernel, tuple(params), constant), x.dtype, xp)
    samples, channels, *_ = convolution.shape("x")
    x = convert(layout.inward(x, xp=xp), native(x.dtype), xp=xp)
    if convolution.border:
        everything = tuple(slice(0, size) for size in (samples, channels, *convolution.bordered.size))
        x = border(x, everything, convolution.border, xp=xp)
    geometry = convolution.bordered
    taps, positions, met = zip(*(axis.met() for axis in geometry.axes), strict=True) if ndim else ((), (), ())
    columns: ArrayT = xp.zeros((samples, channels, *geometry.kernel, *geometry.out), dtype=x.dtype, device=device(x))
    if None not in met:
        read, axes = zip(*(axis.part(0, axis.out) for axis in met), strict=True) if ndim else ((), ())
        part = geometry.over(axes)
        seen = windows(pad(x[(..., *read)], part, xp=xp), part, xp=xp)
        columns = put(columns, (..., *taps, *positions), seen, xp=xp)
    return xp.reshape(columns, (*layout.batch, channels * geometry.taps, geometry.positions))


def _folding(shape: tuple[int, ...], kernel: tuple[int, ...], params: tuple[Any, ...], item: int) -> Convolution:
    convolution = Convolution.of(shape, (1, None, *kernel), Parameters(*params)).linear
    check_elements(convolution.shape("x"), item, "output_size")
    return convolution


def _folded(size: tuple[int, ...], kernel: tuple[int, ...], params: Parameters, columns: ArrayT) -> ArrayT:
    """(*batch, channels * taps, positions) -> (*batch, channels, *spatial)."""
    xp = library("columns", columns)
    *batch, rows, positions = columns.shape
    channels = rows // math.prod(kernel)
    shape = math.prod(batch), channels, *size
    convolution = _planned(_folding, (shape, kernel, tuple(params), item_bytes(columns.dtype)))
    geometry = convolution.bordered
    if positions != geometry.positions:
        raise ValueError(f"columns must have {geometry.positions} positions on the last axis: got {positions}")

    dtype, logical = native(columns.dtype), is_bool(columns, xp=xp)
    work = xp.int32 if logical else accumulating(xp, dtype, working(xp, missing_dtypes(columns, xp=xp), dtype, dtype))
    columns = convert(columns, work, xp=xp)
    x: ArrayT = xp.reshape(columns, (geometry.samples, channels, *geometry.kernel, *geometry.out))
    own = False  # until something is added, it may be a view
    for axis, row in zip(geometry.axes, convolution.rows, strict=True):
        met = axis.met()[2]
        own = own or met is None or min(met.kernel, met.out) > 1
        x = fold_axis(x, axis, 1 + len(kernel), xp=xp)
        if row.runs:  # at once: with the borders of all axes it might be many times as large
            x = x if own else _copied(x, xp=xp)
            x, own = fold_runs(x, 1 + len(kernel), row.runs, row.size, xp=xp), True
    x = x if own else _copied(x, xp=xp)
    x = xp.not_equal(x, xp.zeros_like(x)) if logical else convert(x, dtype, xp=xp)
    return xp.reshape(x, (*batch, channels, *convolution.shape("x")[2:]))


def _copied(x: ArrayT, *, xp: Namespace) -> ArrayT:
    copy: ArrayT = xp.asarray(x, dtype=x.dtype, device=device(x), copy=True)
    return copy
