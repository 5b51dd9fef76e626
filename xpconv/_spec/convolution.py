"""Floor 0, integers only: the trilinear form that a call asks for, around the geometry of its contractions.

    T(dy, x, w) = sum over n, g, o, c, j, t of  dy[n, g, o, j] * x[n, g, c, i] * w[g, o, c, t]

where `i` is what the padding makes of `stride*j + dilation*t - lo`: nothing, or for other modes than zeros an input
again; and where the input is dilated, nothing unless that is a multiple. Both are taken apart here into convolutions
that are padded with zeros or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise, product
from typing import Any, NamedTuple

from .geometry import Axis, Geometry, PerAxis, integer, is_listing, padded_axes, parse, per_axis, within
from .parameters import Parameters

__all__ = ["Form", "Region", "Run"]

# What stands at place i of an axis of so many, by padding mode: beyond the ends, an input.
_MODES: dict[str, Callable[[int, int], int]] = {
    "reflect": lambda i, size: abs((i + size - 1) % (2 * size - 2) - size + 1) if size > 1 else 0,
    "replicate": lambda i, size: min(max(i, 0), size - 1),
    "circular": lambda i, size: i % size,
}


class Run(NamedTuple):
    """Neighbours on the padded axis that are neighbours in the input: forwards, backwards, or one again and again."""

    places: slice  # on the padded axis
    inputs: slice
    step: int  # 1, -1 or 0


class Region(NamedTuple):
    """A piece of the border: what is summed there belongs to inputs again."""

    form: Form  # the input's gradient there, as if it were an input
    outputs: tuple[slice, ...]  # those that read it
    runs: tuple[Run | None, ...]  # None along axes that it extends over


@dataclass(frozen=True)
class Form:
    geometry: Geometry  # with zeros all around, and between the inputs where these are dilated
    spread: tuple[int, ...]  # the dilation of the input
    modes: tuple[str, ...]  # "zeros" where nothing is added

    def __hash__(self) -> int:
        return hash(self.geometry)

    @classmethod
    def of(cls, x_shape: Sequence[Any], w_shape: Sequence[Any], parameters: Parameters) -> Form:
        """The form of shapes (batch, channels, *spatial) and (out, in/groups, *kernel), as `parse` takes them."""
        stride, padding, dilation, groups, mode, input_dilation, *_ = parameters
        spread = per_axis("input_dilation", input_dilation, len(w_shape) - 2, 1)
        size = map(_dilated, x_shape[2:], spread)
        geometry = parse((*x_shape[:2], *size), w_shape, stride, padding, dilation, groups)
        return _with_border(geometry, spread, mode)

    @classmethod
    def of_transposed(
        cls,
        y_shape: Sequence[Any],
        w_shape: Sequence[Any],
        parameters: Parameters,
        output_padding: PerAxis = 0,
        output_size: PerAxis | None = None,
    ) -> Form:
        """The form whose outputs the transposed convolution takes as its input."""
        samples, channels, *out = y_shape
        outputs, inputs, *kernel = w_shape
        groups = integer("groups", parameters.groups, 1)
        channels = outputs if channels is None else channels
        if channels % groups:
            raise ValueError(f"groups must divide the input channels: got groups={groups}, {channels} channels")
        if channels != outputs:
            raise ValueError(
                f"weight must have {channels} channels on axis 0, as many as there are inputs: got {outputs}"
            )
        spread = per_axis("input_dilation", parameters.input_dilation, len(kernel), 1)
        axes = _transposed_axes(out, kernel, parameters, spread, output_padding, output_size)
        geometry = Geometry(samples, groups, outputs // groups, inputs, axes)
        return _with_border(geometry, spread, parameters.padding_mode)

    @cached_property
    def undilated(self) -> bool:
        return set(self.spread) <= {1}

    @cached_property
    def x_shape(self) -> tuple[int, ...]:
        size = (-(-size // spread) for size, spread in zip(self.geometry.size, self.spread, strict=True))
        return (*self.geometry.x_shape[:2], *size)

    def shape(self, slot: str) -> tuple[int, ...]:
        """Of what fills the slot "y", "x" or "w"."""
        return {"y": self.geometry.y_shape, "x": self.x_shape, "w": self.geometry.w_shape}[slot]

    def terms(self, slot: str) -> int:
        """At most so many products are added up to one number of the slot "y", "x" or "w"."""
        geometry = self.geometry
        if slot == "w":
            return geometry.samples * geometry.positions
        if slot == "y":
            return geometry.inputs * geometry.taps
        # With a border, an input stands at several places of an axis: its own and at most all of the border's.
        bordered = (axis for axis, mode in zip(geometry.axes, self.modes, strict=True) if mode != "zeros")
        places = math.prod(max(axis.lo, 0) + max(axis.hi, 0) + 1 for axis in bordered)
        return geometry.outputs * geometry.taps * places

    @cached_property
    def without_border(self) -> Form:
        return replace(self, modes=("zeros",) * len(self.modes))

    @cached_property
    def bordered(self) -> Geometry:
        """Over an input that already has its border, where that is no zeros."""
        axes = (
            axis if mode == "zeros" else axis._replace(size=axis.padded, lo=0, hi=0)
            for axis, mode in zip(self.geometry.axes, self.modes, strict=True)
        )
        return self.geometry.over(axes)

    @cached_property
    def border(self) -> tuple[tuple[Run, ...] | None, ...] | None:
        """What the padded axes are made of; None along those that are padded with zeros, or where all are."""
        runs = tuple(
            None if mode == "zeros" else tuple(_runs(axis, _MODES[mode]))
            for axis, mode in zip(self.geometry.axes, self.modes, strict=True)
        )
        return runs if any(runs) else None

    @cached_property
    def phases(self) -> list[tuple[tuple[slice, ...], tuple[slice, ...], Geometry | None]]:
        """Outputs, their taps, and what they are of an input without zeros in between; None where they meet nothing."""
        by_axis = (axis.phases(spread) for axis, spread in zip(self.bordered.axes, self.spread, strict=True))
        phases = []
        for axes in product(*by_axis):
            outputs, taps, across = zip(*axes, strict=True) if axes else ((), (), ())
            phases.append((outputs, taps, None if None in across else self.geometry.over(across)))
        return phases

    @cached_property
    def regions(self) -> list[Region]:
        """The border in pieces, each one run along each axis with a border."""
        regions: list[Region] = []
        if self.border is None:
            return regions
        for runs in product(*((None,) if runs is None else runs for runs in self.border)):
            if all(run is None or _is_inner(run, axis) for run, axis in zip(runs, self.geometry.axes, strict=True)):
                continue  # no border
            reads = [
                (slice(0, axis.out), axis) if run is None else axis.part_of_input(run.places.start, run.places.stop)
                for run, axis in zip(runs, self.bordered.axes, strict=True)
            ]
            outputs, axes = zip(*reads, strict=True)
            if all(read.start < read.stop for read in outputs):
                form = replace(self.without_border, geometry=self.geometry.over(axes))
                regions.append(Region(form, outputs, runs))
        return regions

    def read(self, i: int, start: int, stop: int) -> tuple[slice, Axis]:
        """What outputs `start` to `stop` read along an axis, with its border, and the axis of that."""
        spread = self.spread[i]
        read, axis = self.bordered.axes[i].part(start, stop)
        if spread == 1:
            return read, axis
        begin, end = -(-read.start // spread), -(-read.stop // spread)
        size = _dilated(end - begin, spread)
        lo = axis.lo + spread * begin - read.start if size else 0
        return slice(begin, end), axis._replace(size=size, lo=lo, hi=axis.padded - size - lo)

    def readers(self, i: int, start: int, stop: int) -> list[tuple[slice, Axis, Run | None]]:
        """What outputs read inputs `start` to `stop` along an axis, and the axis of that.

        With a border once for each run of it that repeats some of them; its inputs count from `start`.
        """
        axis, spread = self.bordered.axes[i], self.spread[i]
        if self.border is None or (runs := self.border[i]) is None:
            return [(*axis.part_of_input(spread * start, spread * (stop - 1) + 1), None)]
        found: list[tuple[slice, Axis, Run | None]] = []
        for places, inputs, step in runs:
            begin, end = max(inputs.start, start), min(inputs.stop, stop)
            skipped = begin - inputs.start if step == 1 else inputs.stop - end
            at = slice(places.start + skipped, places.start + skipped + end - begin) if step else places
            if begin < end:
                found.append((*axis.part_of_input(at.start, at.stop), Run(at, slice(begin - start, end - start), step)))
        return found

    def carried(self, i: int, slot: str, chunks: Sequence[int]) -> tuple[int, ...]:
        """Where chunks of one of x and y lead in the other, which is the slot: to where the middles of windows lie."""
        axis, spread = self.geometry.axes[i], self.spread[i]
        total = (self.x_shape if slot == "x" else self.geometry.y_shape)[i + 2]
        middle, ends = axis.extent // 2 - axis.lo, list(accumulate(chunks))[:-1]
        if slot == "x":
            cuts = [-(-(axis.stride * end + middle) // spread) for end in ends]
        else:
            cuts = [-(-(spread * end - middle) // axis.stride) for end in ends]
        cuts = sorted({0, *(min(max(cut, 0), total) for cut in cuts), total})
        return tuple(stop - start for start, stop in pairwise(cuts)) or (0,)

    def parts(self, slot: str) -> list[Geometry]:
        """The geometries of the contractions that fill a slot "y", "x" or "w"."""
        if slot == "x" and self.regions:
            forms = [self.without_border, *(region.form for region in self.regions)]
            return [part for form in forms for part in form.parts(slot)]
        return [geometry for _, _, geometry in self.phases if geometry is not None]


def _transposed_axes(
    out: Sequence[int],
    kernel: Sequence[int],
    parameters: Parameters,
    spread: Sequence[int],
    output_padding: PerAxis,
    output_size: PerAxis | None,
) -> tuple[Axis, ...]:
    """One row per spatial axis, of an input that has so many outputs: the last of them ends where the padding does."""
    stride, padding, dilation, *_ = parameters
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
    # "same" depends on the size: by default the largest that has so many outputs.
    largest = tuple((m * s - 1) // r + 1 for m, s, r in zip(out, strides, spread, strict=True))
    axes = padded_axes(tuple(map(_dilated, wanted or largest, spread)), kernel, stride, padding, dilation)
    for i, (axis, m, r) in enumerate(zip(axes, out, spread, strict=True)):
        sizes = _sizes(i, axis, m, r, same)
        if wanted is None and extra[i] >= len(sizes):
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
        axes[i] = within(axis._replace(size=_dilated(size, r), hi=end - _dilated(size, r)))
    return tuple(axes)


def _sizes(i: int, axis: Axis, outputs: int, spread: int, same: bool) -> range:
    """The sizes of an input that has so many outputs; up to the dilation, with some that no output sees."""
    least, room = axis.stride * (outputs - 1) + axis.extent - axis.lo - axis.hi, max(axis.stride, axis.dilation)
    if same:
        least, room = axis.stride * (outputs - 1) + 1, axis.stride
    sizes = range(-(-(least - 1) // spread) + 1, (least + room - 2) // spread + 2)
    if not sizes:
        raise ValueError(
            f"input_dilation must leave an output size that makes {outputs} positions: got {spread} on spatial axis {i}"
        )
    return sizes


def _dilated(size: int, spread: int) -> int:
    """How long it is with `spread - 1` zeros from each to the next."""
    return max(spread * (size - 1) + 1, 0)


def _with_border(geometry: Geometry, spread: tuple[int, ...], mode: Any) -> Form:
    """The form with its modes checked; where a border is empty, it is one of zeros."""
    modes = tuple(mode) if is_listing(mode) else (mode,) * len(spread)
    if len(modes) != len(spread) or any(type(one) is not str or one not in ("zeros", *_MODES) for one in modes):
        names = ", ".join(map(repr, ("zeros", *_MODES)))
        kind = ValueError if all(type(one) is str for one in modes) else TypeError
        raise kind(f"padding_mode must be one of {names}, or a sequence of {len(spread)} of them: got {mode!r}")
    said = zip(geometry.axes, modes, strict=True)
    modes = tuple("zeros" if axis.lo <= 0 and axis.hi <= 0 else one for axis, one in said)
    for i, (axis, one, r) in enumerate(zip(geometry.axes, modes, spread, strict=True)):
        if one != "zeros" and r > 1:
            raise ValueError(
                f"padding_mode must be 'zeros' where input_dilation is not 1: got {one!r} on spatial axis {i}"
            )
        if one != "zeros" and not axis.size:
            raise ValueError(
                f"padding_mode must be 'zeros' where there is nothing to repeat: got {one!r} on spatial axis {i}"
            )
    return Form(geometry, spread, modes)


def _runs(axis: Axis, mode: Callable[[int, int], int]) -> Iterator[Run]:
    """All of the padded axis, place by place where it is border."""
    lo, size = axis.lo, axis.size
    start = max(-lo, 0)
    inner = slice(start, max(size + min(axis.hi, 0), start))
    yield from _border(0, [mode(i, size) for i in range(-lo, 0)])
    if inner.start < inner.stop:
        yield Run(slice(lo + inner.start, lo + inner.stop), inner, 1)
    yield from _border(lo + size, [mode(i, size) for i in range(size, size + axis.hi)])


def _border(place: int, inputs: Sequence[int]) -> Iterator[Run]:
    """So many places, in as few runs as they make."""
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


def _is_inner(run: Run, axis: Axis) -> bool:
    return run.step == 1 and run.places.start - axis.lo == run.inputs.start
