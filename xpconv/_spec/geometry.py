"""What a convolution reads and writes, before any array is touched: integers only.

Every default, every output size, every padding rule and every error about shapes is here.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple, TypeAlias, cast

from .memory import once
from .names import did_you_mean

__all__ = [
    "NO_SPATIAL_AXES",
    "Axis",
    "Geometry",
    "Padding",
    "PerAxis",
    "Phase",
    "check_elements",
    "check_shape",
    "integer",
    "is_listing",
    "padded_axes",
    "parse",
    "per_axis",
    "spatial_axes",
    "within",
]

PerAxis: TypeAlias = int | Sequence[int]
Padding: TypeAlias = str | int | Sequence[int | tuple[int, int]]


# Behind an error that has another cause where a user has an image and a kernel, both without channels.
NO_SPATIAL_AXES = "; a weight of 2 axes has no spatial axes: arrays without channels are for convolve"


class Axis(NamedTuple):
    """One spatial axis: output `j` and tap `t` meet at input `stride*j + dilation*t - lo`."""

    size: int
    kernel: int
    stride: int
    dilation: int
    lo: int  # zeros before the input; negative crops
    hi: int  # zeros after it; negative crops
    period: int = 0  # of an input with its circular border: places so far apart hold the same number; 0 without one

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

    def part_of_input(self, start: int, stop: int) -> tuple[slice, Axis]:
        """Which outputs read inputs `start` to `stop`: a slice of the output, and the axis of that smaller convolution.

        The outermost windows reach out of the part: what they read there is padding of the part. Inputs that no window
        reaches are cropped; where no window reaches any input, the part has no outputs.
        """
        first = max(-(-(start + self.lo - self.extent + 1) // self.stride), 0)
        last = max(min((stop - 1 + self.lo) // self.stride + 1, self.out), first)
        lo = start + self.lo - self.stride * first
        hi = self.stride * (last - first - 1) + self.extent - lo - (stop - start)
        period = self.period if (start, stop) == (0, self.size) else 0
        return slice(first, last), self._replace(size=stop - start, lo=lo, hi=hi, period=period)

    def met(self) -> tuple[slice, slice, Axis | None]:
        """The taps and the outputs from the first to the last that meet an input; and their axis, None without any."""
        outputs = _reaching(self.out, self.stride, self.extent - 1, self)
        cropped = self._replace(lo=self.lo - self.stride * outputs.start)
        taps = _reaching(self.kernel, self.dilation, self.stride * (len(outputs) - 1), cropped)
        where = slice(taps.start, taps.stop), slice(outputs.start, outputs.stop)
        if not (self.size and taps and outputs):
            return *where, None
        axis = cropped._replace(kernel=len(taps), lo=cropped.lo - self.dilation * taps.start)
        return *where, axis._replace(hi=self.stride * (len(outputs) - 1) + axis.extent - axis.lo - self.size)

    def misses(self, slot: str) -> bool:
        """Whether an element of the slot may meet nothing along this axis, by a test that need not be exact."""
        reach, span = self.extent - 1, self.stride * (self.out - 1)
        if slot == "y":
            return self.lo > reach or self.size + self.lo <= span or self.dilation > self.size
        if slot == "w":
            return self.lo > span or self.size + self.lo <= reach or self.stride > self.size
        dense = self.stride <= (self.kernel if self.dilation == 1 else 1)
        dense = dense and self.dilation <= (self.out if self.stride == 1 else 1)
        return self.lo < 0 or self.size + self.lo > span + reach + 1 or not dense

    def backward(self) -> Axis:
        """The axis of dx as a convolution of dy: dy is dilated by the stride, and the taps are in reverse order."""
        size = self.stride * (self.out - 1) + 1
        lo = self.extent - 1 - self.lo
        return Axis(size, self.kernel, 1, self.dilation, lo, self.size + self.extent - 1 - size - lo)

    def phases(self, input_dilation: int) -> Iterator[tuple[slice, slice, Axis | None]]:
        """The convolutions that skip the zeros of a dilated input: only every `input_dilation`-th place is an input.

        Outputs `phase`, `phase + apart`, ... all meet the same taps, every `step`-th one, at inputs and not at zeros.
        Yields those outputs, those taps and the axis, or None for the axis where no tap meets an input.
        """
        apart, step = (
            input_dilation // math.gcd(self.stride, input_dilation),
            input_dilation // math.gcd(self.dilation, input_dilation),
        )
        size = -(-self.size // input_dilation)
        for phase in range(min(apart, self.out)):
            count = -(-(self.out - phase) // apart)
            outputs = slice(phase, phase + apart * (count - 1) + 1, apart)
            first = self.stride * phase - self.lo  # where tap 0 of the first window is
            met = (t for t in range(min(step, self.kernel)) if not (first + self.dilation * t) % input_dilation)
            tap = next(met, None)
            if tap is None:
                yield outputs, slice(0, 0), None
                continue
            taps = -(-(self.kernel - tap) // step)
            lo = -(first + self.dilation * tap) // input_dilation
            axis = Axis(
                size,
                taps,
                self.stride * apart // input_dilation,
                self.dilation * step // input_dilation,
                lo,
                0,
                self.period,
            )
            hi = axis.stride * (count - 1) + axis.extent - axis.padded
            yield outputs, slice(tap, tap + step * (taps - 1) + 1, step), axis._replace(hi=hi)


class Phase(NamedTuple):
    """A phase of the input's gradient: a forward convolution of the output's gradient."""

    inputs: tuple[slice, ...]  # those that it computes
    taps: tuple[slice, ...]  # those that meet these inputs, in the order of the weight; they are to be reversed
    geometry: Geometry | None  # None where no tap meets them


class Counts(NamedTuple):
    """The fields of a geometry."""

    samples: int
    groups: int
    outputs: int
    inputs: int
    axes: tuple[Axis, ...]


class Geometry(Counts):
    """A whole convolution in integers: samples n, groups g, and in each group outputs o and inputs c."""

    def of_samples(self, samples: int) -> Geometry:
        """The same convolution of so many samples."""
        return Geometry(samples, *self[1:])

    def over(self, axes: Iterable[Axis]) -> Geometry:
        """The same samples and channels over other axes."""
        return Geometry(*self.counts, tuple(axes))

    def gradient_phases(self) -> tuple[Phase, ...]:
        """The input's gradient as convolutions of the output's gradient, with inputs and outputs exchanged."""
        phases = []
        for axes in product(*(axis.backward().phases(axis.stride) for axis in self.axes)):
            inputs, turned, across = zip(*axes, strict=True) if axes else ((), (), ())
            taps = tuple(slice(k - t.stop, k - t.start, t.step) for t, k in zip(turned, self.kernel, strict=True))
            geometry = Geometry(self.samples, self.groups, self.inputs, self.outputs, across)
            phases.append(Phase(inputs, taps, None if None in across else geometry))
        return tuple(phases)

    def __reduce__(self) -> tuple[Any, ...]:
        return Geometry, tuple(self)  # what was made of it is made again elsewhere

    @once
    def derived(self) -> dict[Any, Any]:
        """What was made of this geometry before."""
        return {}

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Samples, groups, outputs and inputs."""
        return self[:4]

    @once
    def size(self) -> tuple[int, ...]:
        return tuple([axis.size for axis in self.axes])

    @once
    def kernel(self) -> tuple[int, ...]:
        return tuple([axis.kernel for axis in self.axes])

    @once
    def padded(self) -> tuple[int, ...]:
        return tuple([lo + size + hi for size, _, _, _, lo, hi, _ in self.axes])

    @once
    def out(self) -> tuple[int, ...]:
        return tuple(  # `Axis.out` of each, in a form that takes a third of the time
            [(lo + size + hi - d * (k - 1) - 1) // stride + 1 for size, k, stride, d, lo, hi, _ in self.axes]
        )

    @once
    def inner(self) -> tuple[slice, ...]:
        """Where the inputs lie in the padded axes of an array (n, c, *padded)."""
        spans = (slice(max(axis.lo, 0), axis.padded - max(axis.hi, 0)) for axis in self.axes)
        return (slice(None), slice(None), *spans)

    @once
    def walk(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Which axes of (n, c, *padded) those of the windows, (n, c, *kernel, *out), go along, and in which steps."""
        spatial = tuple(range(2, 2 + len(self.axes)))
        steps = (1, 1, *(axis.dilation for axis in self.axes), *(axis.stride for axis in self.axes))
        return (0, 1, *spatial, *spatial), steps

    @once
    def columns(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """The shape (g*c, *kernel, n, *out) of the windows as columns, and how they walk through (n, g*c, *padded)."""
        taps, out = slice(2, 2 + len(self.axes)), slice(2 + len(self.axes), None)
        shape = (self.groups * self.inputs, *self.kernel, self.samples, *self.out)
        axes, steps = self.walk
        return shape, (1, *axes[taps], 0, *axes[taps]), (1, *steps[taps], 1, *steps[out])

    @once
    def is_pointwise(self) -> bool:
        """Whether each input is read once, in the order of the outputs."""
        return all(axis.size == axis.out and axis.kernel == axis.stride == 1 and not axis.lo for axis in self.axes)

    @once
    def taps(self) -> int:
        return math.prod(self.kernel)

    @once
    def positions(self) -> int:
        return math.prod(self.out)

    @once
    def x_shape(self) -> tuple[int, ...]:
        return (self.samples, self.groups * self.inputs, *self.size)

    @once
    def w_shape(self) -> tuple[int, ...]:
        return (self.groups * self.outputs, self.inputs, *self.kernel)

    @once
    def y_shape(self) -> tuple[int, ...]:
        return (self.samples, self.groups * self.outputs, *self.out)


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
            f"weight must have {channels // groups} input channels ({channels} in {groups} groups): got {inputs}"
            f"{'' if kernel else NO_SPATIAL_AXES}"
        )
    axes = spatial_axes(size, kernel, stride, padding, dilation)
    return Geometry(samples, groups, outputs // groups, channels // groups, axes)


def spatial_axes(
    size: Sequence[int], kernel: Sequence[int], stride: PerAxis, padding: Padding, dilation: PerAxis
) -> tuple[Axis, ...]:
    """One row per spatial axis, each with at least one output."""
    axes = padded_axes(size, kernel, stride, padding, dilation)
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
    return tuple(map(within, axes))


def padded_axes(
    size: Sequence[int], kernel: Sequence[int], stride: PerAxis, padding: Padding, dilation: PerAxis
) -> list[Axis]:
    """One row per spatial axis, whether or not a window fits."""
    strides = per_axis("stride", stride, len(size), 1)
    dilations = per_axis("dilation", dilation, len(size), 1)
    if 0 in kernel:
        raise ValueError(f"the kernel must have at least one tap on each axis: got kernel size {tuple(kernel)}")
    axes = [Axis(*row, 0, 0) for row in zip(size, kernel, strides, dilations, strict=True)]
    return [axis._replace(lo=lo, hi=hi) for axis, (lo, hi) in zip(axes, _padding(padding, axes), strict=True)]


def integer(name: str, value: object, least: int, most: int | None = None) -> int:
    """An integer that a user gave, or an error that says what is allowed."""
    try:
        number = _index(value)
        if number < least or (most is not None and number > most):
            raise ValueError
    except (TypeError, ValueError) as error:
        allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise _kind(error)(f"{name} must be an integer {allowed}: got {value!r}") from None
    return number


def _kind(error: Exception) -> type[Exception]:
    """TypeError or ValueError: JAX's own errors are made of an array, not of a sentence."""
    return TypeError if isinstance(error, TypeError) else ValueError


def per_axis(name: str, value: object, ndim: int | None, least: int) -> tuple[int, ...]:
    """One integer for all spatial axes, or one for each; with `ndim` None a sequence says how many there are."""
    try:
        values = tuple(map(_index, _entries(value, ndim)))
        if ndim not in (None, len(values)) or any(number < least for number in values):
            raise ValueError
    except (TypeError, ValueError) as error:
        one = "" if ndim is None else f"an integer of at least {least}, or "
        several = f"a sequence of {'integers of at least ' + str(least) if ndim is None else ndim}"
        raise _kind(error)(f"{name} must be {one}{several}, one per spatial axis: got {value!r}") from None
    return values


def check_shape(name: str, shape: Sequence[int], expected: Sequence[int]) -> None:
    if tuple(shape) != tuple(expected):
        raise ValueError(f"{name} must have shape {tuple(expected)}: got {tuple(shape)}")


def check_elements(shape: Sequence[int], item_bytes: int, params: str) -> None:
    """Refuse an array that no memory could hold, before a library does so in its own words."""
    if math.prod(shape) * item_bytes >= 2**63:
        raise ValueError(f"{params} must lead to an array of less than 2**63 bytes: got one of shape {tuple(shape)}")


def _index(value: Any) -> int:
    if type(value).__name__ == "bool":  # NumPy's, too, which its older releases take for an index
        raise TypeError
    return operator.index(value)


def _entries(value: Any, ndim: int | None) -> Iterable[Any]:
    """The elements of a sequence or of an array of one axis; any other value `ndim` times."""
    if is_listing(value):
        return cast(Iterable[Any], value)
    if ndim is None:
        raise TypeError
    return (value,) * ndim


def is_listing(value: Any) -> bool:
    return (isinstance(value, Sequence) and not isinstance(value, str | bytes)) or getattr(value, "ndim", 0) == 1


def within(axis: Axis) -> Axis:
    """The same windows, without a stride or dilation beyond the padded input, which would only inflate the counts."""
    dilation = axis.dilation if axis.kernel > 1 else 1
    return axis._replace(stride=min(axis.stride, axis.padded - axis.extent + 1), dilation=dilation)


def _reaching(count: int, step: int, reach: int, axis: Axis) -> range:
    """Of windows `step` apart, each with places as far as `reach`, those from the first to the last at inputs."""
    first = min(max(-(-(axis.lo - reach) // step), 0), count)
    return range(first, max(min((axis.lo + axis.size - 1) // step + 1, count), first))


def _same(axis: Axis) -> tuple[int, int]:
    """The padding for `ceil(size / stride)` outputs; an odd zero goes to the end."""
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
    "full": lambda axis: (axis.extent - 1, axis.extent - 1),
    "causal": lambda axis: (axis.extent - 1, 0),
}


def _padding(padding: Padding, axes: Sequence[Axis]) -> list[tuple[int, int]]:
    if isinstance(padding, str) and padding in _NAMED_PADDINGS:
        return [_NAMED_PADDINGS[padding](axis) for axis in axes]
    try:
        if isinstance(padding, str):
            raise ValueError
        pairs_array = getattr(padding, "ndim", 0) == 2
        entries = cast(Any, padding) if pairs_array else _entries(padding, len(axes))
        pairs = [tuple(map(_index, _entries(entry, 2))) for entry in entries]
        if len(pairs) != len(axes) or any(len(pair) != 2 for pair in pairs):
            raise ValueError
    except (TypeError, ValueError) as error:
        names = ", ".join(map(repr, _NAMED_PADDINGS))
        hint = did_you_mean(padding, _NAMED_PADDINGS) if isinstance(padding, str) else ""
        raise _kind(error)(
            f"padding must be {names}, an integer, or {len(axes)} integers or (lo, hi) pairs, "
            f"one per spatial axis: got {padding!r}{hint}"
        ) from None
    return [(lo, hi) for lo, hi in pairs]
