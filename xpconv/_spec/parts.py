"""A convolution cut into parts, each of which is a convolution itself: integers only.

T is the sum of its parts over groups, channels, samples and positions. Whichever slot is left open, a part of its array
is computed from those parts of the other two arrays that meet it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .geometry import Axis, Geometry
from .memory import once, remember

__all__ = [
    "GROUPS",
    "INPUTS",
    "OUTPUTS",
    "POSITIONS",
    "SAMPLES",
    "Budget",
    "Part",
    "Parts",
    "channels",
    "cut",
    "largest",
]

Span = tuple[int, int]

GROUPS, OUTPUTS, INPUTS, SAMPLES, POSITIONS = range(5)  # what can be cut; each further axis has the next number


MOST_ALIKE = 32  # geometries of parts that are remembered


class Part(NamedTuple):
    """A part of a convolution: its own geometry, and where it lies in the whole."""

    geometry: Geometry
    groups: slice
    outputs: slice  # within each group, as `inputs`; fewer than all only in a part of one group
    inputs: slice
    x: tuple[slice, ...]
    w: tuple[Any, ...]
    y: tuple[slice, ...]


@dataclass(frozen=True)
class Parts:
    """The parts of a convolution, made when they are asked for: there may be millions."""

    geometry: Geometry
    lengths: tuple[int, ...]  # groups, outputs, inputs, samples, *positions
    by_input: bool  # whether the positions that are cut are those of the input, not of the output
    reduced: int  # which of them goes through what is summed (reduction): the outermost

    @once
    def counts(self) -> tuple[int, ...]:
        totals = _totals(self.geometry, self.by_input)
        counts = [-(-length // step) for length, step in zip(totals, self.lengths, strict=True)]
        return (*(max(count, 1) for count in counts[:SAMPLES]), *counts[SAMPLES:])  # no channels: one empty sum

    @property
    def repetition(self) -> float:
        """How often an output is read on average: parts of the input share windows. 1 where the output is cut."""
        if not self.by_input:
            return 1.0
        part = largest(self.geometry, self.lengths, True)
        across = zip(part.out, self.counts[POSITIONS:], self.geometry.out, strict=True)
        return math.prod(windows * count / max(out, 1) for windows, count, out in across)

    @once
    def order(self) -> tuple[int, ...]:
        """The outermost first; parts of the same weights follow one another."""
        return (self.reduced, *(i for i in range(len(self.lengths)) if i != self.reduced))

    @once
    def count(self) -> int:
        return math.prod(self.counts)

    @once
    def _alike(self) -> dict[Hashable, Geometry]:
        """The geometries of parts: most parts have the same, and with it what is derived from it."""
        return {}

    @once
    def _few(self) -> list[Part]:
        return [self._made(i) for i in range(self.count)]

    def __getitem__(self, index: int) -> Part:
        """A part by its number. A few parts are remembered: making them could take longer than their work."""
        return self._few[index] if self.count <= 64 else self._made(index)

    def _made(self, index: int) -> Part:
        counts = self.counts
        spans: list[Span] = [(0, 0)] * len(counts)
        totals = _totals(self.geometry, self.by_input)
        for i in reversed(self.order):
            index, at = divmod(index, counts[i])
            spans[i] = self.lengths[i] * at, min(self.lengths[i] * (at + 1), totals[i])
        part, alike = _part(self.geometry, self.by_input, *spans), self._alike
        known = alike.get(part.geometry) or remember(alike, part.geometry, part.geometry, MOST_ALIKE)
        return part._replace(geometry=known)


class Budget(NamedTuple):
    """How large a part is, and how large it may be."""

    size: Callable[[Geometry], int]
    limit: int


def cut(
    geometry: Geometry,
    budget: Budget,
    order: Sequence[int],
    lengths: Sequence[int] | None = None,
    units: Sequence[int] = (),
    *,
    by_input: bool = False,
) -> tuple[int, ...]:
    """The lengths of parts whose size is within the limit: the first of `order` is cut first, each as far as needed.

    Positions are cut at multiples of `units`. Where even the smallest part is larger than the limit, parts may be a
    quarter larger than the smallest: cutting further would make many more parts and save little.
    """
    (size, limit), totals = budget, _totals(geometry, by_input)
    lengths = list(lengths or totals)
    if 0 in totals:
        return tuple([max(step, 1) for step in lengths])

    def takes() -> int:
        return size(largest(geometry, lengths, by_input))

    if takes() > limit:
        least = [1, 1, 1, 1, *(units or (1,) * len(geometry.axes))]
        smallest = [min(least[i], step) if i in order else step for i, step in enumerate(lengths)]
        limit = max(limit, size(largest(geometry, smallest, by_input)) * 5 // 4)
        _shorten(lengths, least, [i for i in order if lengths[i] > least[i]], takes, limit, totals)
        for i in order:
            count = -(-totals[i] // lengths[i])
            lengths[i] = min(least[i] * -(-totals[i] // (least[i] * count)), lengths[i])
    return tuple(lengths)


def _shorten(
    lengths: list[int],
    least: Sequence[int],
    order: Sequence[int],
    takes: Callable[[], int],
    limit: int,
    totals: Sequence[int],
) -> None:
    """Shorten the lengths until the limit is kept: `takes` says what they take."""
    given = list(lengths)

    def taken(i: int, units: int) -> int:
        lengths[i] = min(least[i] * units, given[i])
        return takes()

    def fit(i: int) -> bool:
        """Make step i as long as the limit allows, the others unchanged; the shortest, if nothing fits."""
        lo, hi = 1, -(-given[i] // least[i])
        above, below = taken(i, hi), taken(i, lo)
        if above <= limit or below > limit:
            lengths[i] = given[i] if above <= limit else lengths[i]
            return above <= limit
        # `lo` fits, `hi` does not. Bytes grow about evenly, so a few guesses find the boundary; halving always does.
        for guesses in range(hi):
            if hi - lo == 1:
                break
            guess = lo + (limit - below) * (hi - lo) // (above - below) if guesses < 4 else (lo + hi) // 2
            middle = min(max(guess, lo + 1), hi - 1)
            between = taken(i, middle)
            lo, below, hi, above = (middle, between, hi, above) if between <= limit else (lo, below, middle, between)
        lengths[i] = min(least[i] * lo, given[i])
        return True

    done = next((n for n, i in enumerate(order) if fit(i)), len(order) - 1)
    for i in order[:done]:  # these were cut to the shortest before a later one was cut; they may be longer now
        # Several groups with only some of their channels would not be one run of channels.
        if i != GROUPS or (lengths[OUTPUTS], lengths[INPUTS]) == (totals[OUTPUTS], totals[INPUTS]):
            fit(i)


def _totals(geometry: Geometry, by_input: bool) -> tuple[int, ...]:
    positions = geometry.size if by_input else geometry.out
    return (geometry.groups, geometry.outputs, geometry.inputs, geometry.samples, *positions)


def largest(whole: Geometry, lengths: Sequence[int], by_input: bool) -> Geometry:
    """The geometry of a part from the middle: no other part reads more inputs, or is read by more outputs."""
    groups, outputs, inputs, samples, *positions = lengths
    axes = tuple([_middle(axis, step, by_input) for axis, step in zip(whole.axes, positions, strict=True)])
    part = Geometry(samples, groups, outputs, inputs, axes)
    return whole if part == whole else part  # which knows its own sizes already


def _middle(axis: Axis, step: int, by_input: bool) -> Axis:
    if step >= (axis.size if by_input else axis.out):
        return axis
    if by_input:
        windows = min((step + axis.extent - 2) // axis.stride + 1, axis.out)  # that reach into the part; at most all
        lo = axis.extent - 1
        hi = axis.stride * (windows - 1) + axis.extent - lo - step
        return Axis(step, axis.kernel, axis.stride, axis.dilation, lo, hi)
    return Axis(axis.stride * (step - 1) + axis.extent, axis.kernel, axis.stride, axis.dilation, 0, 0)


def _part(whole: Geometry, by_input: bool, groups: Span, outputs: Span, inputs: Span, samples: Span, *at: Span) -> Part:
    cuts = [
        axis.part_of_input(*span) if by_input else axis.part(*span) for axis, span in zip(whole.axes, at, strict=True)
    ]
    others, axes = [other for other, _ in cuts], tuple(axis for _, axis in cuts)
    here = [slice(*span) for span in at]
    rows, columns = (
        channels(slice(*groups), slice(*outputs), whole.outputs),
        channels(slice(*groups), slice(*inputs), whole.inputs),
    )
    return Part(
        Geometry(_length(samples), _length(groups), _length(outputs), _length(inputs), axes),
        slice(*groups),
        slice(*outputs),
        slice(*inputs),
        (slice(*samples), columns, *(here if by_input else others)),
        (rows, slice(*inputs), ...),
        (slice(*samples), rows, *(others if by_input else here)),
    )


def channels(groups: slice, within: slice, length: int) -> slice:
    """The channels `within` each of the groups, which have `length` channels each, as one slice of all channels."""
    return slice(groups.start * length + within.start, (groups.stop - 1) * length + within.stop)


def _length(span: Span) -> int:
    return span[1] - span[0]
