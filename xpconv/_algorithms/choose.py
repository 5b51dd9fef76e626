"""Chooses the algorithm for a convolution, by a model of what each algorithm costs; no arrays here.

The time of a contraction is about a sum of counts (parts, products, numbers), each times a price. The prices,
`COSTS`, are fitted to measurements by `nox -s fit`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

from .._arrays.direct import kernels_for
from .._spec.geometry import Axis, Geometry
from .._spec.memory import once
from .banded import Banded
from .basis import Basis
from .costs import COSTS
from .direct import Direct
from .flat import Flat
from .fourier import Fourier, circle, shortest
from .gpu_costs import GPU_COSTS, GPU_TURN
from .lowering import BySample, Lowering
from .plan import UNLIMITED, Limits, Plan, plan
from .split import Split, block
from .winograd import Winograd

__all__ = ["Choice", "Piece", "Wanted", "bases", "cheapest", "choose", "op_counts", "ways"]


class Wanted(NamedTuple):
    """What the choice depends on beside the geometry: the numbers, the library and the options."""

    limits: Limits
    floating: bool = True
    may_spread: bool = True  # NaN can be detected, or the caller says that there are none: so algorithms may spread it
    fourier: bool = True  # whether the library has Fourier transforms
    method: str = "auto"
    precision: str = "auto"
    gpu: bool = False
    kernels: bool = False  # whether there are kernels for the library
    turned: bool = False  # whether taps are reversed, and outputs and inputs exchanged


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

    @once
    def plan(self) -> Plan:
        """The only plan, or that of the first phase."""
        return self.pieces[0].plan

    @property
    def rewritten(self) -> bool:
        """Whether it is made of forward contractions: of none where there are no inputs."""
        return self.phases > 0 or not self.pieces

    @property
    def fits(self) -> bool:
        """Whether the workspace is large enough."""
        return all(piece.plan.fits for piece in self.pieces)

    @property
    def bytes(self) -> int:
        """The most bytes that one thread takes."""
        return max([piece.plan.bytes(1) for piece in self.pieces], default=0)

    @once
    def products(self) -> int:
        """How many multiplications there are."""
        return sum(piece.plan.flops // 2 for piece in self.pieces)

    @once
    def complete(self) -> bool:
        """Whether every number of the result is made by a plan."""
        return self.phases in (0, len(self.pieces))

    @property
    def name(self) -> str:
        names = ", ".join(dict.fromkeys(str(piece.plan.basis) for piece in self.pieces))
        if not self.rewritten:
            return names
        if not self.pieces:
            return "no tap meets an input"
        return (f"{self.phases} phases, " if self.phases > 1 else "") + f"taps turned around, by {names}"


def choose(geometry: Geometry, slot: str, wanted: Wanted) -> Choice:
    """The cheapest way to fill the slot "y", "x" or "w" within the workspace."""
    found = cheapest(geometry, slot, wanted)
    if found is None:
        raise _no_way(geometry, slot, wanted)
    return found


def cheapest(geometry: Geometry, slot: str, wanted: Wanted, limit: float = math.inf) -> Choice | None:
    """The cheapest way, if it takes less than `limit` seconds.

    Planning takes time, so a way is not planned where its bound shows that it cannot be the cheapest.
    """
    best, names = None, _algorithms(geometry, slot, wanted)
    for some in (names[:1], names[1:]):  # lowering first: it is the best of small work
        able = [name for name in some if _part_price(name, geometry, slot, wanted) < limit]
        able_bases = chain.from_iterable(_BASES[name](geometry, slot, wanted) for name in able)
        bounds = [(_lower_bound(geometry, slot, basis, wanted), basis) for basis in able_bases]
        for least, basis in sorted(bounds, key=itemgetter(0)):
            if least >= limit:
                break
            way = _planned(geometry, slot, basis, wanted)
            if way.fits and way.seconds < limit:
                best, limit = way, way.seconds
    rewritten = _rewritten(geometry, wanted, limit) if slot == "x" else None
    return best if rewritten is None or not rewritten.fits else rewritten


def ways(geometry: Geometry, slot: str, wanted: Wanted) -> list[Choice]:
    """All ways to fill it within the workspace, the cheapest first."""
    found = [way for way in _all(geometry, slot, wanted) if way.fits]
    if not found:
        raise _no_way(geometry, slot, wanted)
    return sorted(found, key=lambda way: way.seconds)


def _all(geometry: Geometry, slot: str, wanted: Wanted) -> list[Choice]:
    found = [_planned(geometry, slot, basis, wanted) for basis in bases(geometry, slot, wanted)]
    rewritten = _rewritten(geometry, wanted, math.inf) if slot == "x" else None
    return found if rewritten is None else [*found, rewritten]


def _no_way(geometry: Geometry, slot: str, wanted: Wanted) -> ValueError:
    """The error where no algorithm can do it, or none within the workspace."""
    limits = wanted.limits
    unlimited = wanted._replace(limits=limits._replace(workspace=UNLIMITED))
    if cheapest(geometry, slot, unlimited) is None:
        return ValueError(
            f'method must be "auto" or "lowering" for this convolution: got {wanted.method!r}, which is for '
            f"{_FOR[wanted.method]}"
        )
    least = limits.workspace
    while True:  # with more workspace, parts may be larger
        more = limits._replace(workspace=least, block=limits.block * least // limits.workspace)
        enough = min(way.bytes for way in _all(geometry, slot, wanted._replace(limits=more)))
        if enough <= least:
            break
        least = enough
    method = "" if wanted.method == "auto" else f" by method {wanted.method!r}"
    return ValueError(f"workspace must be at least {least} for this convolution{method}: got {limits.workspace}")


_FOR = {
    "direct": "real or complex numbers in CuPy, and float32 and float64 in NumPy with llvmlite, "
    "where the windows of a row reach over at most 1 MiB; for the input's gradient, strides of 16 together at most",
    "winograd": "real or complex numbers, stride and dilation 1 and 3 or 5 taps (or 1) along each axis; 3 at the "
    "highest precision",
    "banded": "real or complex numbers over at least one axis",
    "fft": "real or complex numbers over at least one axis, in a library that has Fourier transforms",
}


def _part_price(name: str, geometry: Geometry, slot: str, wanted: Wanted) -> float:
    """Seconds that a part takes, whatever its size."""
    return 0.0 if _is_empty(geometry) else _prices(name, slot, wanted)[0]


def _lower_bound(geometry: Geometry, slot: str, basis: Basis, wanted: Wanted) -> float:
    """Seconds if the whole is one part: the least for any plan, as parts add up and no price is negative."""
    unread = slot == "x" and any(max(axis.lo, axis.hi) >= axis.extent for axis in geometry.axes)
    if unread or _is_empty(geometry):
        return 0.0  # parts of the input leave out windows that lie in the padding altogether
    seconds = _seconds(geometry, slot, basis, wanted, _counts(basis, geometry, 1, 1))
    if not isinstance(basis, Fourier):
        return seconds
    # Its tiles lie over all places, but parts may leave out those that a stride skips.
    tiles = math.prod([-(-out // unit) for out, unit in zip(geometry.out, basis.unit(geometry), strict=True)])
    return seconds * min(geometry.samples * tiles / basis.footprint(geometry).columns, 1.0)


def _is_empty(geometry: Geometry) -> bool:
    return 0 in (geometry.samples, *geometry.out, *geometry.size)


def _prices(name: str, slot: str, wanted: Wanted) -> tuple[float, ...]:
    costs = GPU_COSTS if wanted.gpu else COSTS
    return costs[4 if wanted.limits.item_bytes <= 4 else 8][name, slot]


def _seconds(geometry: Geometry, slot: str, basis: Basis, wanted: Wanted, counts: Sequence[float]) -> float:
    prices, kernels = _prices(basis.name, slot, wanted), isinstance(basis, Direct) and not wanted.gpu
    seconds = sum([price * amount for price, amount in zip(prices, counts, strict=True)])
    if kernels:  # they read a weight with reversed taps as it lies
        return seconds * _FREE
    turned = math.prod(geometry.w_shape) if wanted.turned and geometry.taps > 1 else 0
    return seconds + (GPU_TURN if wanted.gpu else _TURN) * turned


def _planned(geometry: Geometry, slot: str, basis: Basis, wanted: Wanted) -> Choice:
    planned = plan(geometry, slot, basis, wanted.limits)
    return Choice((Piece(planned),), _seconds(geometry, slot, basis, wanted, op_counts(planned)))


_FREE = 0.85  # of the time of a CPU's kernels: meanwhile other threads of Python run
_TURN = 9e-10  # seconds for each number of the weight, to reverse its taps and to exchange inputs and outputs


MOST_PHASES = 16


def _rewritten(geometry: Geometry, wanted: Wanted, limit: float) -> Choice | None:
    """The input's gradient as forward contractions, one for each phase of the stride (polyphase decomposition).

    None where it takes `limit` seconds or more.
    """
    count = math.prod([axis.stride for axis in geometry.axes])
    if count > MOST_PHASES:
        return None
    limits = wanted.limits
    copies, most_parts = limits.copies._replace(weight=1), -(-limits.most_parts // count)
    wanted = wanted._replace(limits=limits._replace(copies=copies, most_parts=most_parts), turned=True)
    phases, seconds = geometry.gradient_phases(), 0.0
    chosen: dict[Geometry, Choice] = {}  # equal phases are planned once
    pieces = []
    for phase in phases:
        if phase.geometry is None:
            continue
        found = chosen.get(phase.geometry) or cheapest(phase.geometry, "y", wanted, limit - seconds)
        if found is None and limit == math.inf:  # that needs the least workspace, for an error to say how much
            found = min(_all(phase.geometry, "y", wanted), key=lambda way: way.bytes, default=None)
        if found is None or seconds + found.seconds >= limit:
            return None
        chosen[phase.geometry], seconds = found, seconds + found.seconds
        pieces.append(Piece(found.plan, phase.inputs, phase.taps))
    return Choice(tuple(pieces), seconds, len(phases)) if seconds < limit else None


def op_counts(planned: Plan) -> tuple[float, ...]:
    """The counts of a plan, in the order of the prices: parts, products, numbers of X, of Y and of W."""
    return _counts(planned.basis, planned.largest, planned.parts.count, planned.weight_cuts)


def _counts(basis: Basis, part: Geometry, count: int, cuts: int) -> tuple[float, ...]:
    if not count:
        return (0.0,) * 5
    made = basis.footprint(part)
    # BLAS is slow at few rows, columns or terms.
    products = made.products * made.waste * (1 + sum([12 / max(n, 1) for n in (made.rows, made.columns, made.terms)]))
    return (count, count * products, count * made.x * made.effort, count * made.y * made.effort, cuts * made.w)


def bases(geometry: Geometry, slot: str, wanted: Wanted) -> Iterator[Basis]:
    """The algorithms that can compute it, each with several tile sizes."""
    for name in _algorithms(geometry, slot, wanted):
        yield from _BASES[name](geometry, slot, wanted)


def _algorithms(geometry: Geometry, slot: str, wanted: Wanted) -> list[str]:
    """Their names; the direct one fills the slot "x" as a forward contraction."""
    axes, method = geometry.axes, wanted.method
    nothing = 0 in (geometry.samples, geometry.inputs, geometry.outputs)
    names = ["lowering"] if method in ("auto", "lowering") or nothing else []
    kernels = wanted.kernels and slot != "x" and wanted.floating and not nothing
    if kernels and (method == "direct" or (method == "auto" and _is_worth_compiling(geometry, wanted))):
        names += filter(None, [kernels_for(geometry, slot, wanted.limits.item_bytes, wanted.gpu)])
    if nothing or not axes or not wanted.floating or (method == "auto" and not wanted.may_spread):
        return names
    rows = method in ("auto", "lowering") and wanted.may_spread and not wanted.gpu
    if rows and len(axes) > 1 and geometry.taps > 1:
        names += ["flat"] * all(axis.stride == 1 for axis in axes[1:])
    if method in ("auto", "winograd") and all(map(_is_short, axes)):
        names.append("winograd")
    if method in ("auto", "banded"):
        names.append("banded")
    if method in ("auto", "fft") and wanted.fourier:
        names.append("fft")
    return names


def _is_worth_compiling(geometry: Geometry, wanted: Wanted) -> bool:
    """Whether a kernel may be compiled for it unasked: on a CPU, not for calls that take microseconds."""
    return wanted.gpu or math.prod(geometry.y_shape) * geometry.inputs * geometry.taps >= 2**15


def _lowering(geometry: Geometry, slot: str, wanted: Wanted) -> Iterator[Basis]:
    yield Lowering()
    if slot == "y" and not wanted.may_spread and not wanted.gpu and (taps := block(geometry)):
        yield Split(taps)
    one_product = wanted.limits.halves and geometry.groups == 1  # of 16-bit numbers: see `Plan.in_halves`
    if wanted.gpu and not one_product and (slot != "w" or geometry.is_pointwise):
        yield BySample()


def _winograd(geometry: Geometry, _: str, wanted: Wanted) -> Iterator[Basis]:
    # Each point costs precision: 6 on an axis are the most, and 4 where the highest precision is wanted.
    for points in (4, 6) if wanted.precision == "auto" else (4,):
        tiles = tuple([1 if taps == 1 else max(points - taps + 1, 0) for taps in geometry.kernel])
        if min(tiles) > 0 and max(tiles) > 1:
            yield Winograd(tiles)


def _fourier(geometry: Geometry, *_: Any) -> Iterator[Basis]:
    sizes = [[min(_fast(times * axis.extent), _whole(axis)) for axis in geometry.axes] for times in (2, 4, 2**40)]
    return map(Fourier, sorted(set(map(tuple, sizes))))


def _direct(kernels: str, _: Geometry, slot: str, wanted: Wanted) -> Iterator[Basis]:
    yield Direct(kernels, slot, wanted.limits.item_bytes, wanted.turned)


_BASES: dict[str, Callable[[Geometry, str, Wanted], Iterable[Basis]]] = {
    "lowering": _lowering,
    **{name: partial(_direct, name) for name in ("direct", "rows", "tiles")},
    "flat": lambda *_: (Flat(),),
    "winograd": _winograd,
    "banded": lambda geometry, *_: map(Banded, sorted({min(tile, geometry.out[-1]) for tile in (4, 8, 14, 28)})),
    "fft": _fourier,
}


def _is_short(axis: Axis) -> bool:
    return axis.stride == axis.dilation == 1 and axis.kernel in (1, 3, 5)


def _whole(axis: Axis) -> int:
    """The length of a transform of all outputs."""
    length = circle(axis)
    return length if length and length == _fast(length) else _fast(shortest(axis))


def _fast(length: int) -> int:
    """The next length with no prime factor over 5; at least 4, so that half a spectrum is less than the whole."""
    length = max(length, 4)
    found = _smooth(length.bit_length())
    return found[bisect_left(found, length)]


@lru_cache(maxsize=64)
def _smooth(bits: int) -> list[int]:
    """All numbers with no prime factor over 5 from `2**(bits - 1)` to `2**bits`, in order."""
    odd = [3**i * 5**j for i in range(bits) for j in range(bits)]
    return sorted({one << bits - one.bit_length() for one in odd if one.bit_length() <= bits} | {2**bits})
