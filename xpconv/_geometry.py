"""Floor 0, integers only: what a convolution reads and writes, before any array is touched.

Every default, every output size, every padding rule and every error about shapes is here.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple, TypeAlias, cast

__all__ = [
    "Axis",
    "Geometry",
    "Padding",
    "Part",
    "PerAxis",
    "check_shape",
    "integer",
    "is_listing",
    "parse",
    "per_axis",
    "spatial_axes",
]

PerAxis: TypeAlias = int | Sequence[int]
Padding: TypeAlias = str | int | Sequence[int | tuple[int, int]]


class Axis(NamedTuple):
    """One spatial axis: output `j` and tap `t` meet at input `stride*j + dilation*t - lo`."""

    size: int
    kernel: int
    stride: int
    dilation: int
    lo: int  # zeros before the input; negative crops
    hi: int  # zeros after it; negative crops

    @property
    def extent(self) -> int:
        """How far one window reaches."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def padded(self) -> int:
        return self.lo + self.size + self.hi

    @property
    def out(self) -> int:
        return (self.padded - self.extent) // self.stride + 1

    def part(self, start: int, stop: int) -> tuple[slice, Axis]:
        """What outputs `start` to `stop` read: a slice of the input, and the axis of that smaller convolution.

        The rows from `first` to `last` that the windows cover may begin before the input or end after it:
        what is missing there is the padding of the part.
        """
        first = self.stride * start - self.lo
        last = self.stride * (stop - 1) - self.lo + self.extent
        begin = min(max(first, 0), self.size)
        end = min(max(last, begin), self.size)
        lo = min(max(-first, 0), last - first)  # a part may lie in the padding altogether
        hi = (last - first) - lo - (end - begin)
        return slice(begin, end), self._replace(size=end - begin, lo=lo, hi=hi)


