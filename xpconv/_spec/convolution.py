"""A convolution as a call asks for it, in integers: its geometry, the border of its input, and the input's dilation.

    T(dy, x, w) = sum over n, g, o, c, j, t of  dy[n, g, o, j] * x[n, g, c, i] * w[g, o, c, t]

where the input `i` is found from the place `stride*j + dilation*t - lo`. On the border there is a zero or, with another
padding mode, an input again or a constant. In a dilated input there is a zero at each place that is no multiple of the
dilation.
`steps` are the convolutions without dilated inputs that it is the sum of, padded with zeros or not at all.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, pairwise, product
from typing import Any, NamedTuple, cast

from .geometry import (
    NO_SPATIAL_AXES,
    Axis,
    Geometry,
    PerAxis,
    integer,
    is_listing,
    padded_axes,
    parse,
    per_axis,
    within,
)
from .memory import once
from .parameters import Parameters

__all__ = ["Convolution", "Row", "Run", "Step", "part_of"]

# Which input stands at place i of an axis of `size` inputs, by padding mode; places before 0 and from `size` on are
# the border.
_MODES: dict[str, Callable[[int, int], int]] = {
    "reflect": lambda i, size: abs((i + size - 1) % (2 * size - 2) - size + 1) if size > 1 else 0,
    "replicate": lambda i, size: min(max(i, 0), size - 1),
    "circular": lambda i, size: i % size,
    "symmetric": lambda i, size: min(i % (2 * size), -(i + 1) % (2 * size)),
}
_NAMES = ("zeros", *_MODES, "constant")


class Run(NamedTuple):
    """Adjacent places of the padded axis: of adjacent inputs, in order or reversed, of one input, or of a constant."""

    places: slice  # on the padded axis
    inputs: slice  # none for a constant
    step: int  # 1, -1 or 0
    value: complex | None = None  # the constant


class Step(NamedTuple):
    """One of the convolutions that a convolution is the sum of; padded with zeros or not at all."""

    geometry: Geometry
    outputs: tuple[slice, ...]  # of y
    taps: tuple[slice, ...]  # of w


class Row(NamedTuple):
    """One spatial axis, as if padded with zeros and with zeros between dilated inputs; and the mode of the border."""

    axis: Axis
    input_dilation: int
    mode: str  # the padding mode; "zeros" also where the padding is empty, or a constant of zero
    value: complex = 0  # the constant that it is padded with

    @property
    def size(self) -> int:
        """How many inputs there are, without the zeros between them."""
        return -(-self.axis.size // self.input_dilation)

    @property
    def runs(self) -> tuple[Run, ...] | None:
        """The runs that make up the padded axis; None where it is padded with zeros."""
        return None if self.mode == "zeros" else _runs(self.axis, self.mode, self.value)

    def with_value(self, change: Callable[[complex], complex]) -> Row:
        """The same row with another constant, if it has one."""
        if self.mode != "constant":
            return self
        value = change(self.value)
        return self._replace(value=value) if value else self._replace(mode="zeros", value=0)

    @property
    def bordered(self) -> Axis:
        """The axis of an input that already has its border, unless the border is of zeros."""
        axis = self.axis
        if self.mode == "zeros":
            return axis
        return axis._replace(size=axis.padded, lo=0, hi=0, period=axis.size if self.mode == "circular" else 0)

    def read(self, start: int, stop: int) -> tuple[slice, Axis]:
        """What outputs `start` to `stop` read of an input with its border, and the axis of that part."""
        dilation = self.input_dilation
        read, axis = self.bordered.part(start, stop)
        if dilation == 1:
            return read, axis
        begin, end = -(-read.start // dilation), -(-read.stop // dilation)
        size = dilated(end - begin, dilation)
        lo = axis.lo + dilation * begin - read.start if size else 0
        return slice(begin, end), axis._replace(size=size, lo=lo, hi=axis.padded - size - lo)

    def readers(self, start: int, stop: int) -> list[tuple[slice, Axis, Run | None]]:
        """The outputs that read inputs `start` to `stop`, and the axis of that part.

        With a border there is an entry for each run that repeats some of these inputs. Its inputs count from `start`.
        """
        axis, dilation, runs = self.bordered, self.input_dilation, self.runs
        if runs is None:
            return [(*axis.part_of_input(dilation * start, dilation * (stop - 1) + 1), None)]
        found: list[tuple[slice, Axis, Run | None]] = []
        for places, inputs, step, _ in runs:
            begin, end = max(inputs.start, start), min(inputs.stop, stop)
            skipped = begin - inputs.start if step == 1 else inputs.stop - end
            at = slice(places.start + skipped, places.start + skipped + end - begin) if step else places
            if begin < end:
                found.append((*axis.part_of_input(at.start, at.stop), Run(at, slice(begin - start, end - start), step)))
        return found

    def chunks(self, slot: str, others: Sequence[int]) -> tuple[int, ...]:
        """Chunk sizes for the slot "x" or "y": each boundary of the other array, mapped to its window's centre."""
        axis, dilation = self.axis, self.input_dilation
        total = self.size if slot == "x" else axis.out
        middle, ends = axis.extent // 2 - axis.lo, list(accumulate(others))[:-1]
        if slot == "x":
            cuts = [-(-(axis.stride * end + middle) // dilation) for end in ends]
        else:
            cuts = [-(-(dilation * end - middle) // axis.stride) for end in ends]
        cuts = sorted({0, *(min(max(cut, 0), total) for cut in cuts), total})
        return tuple(stop - start for start, stop in pairwise(cuts)) or (0,)


@dataclass(frozen=True)
class Convolution:
    """Samples n, groups g, outputs o and inputs c in each group, and a row for each spatial axis."""

    samples: int
    groups: int
    outputs: int
    inputs: int
    rows: tuple[Row, ...]

    def __hash__(self) -> int:
        return hash(self.geometry)

    @classmethod
    def of(cls, x_shape: Sequence[Any], w_shape: Sequence[Any], parameters: Parameters) -> Convolution:
        """From shapes (batch, channels, *spatial) and (out, in/groups, *kernel), as `parse` takes them."""
        dilations = per_axis("input_dilation", parameters.input_dilation, len(w_shape) - 2, 1)
        size = map(dilated, x_shape[2:], dilations)
        geometry = parse((*x_shape[:2], *size), w_shape, *parameters[:4])
        return cls(*geometry.counts, _rows(geometry.axes, dilations, parameters))

    @classmethod
    def of_transposed(
        cls,
        y_shape: Sequence[Any],
        w_shape: Sequence[Any],
        parameters: Parameters,
        output_padding: PerAxis = 0,
        output_size: PerAxis | None = None,
    ) -> Convolution:
        """The convolution whose outputs the transposed convolution takes as its input."""
        samples, channels, *out = y_shape
        outputs, inputs, *kernel = w_shape
        groups = integer("groups", parameters.groups, 1)
        channels = outputs if channels is None else channels
        if channels % groups:
            raise ValueError(f"groups must divide the input channels: got groups={groups}, {channels} channels")
        if channels != outputs:
            raise ValueError(
                f"weight must have {channels} input channels, as many as x: got {outputs}"
                f"{'' if kernel else NO_SPATIAL_AXES}"
            )
        dilations = per_axis("input_dilation", parameters.input_dilation, len(kernel), 1)
        axes = _transposed_axes(out, kernel, parameters, dilations, (output_padding, output_size))
        return cls(samples, groups, outputs // groups, inputs, _rows(axes, dilations, parameters)).linear

    def with_value(self, change: Callable[[complex], complex]) -> Convolution:
        """The same convolution with another constant in its border, if it has one there."""
        rows = tuple(row.with_value(change) for row in self.rows)
        return self if rows == self.rows else replace(self, rows=rows)

    @once
    def linear(self) -> Convolution:
        """The part of it that is linear in the input: a constant border does not change with the input."""
        return self.with_value(lambda _: 0)

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Samples, groups, outputs and inputs."""
        return self.samples, self.groups, self.outputs, self.inputs

    @once
    def geometry(self) -> Geometry:
        """The geometry as if padded with zeros, with zeros between dilated inputs."""
        return self._over(row.axis for row in self.rows)

    @once
    def bordered(self) -> Geometry:
        """The geometry of an input that already has its border, where that is not of zeros."""
        return self._over(row.bordered for row in self.rows)

    def _over(self, axes: Any) -> Geometry:
        return Geometry(*self.counts, tuple(axes))

    @once
    def border(self) -> tuple[tuple[Run, ...] | None, ...] | None:
        """The runs of each padded axis: None for an axis that is padded with zeros, and None alone where all are."""
        runs = tuple(row.runs for row in self.rows)
        return runs if any(runs) else None

    def shape(self, slot: str) -> tuple[int, ...]:
        """The shape of the array in the slot "y", "x" or "w"."""
        return self._shapes[slot]

    @once
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        geometry = self.geometry
        x_shape = (*geometry.x_shape[:2], *(row.size for row in self.rows))
        return {"y": geometry.y_shape, "x": x_shape, "w": geometry.w_shape}

    def terms(self, slot: str) -> int:
        """The most products that are added up to one number of the slot "y", "x" or "w"."""
        if slot == "w":
            return self.samples * self.geometry.positions
        if slot == "y":
            return self.inputs * self.geometry.taps
        # With a border, an input stands at several places of an axis: its own and at most all of the border's.
        bordered = (row.axis for row in self.rows if row.mode != "zeros")
        places = math.prod(max(axis.lo, 0) + max(axis.hi, 0) + 1 for axis in bordered)
        return self.outputs * self.geometry.taps * places

    @once
    def steps(self) -> tuple[Step, ...]:
        """The steps that fill a slot, where an input already has its border; none where no tap meets an input.

        A dilated input gives one step for each phase: the outputs that meet the same taps at inputs, not at the zeros
        in between.
        """
        steps = []
        for axes in product(*(row.bordered.phases(row.input_dilation) for row in self.rows)):
            outputs, taps, across = zip(*axes, strict=True) if axes else ((), (), ())
            if None not in across:
                steps.append(Step(self._over(across), outputs, taps))
        return tuple(steps)


def _transposed_axes(
    out: Sequence[int],
    kernel: Sequence[int],
    parameters: Parameters,
    dilations: Sequence[int],
    output: tuple[PerAxis, PerAxis | None],
) -> tuple[Axis, ...]:
    """The axes of an input that has the outputs `out`: on each, the last window ends where the padding ends."""
    stride, padding, dilation, *_ = parameters
    output_padding, output_size = output
    ndim = len(kernel)
    extra = per_axis("output_padding", output_padding, ndim, 0)
    wanted = None if output_size is None else per_axis("output_size", output_size, ndim, 1)
    same = isinstance(padding, str) and padding.startswith("same")
    if any(extra) and (same or wanted):
        where = f"with padding {padding!r}" if same else "where output_size is given"
        raise ValueError(f"output_padding must be 0 {where}: got {output_padding!r}")
    if 0 in out:
        raise ValueError(f"x must have at least one position on each spatial axis: got {tuple(out)}")
    strides = per_axis("stride", stride, ndim, 1)
    # "same" depends on the size of the input: by default the largest input that has this many outputs.
    largest = tuple((m * s - 1) // r + 1 for m, s, r in zip(out, strides, dilations, strict=True))
    axes = padded_axes(tuple(map(dilated, wanted or largest, dilations)), kernel, stride, padding, dilation)
    for i, (axis, m, r) in enumerate(zip(axes, out, dilations, strict=True)):
        sizes = _sizes(i, axis, m, r, same)
        if wanted is None and extra[i] >= sizes.stop - sizes.start:  # `len` has a limit
            raise ValueError(
                f"output_padding must be less than the stride or the dilation: got {extra[i]} on spatial axis {i}"
            )
        size = wanted[i] if wanted else largest[i] if same else sizes[extra[i]]
        if wanted is None and size < 1:
            raise ValueError(f"padding must leave something of the output: {size} remain on spatial axis {i}")
        if size not in sizes:
            allowed = f"from {max(sizes[0], 1)} to {sizes[-1]}"
            raise ValueError(f"output_size must be {allowed} on spatial axis {i}: got {size}")
        end = axis.stride * (m - 1) + axis.extent - axis.lo
        axes[i] = within(axis._replace(size=dilated(size, r), hi=end - dilated(size, r)))
    return tuple(axes)


def _sizes(i: int, axis: Axis, outputs: int, dilation: int, same: bool) -> range:
    """The sizes that an input with this many outputs may have; its last elements may be read by no output."""
    least, room = axis.stride * (outputs - 1) + axis.extent - axis.lo - axis.hi, max(axis.stride, axis.dilation)
    if same:
        least, room = axis.stride * (outputs - 1) + 1, axis.stride
    sizes = range(-(-(least - 1) // dilation) + 1, (least + room - 2) // dilation + 2)
    if not sizes:
        raise ValueError(
            f"input_dilation must leave an output size that makes {outputs} positions: got {dilation} on spatial axis "
            f"{i}"
        )
    return sizes


def dilated(size: int, dilation: int) -> int:
    """The length of `size` elements with `dilation - 1` zeros between neighbours."""
    return max(dilation * (size - 1) + 1, 0)


def part_of(whole: slice, part: slice) -> slice:
    """A slice of a slice, as one slice; both may have steps."""
    step = whole.step or 1
    first, count = whole.start + step * part.start, part.stop - part.start
    steps = step * (part.step or 1)
    return slice(first, first + step * (count - 1) + 1, steps)


def _rows(axes: Sequence[Axis], dilations: Sequence[int], parameters: Parameters) -> tuple[Row, ...]:
    """The rows with their padding modes checked; an empty border is one of zeros."""
    mode = cast(Any, parameters.padding_mode)
    modes = tuple(mode) if is_listing(mode) else (mode,) * len(dilations)
    if len(modes) != len(dilations) or any(type(one) is not str or one not in _NAMES for one in modes):
        names = ", ".join(map(repr, _NAMES))
        kind = ValueError if all(type(one) is str for one in modes) else TypeError
        raise kind(f"padding_mode must be one of {names}, or a sequence of {len(dilations)} of them: got {mode!r}")
    value = _number(parameters.padding_value)
    if value and "constant" not in modes:
        raise ValueError(f"padding_value must be 0 where padding_mode is not 'constant': got {value!r}, {mode!r}")
    rows = []
    for i, (axis, dilation, one) in enumerate(zip(axes, dilations, modes, strict=True)):
        one = "zeros" if (axis.lo <= 0 and axis.hi <= 0) or (one == "constant" and not value) else one
        if one != "zeros" and dilation > 1:
            raise ValueError(
                f"padding_mode must be 'zeros' where input_dilation is not 1: got {one!r} on spatial axis {i}"
            )
        if one not in ("zeros", "constant") and not axis.size:
            raise ValueError(
                f"padding_mode must be 'zeros' where there is nothing to repeat: got {one!r} on spatial axis {i}"
            )
        rows.append(Row(axis, dilation, one, value if one == "constant" else 0))
    return tuple(rows)


def _number(value: Any) -> complex:
    """A number that a user gave, as one of Python's."""
    if isinstance(value, bool) or not isinstance(value, numbers.Complex):
        raise TypeError(f"padding_value must be a number: got {value!r}")
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else complex(value)


@lru_cache(maxsize=1024, typed=True)
def _runs(axis: Axis, mode: str, value: complex) -> tuple[Run, ...]:
    """The runs of the whole padded axis, in the order of their places."""
    lo, size = axis.lo, axis.size
    start = max(-lo, 0)
    inner = slice(start, max(size + min(axis.hi, 0), start))
    middle = [Run(slice(lo + inner.start, lo + inner.stop), inner, 1)] if inner.start < inner.stop else []
    if mode == "constant":
        sides = [Run(slice(*side), slice(0, 0), 0, value) for side in ((0, lo), (lo + size, axis.padded))]
        return (*sides[: int(lo > 0)], *middle, *sides[1 : 1 + int(axis.hi > 0)])
    at = _MODES[mode]
    before = _border(0, [at(i, size) for i in range(-lo, 0)])
    return (*before, *middle, *_border(lo + size, [at(i, size) for i in range(size, size + axis.hi)]))


def _border(place: int, inputs: Sequence[int]) -> Iterator[Run]:
    """The border from `place` on, where these inputs stand, in as few runs as possible."""
    begin = 0
    while begin < len(inputs):
        end, step = begin + 1, 1
        if end < len(inputs) and inputs[end] - inputs[begin] in (-1, 0):
            step = inputs[end] - inputs[begin]
        while end < len(inputs) and inputs[end] - inputs[end - 1] == step:
            end += 1
        ends = inputs[begin], inputs[end - 1]
        yield Run(slice(place + begin, place + end), slice(min(ends), max(ends) + 1), step)
        begin = end
