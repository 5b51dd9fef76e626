"""Chooses the algorithm for a convolution, by a model of what each algorithm costs; no arrays here.

The time of a contraction is about a sum of counts (calls, parts, products, numbers), each times a price. The prices,
`COSTS`, are fitted to measurements by `tests/bench/fit.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from .._spec.geometry import Axis, Geometry
from .banded import Banded
from .basis import Basis
from .costs import COSTS
from .flat import Flat
from .fourier import Fourier, circle, shortest
from .lowering import Lowering
from .plan import Limits, Plan, plan
from .winograd import Winograd

__all__ = ["Choice", "Piece", "Wanted", "bases", "choose", "op_counts", "ways"]


class Wanted(NamedTuple):
    """What the choice depends on beside the geometry: the numbers, the library and the options."""

    item_bytes: int
    floating: bool
    check_finite: bool  # NaN can be detected, so algorithms that spread it are allowed
    fourier: bool  # whether the library has Fourier transforms
    workspace: int
    block: int
    most_parts: int
    method: str
    precision: str


class Piece(NamedTuple):
    """A plan; for one phase of the input's gradient also the inputs of the phase, and the taps that meet them."""

    plan: Plan
    inputs: tuple[slice, ...] | None = None
    taps: tuple[slice, ...] | None = None


@dataclass(frozen=True)
class Choice:
    """A way to fill a slot, by one plan or by the plans of its phases, and how many seconds that should take."""

    pieces: tuple[Piece, ...]
    seconds: float
    phases: int = 0  # of an input's gradient as forward contractions; a phase that no tap meets has no plan

    @property
    def plan(self) -> Plan:
        """The only plan, or that of the first phase."""
        return self.pieces[0].plan

    @property
    def rewritten(self) -> bool:
        return self.phases > 0

    @property
    def complete(self) -> bool:
        """Whether every number of the result is made by a plan."""
        return self.phases in (0, len(self.pieces))

    @property
    def name(self) -> str:
        names = ", ".join(dict.fromkeys(str(piece.plan.basis) for piece in self.pieces))
        if not self.rewritten:
            return names
        return (f"{self.phases} phases, " if self.phases > 1 else "") + f"taps turned around, by {names}"


@lru_cache(maxsize=1024)
def choose(geometry: Geometry, slot: str, wanted: Wanted) -> Choice:
    """The cheapest way to fill the slot "y", "x" or "w"."""
    return ways(geometry, slot, wanted)[0]


def ways(geometry: Geometry, slot: str, wanted: Wanted) -> list[Choice]:
    """All ways to fill it, the cheapest first."""
    found = [_planned(geometry, slot, basis, wanted) for basis in bases(geometry, wanted)]
    phases = math.prod(axis.stride for axis in geometry.axes)
    if slot == "x" and phases <= 16:
        found.append(_rewritten(geometry, wanted._replace(most_parts=-(-wanted.most_parts // phases))))
    if not found:
        raise ValueError(
            f'method must be "auto" or "lowering" for this convolution: got {wanted.method!r}, which is for '
            f"{_FOR[wanted.method]}"
        )
    return sorted(found, key=lambda way: way.seconds)


_FOR = {
    "winograd": "real or complex numbers, stride and dilation 1 and 3 or 5 taps (or 1) along each axis; 3 at the "
    "highest precision",
    "banded": "real or complex numbers over at least one axis",
    "fft": "real or complex numbers over at least one axis, in a library that has Fourier transforms",
}


def _planned(geometry: Geometry, slot: str, basis: Basis, wanted: Wanted) -> Choice:
    limits = Limits(wanted.item_bytes, wanted.workspace, wanted.block, wanted.most_parts)
    planned = plan(geometry, slot, basis, limits)
    prices = COSTS[4 if wanted.item_bytes <= 4 else 8][basis.name, slot]
    seconds = sum(price * amount for price, amount in zip(prices, op_counts(planned), strict=True))
    return Choice((Piece(planned),), seconds)


_TURN = 6e-10  # seconds for each number of the weight, to reverse its taps and to exchange inputs and outputs


def _rewritten(geometry: Geometry, wanted: Wanted) -> Choice:
    """The input's gradient as forward contractions, one for each phase of the stride (polyphase decomposition)."""
    pieces, seconds, phases = [], _TURN * math.prod(geometry.w_shape), geometry.turned()
    for phase in phases:
        if phase.geometry is not None:
            choice = choose(phase.geometry, "y", wanted)
            pieces.append(Piece(choice.plan, phase.inputs, phase.taps))
            seconds += choice.seconds
    return Choice(tuple(pieces), seconds, len(phases))


def op_counts(planned: Plan) -> tuple[float, ...]:
    """The counts of a plan, in the order of the prices: calls, parts, products, numbers of X, of Y and of W."""
    parts, basis = planned.parts, planned.basis
    if not parts.count:
        return (1.0, *(0.0,) * 5)
    part = planned.largest
    x, w, y, rows, terms, columns, multiplications, effort = basis.footprint(part)
    # BLAS is slow at few rows, columns or terms.
    products = multiplications * (1 + 12 / max(rows, 1) + 12 / max(columns, 1) + 12 / max(terms, 1))
    count, cuts = parts.count, planned.weight_cuts
    return (1.0, count, count * products, count * x * effort, count * y * effort, cuts * w)


def bases(geometry: Geometry, wanted: Wanted) -> Iterator[Basis]:
    """The algorithms that can compute it, each with several tile sizes."""
    axes = geometry.axes
    method = wanted.method
    nothing = 0 in (geometry.samples, geometry.inputs, geometry.outputs)
    if method in ("auto", "lowering") or nothing:
        yield Lowering()
    if nothing or not axes or not wanted.floating or (method == "auto" and not wanted.check_finite):
        return
    rows = len(axes) > 1 and all(axis.stride == 1 for axis in axes[1:])
    if method in ("auto", "lowering") and wanted.check_finite and rows and geometry.taps > 1:
        yield Flat()
    if method in ("auto", "winograd") and all(map(_is_short, axes)):
        # Each point costs precision: 6 on an axis are the most, and 4 where the highest precision is wanted.
        for points in (4, 6) if wanted.precision == "auto" else (4,):
            tiles = tuple(1 if axis.kernel == 1 else max(points - axis.kernel + 1, 0) for axis in axes)
            if min(tiles) > 0 and max(tiles) > 1:
                yield Winograd(tiles)
    if method in ("auto", "banded"):
        for tile in sorted({min(tile, axes[-1].out) for tile in (4, 8, 14, 28)}):
            yield Banded(tile)
    if method in ("auto", "fft") and wanted.fourier:
        sizes = {tuple(min(_fast(times * axis.extent), _whole(axis)) for axis in axes) for times in (2, 4, 2**40)}
        yield from map(Fourier, sorted(sizes))


def _is_short(axis: Axis) -> bool:
    return axis.stride == axis.dilation == 1 and axis.kernel in (1, 3, 5)


def _whole(axis: Axis) -> int:
    """The length of a transform of all outputs."""
    length = circle(axis)
    return length if length and length == _fast(length) else _fast(shortest(axis))


@lru_cache(maxsize=1024)
def _fast(length: int) -> int:
    """The next length with no prime factor over 5; at least 4, so that half a spectrum is less than the whole."""
    length = max(length, 4)
    odd: list[int] = [3**i * 5**j for i in range(length.bit_length()) for j in range(length.bit_length())]
    return min(factor << max(-(-length // factor) - 1, 0).bit_length() for factor in odd)