@dataclass(frozen=True, slots=True)
class Geometry:
    """A whole convolution in integers: samples n, groups g, and in each group outputs o and inputs c."""

    samples: int
    groups: int
    outputs: int
    inputs: int
    axes: tuple[Axis, ...]

    @property
    def size(self) -> tuple[int, ...]:
        return tuple(axis.size for axis in self.axes)

    @property
    def kernel(self) -> tuple[int, ...]:
        return tuple(axis.kernel for axis in self.axes)

    @property
    def padded(self) -> tuple[int, ...]:
        return tuple(axis.padded for axis in self.axes)

    @property
    def out(self) -> tuple[int, ...]:
        return tuple(axis.out for axis in self.axes)

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)

    @property
    def positions(self) -> int:
        return math.prod(self.out)

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (self.samples, self.groups * self.inputs, *self.size)

    @property
    def w_shape(self) -> tuple[int, ...]:
        return (self.groups * self.outputs, self.inputs, *self.kernel)

    @property
    def y_shape(self) -> tuple[int, ...]:
        return (self.samples, self.groups * self.outputs, *self.out)

    def parts(self, columns: int) -> Iterator[Part]:
        """Cut into parts of at most `columns` columns, a column being one (group, sample, position).

        The innermost axes stay whole for as long as they fit, and the parts are as even as they can be.
        """
        lengths = (self.groups, self.samples, *self.out)
        if 0 in lengths:
            return
        cuts: list[list[tuple[int, int]]] = []
        for length in reversed(lengths):
            step = max(1, min(length, columns))
            columns //= step
            count = -(-length // step)
            cuts.append([(length * i // count, length * (i + 1) // count) for i in range(count)])
        for spans in product(*reversed(cuts)):
            yield _part(self, *spans)


class Part(NamedTuple):
    """A part of a convolution is a convolution: its own geometry, and where it lies in the whole."""

    geometry: Geometry
    groups: slice
    x: tuple[slice, ...]
    y: tuple[slice, ...]


# One part is remembered, never a whole cut: there may be millions of parts.
@lru_cache(maxsize=1024)
def _part(whole: Geometry, groups: tuple[int, int], samples: tuple[int, int], *out: tuple[int, int]) -> Part:
    (g0, g1), (n0, n1) = groups, samples
    rows = [axis.part(*span) for axis, span in zip(whole.axes, out, strict=True)]
    return Part(
        Geometry(n1 - n0, g1 - g0, whole.outputs, whole.inputs, tuple(axis for _, axis in rows)),
        slice(g0, g1),
        (slice(n0, n1), slice(g0 * whole.inputs, g1 * whole.inputs), *(cut for cut, _ in rows)),
        (slice(n0, n1), slice(g0 * whole.outputs, g1 * whole.outputs), *(slice(*span) for span in out)),
    )


def parse(
    x_shape: Sequence[Any],
    w_shape: Sequence[Any],
    stride: PerAxis,
    padding: Padding,
    dilation: PerAxis,
    groups: int,
) -> Geometry:
    """The geometry of shapes (batch, channels, *spatial) and (out, in/groups, *kernel) that a user gave.

    A gradient knows only two of the three arrays. Channels that are None follow from the rest.
    """
    samples, channels, *size = x_shape
    outputs, inputs, *kernel = w_shape
    groups = integer("groups", groups, 1)
    if channels is None:
        channels = inputs * groups
    if channels % groups:
        raise ValueError(f"groups must divide the input channels: got groups={groups}, {channels} channels")
    if outputs % groups:
        raise ValueError(f"groups must divide the output channels: got groups={groups}, {outputs} channels")
    if inputs not in (None, channels // groups):
        raise ValueError(
            f"weight must have {channels // groups} channels on axis 1 "
            f"({channels} input channels in {groups} groups): got {inputs}"
        )
    axes = spatial_axes(size, kernel, stride, padding, dilation)
    return Geometry(samples, groups, outputs // groups, channels // groups, axes)


def spatial_axes(
    size: Sequence[int], kernel: Sequence[int], stride: PerAxis, padding: Padding, dilation: PerAxis
) -> tuple[Axis, ...]:
    """One row per spatial axis, each with at least one output."""
    ndim = len(size)
    strides = per_axis("stride", stride, ndim, 1)
    dilations = per_axis("dilation", dilation, ndim, 1)
    if 0 in kernel:
        raise ValueError(f"the kernel must have at least one tap on each axis: got kernel size {tuple(kernel)}")
    unpadded = [Axis(*row, 0, 0) for row in zip(size, kernel, strides, dilations, strict=True)]
    axes = tuple(
        axis._replace(lo=lo, hi=hi) for axis, (lo, hi) in zip(unpadded, _padding(padding, unpadded), strict=True)
    )
    for i, axis in enumerate(axes):
        if axis.padded < axis.extent:
            raise ValueError(
                f"the kernel must fit into the padded input: on spatial axis {i} it spans {axis.extent} "
                f"({axis.kernel} taps, dilation {axis.dilation}), the padded input has {axis.padded}"
            )
        if axis.size + min(axis.lo, 0) + min(axis.hi, 0) < 0:
            raise ValueError(
                f"padding must not crop more than there is: got ({axis.lo}, {axis.hi}) "
                f"on spatial axis {i}, which has {axis.size}"
            )
    return tuple(map(_within, axes))


def integer(name: str, value: object, least: int) -> int:
    """An integer that a user gave, or a sentence."""
    try:
        number = _index(value)
        if number < least:
            raise ValueError
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} must be an integer of at least {least}: got {value!r}") from None
    return number


def per_axis(name: str, value: object, ndim: int | None, least: int) -> tuple[int, ...]:
    """One integer for all spatial axes, or one for each; with `ndim` None a sequence says how many there are."""
    try:
        values = tuple(map(_index, _entries(value, ndim)))
        if ndim not in (None, len(values)) or any(number < least for number in values):
            raise ValueError
    except (TypeError, ValueError) as error:
        one = "" if ndim is None else f"an integer of at least {least}, or "
        several = f"a sequence of {'integers of at least ' + str(least) if ndim is None else ndim}"
        raise type(error)(f"{name} must be {one}{several}, one per spatial axis: got {value!r}") from None
    return values


def check_shape(name: str, shape: Sequence[int], expected: Sequence[int]) -> None:
    if tuple(shape) != tuple(expected):
        raise ValueError(f"{name} must have shape {tuple(expected)}: got {tuple(shape)}")


def _index(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    return operator.index(value)


def _entries(value: Any, ndim: int | None) -> Iterable[Any]:
    """What a sequence or an array of one axis holds; anything else `ndim` times."""
    if is_listing(value):
        return cast(Iterable[Any], value)
    if ndim is None:
        raise TypeError
    return (value,) * ndim


def is_listing(value: Any) -> bool:
    return (isinstance(value, Sequence) and not isinstance(value, str | bytes)) or getattr(value, "ndim", 0) == 1


def _within(axis: Axis) -> Axis:
    """The same windows, without steps that lead out of the padded input: they would only inflate what is counted."""
    dilation = axis.dilation if axis.kernel > 1 else 1
    return axis._replace(stride=min(axis.stride, axis.padded - axis.extent + 1), dilation=dilation)


def _same(axis: Axis) -> tuple[int, int]:
    """As many outputs as strides fit into the input; the odd zero at the end."""
    outputs = -(-axis.size // axis.stride)
    total = max((outputs - 1) * axis.stride + axis.extent - axis.size, 0)
    return total // 2, total - total // 2


def _same_lower(axis: Axis) -> tuple[int, int]:
    lo, hi = _same(axis)
    return hi, lo


_NAMED_PADDINGS: dict[str, Callable[[Axis], tuple[int, int]]] = {
    "valid": lambda _: (0, 0),
    "same": _same,
    "same_lower": _same_lower,
}


def _padding(padding: Padding, axes: Sequence[Axis]) -> list[tuple[int, int]]:
    if isinstance(padding, str) and padding in _NAMED_PADDINGS:
        return [_NAMED_PADDINGS[padding](axis) for axis in axes]
    try:
        if isinstance(padding, str):
            raise ValueError
        pairs = [tuple(map(_index, _entries(entry, 2))) for entry in _entries(padding, len(axes))]
        if len(pairs) != len(axes) or any(len(pair) != 2 for pair in pairs):
            raise ValueError
    except (TypeError, ValueError) as error:
        names = ", ".join(map(repr, _NAMED_PADDINGS))
        raise type(error)(
            f"padding must be {names}, an integer, or {len(axes)} integers or (lo, hi) pairs, "
            f"one per spatial axis: got {padding!r}"
        ) from None
    return [(lo, hi) for lo, hi in pairs]
