"""The phases of a dilated input as channels of one convolution, in integers.

Output `count*m + p` of an axis is output m of phase p, and all phases step through the same inputs at the same pace. So
they are one convolution with `count` times as many output channels. Its kernel spans the inputs of all phases, with
zeros where a phase has no tap: far fewer steps, for more products.
"""

from __future__ import annotations

from typing import NamedTuple

from .convolution import Convolution
from .geometry import Axis, Geometry

__all__ = ["Joined", "joined"]

FEWEST = 8  # phases, below which one after the other is as fast
MOST_ZEROS = 16  # times as many places as taps


class Joined(NamedTuple):
    """One convolution for all phases of the spatial axis `along`, which has `out` outputs."""

    geometry: Geometry
    along: int
    phases: int
    out: int
    taps: tuple[tuple[slice, slice], ...]  # by phase: places in the joint kernel, and taps of the kernel


def joined(convolution: Convolution) -> Joined | None:
    """The phases joined, where one axis is dilated, has many of them, and the kernel would not be mostly zeros."""
    dilated = [i for i, row in enumerate(convolution.rows) if row.input_dilation > 1]
    if len(dilated) != 1 or not convolution.steps:
        return None
    (along,) = dilated
    row = convolution.rows[along]
    phases = list(row.bordered.phases(row.input_dilation))
    met = [(taps, axis) for _, taps, axis in phases if axis is not None]
    longest = max(axis.kernel for _, axis in met)
    count, first = len(phases), phases[0][0]
    if count < FEWEST or (first.step or 1) != count:  # fewer outputs than there are phases
        return None
    size, _, stride, dilation, *_ = met[0][1]
    lo = max(axis.lo for _, axis in met)
    places = max(lo - axis.lo + axis.extent for _, axis in met)
    if places > MOST_ZEROS * longest:
        return None
    taps = []
    for _, of_phase, axis in phases:
        begin = 0 if axis is None else lo - axis.lo
        at = slice(0, 0) if axis is None else slice(begin, begin + axis.extent, dilation)
        taps.append((at, of_phase))
    out = row.axis.out
    outputs = -(-out // count)
    hi = stride * (outputs - 1) + places - lo - size
    axes = [other.bordered for other in convolution.rows]
    axes[along] = Axis(size, places, stride, 1, lo, hi)
    samples, groups, per_group, inputs = convolution.counts
    return Joined(Geometry(samples, groups, per_group * count, inputs, tuple(axes)), along, count, out, tuple(taps))
