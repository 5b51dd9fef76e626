"""Plans the parts of a contraction, so that it stays within its workspace; no arrays here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from .._arrays.typing import ArrayT, Namespace
from .._spec.blocks import GROUPS, INPUTS, OUTPUTS, POSITIONS, SAMPLES, Parts, cut, largest
from .._spec.geometry import Geometry
from .lowering import Lowering

__all__ = ["Basis", "Plan", "plan"]


class Basis(Protocol):
    """An algorithm: three maps and their adjoints. In the basis arrays are (group, *point, row, column)."""

    def __hash__(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def swapped(self) -> bool:
        """Whether columns lie in memory one after the other, and are better multiplied as rows."""

    @property
    def spreads(self) -> frozenset[str]:
        """The slots "y", "x", "w" in which NaN and infinities reach numbers that they do not reach in a direct sum."""

    def numbers(self, geometry: Geometry) -> tuple[int, int, int]:
        """The most real numbers that exist while X is made or undone, those of W (0 for a view), and for Y as for X."""

    def product(self, geometry: Geometry) -> tuple[int, int, int, int]:
        """W @ X at one group and point: rows, terms and columns; and how many multiplications in all."""

    def effort(self, geometry: Geometry) -> float:
        """How much more than copying it takes to bring a number into the basis."""

    def unit(self, geometry: Geometry) -> tuple[int, ...]:
        """The multiples at which positions are best cut."""

    def ex(self, x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT: ...
    def ex_adjoint(self, X: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT: ...
    def ew(self, w: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT: ...
    def ew_adjoint(self, W: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT: ...
    def ey(self, y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT: ...
    def ey_adjoint(self, Y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT: ...


@dataclass(frozen=True)
class Plan:
    basis: Basis
    parts: Parts
    largest: Geometry  # of the parts
    overlapping: bool  # whether parts of the result share elements, and are added one after the other
    chains: int  # how many partial sums of the weight's gradient are computed at the same time
    part_bytes: int  # at most, for one part
    shared_bytes: int  # for what all parts share
    item_bytes: int
    workspace: int
    block: int

    def threads(self, wanted: int) -> int:
        """How many threads have work and workspace; 0 where parts come one by one, and BLAS uses its own threads."""
        if self.overlapping:
            return 0
        room = (self.workspace - self.shared_bytes) // max(self.part_bytes, 1)
        weights_are_open = self.parts.rounds == GROUPS  # no sum goes over the outermost loop
        jobs = self.chains * self.weight_cuts if weights_are_open else self.parts.count
        return max(min(wanted, room, jobs), 1) if jobs > 1 else 0

    def bytes(self, wanted: int) -> int:
        """The most bytes that `wanted` threads take."""
        return self.shared_bytes + max(self.threads(wanted), 1) * self.part_bytes

    @property
    def flops(self) -> int:
        return 2 * self.parts.count * self.basis.product(self.largest)[-1]

    @property
    def weight_cuts(self) -> int:
        return math.prod(self.parts.counts[:SAMPLES])

    def lowered(self, part: Geometry, slot: str) -> Plan:
        """The plan to compute a part again by lowering, which does not spread NaN and infinities."""
        return plan(part, slot, Lowering(), self.item_bytes, self.workspace, self.block)


# The order in which channels are cut until their weights fit. The last is summed over, one step after the other. The
# weight's gradient is summed over samples and positions instead, in partial sums.
_CHANNELS = {
    "y": (GROUPS, OUTPUTS, INPUTS),
    "x": (GROUPS, INPUTS, OUTPUTS),
    "w": (GROUPS, INPUTS, OUTPUTS),
}


@lru_cache(maxsize=1024)
def plan(
    geometry: Geometry, slot: str, basis: Basis, item_bytes: int, workspace: int, block: int, most: int = 2**62
) -> Plan:
    """How to fill the slot: "y", "x" (by the adjoint of Ex) or "w". Parts do not depend on the number of threads.

    There are at most about `most` parts, whatever the workspace: in a trace each of them is compiled.
    """
    channels = _CHANNELS[slot]
    positions = tuple(range(POSITIONS, POSITIONS + len(geometry.axes)))

    def weight_bytes(part: Geometry) -> int:
        weights = basis.numbers(part)[1]
        # The gradient holds a sum and what is added to it, even where the weights themselves are a view.
        return item_bytes * (2 * max(weights, math.prod(part.w_shape)) if slot == "w" else weights)

    def part_bytes(part: Geometry) -> int:
        x, _, y = basis.numbers(part)
        padded = part.samples * part.groups * part.inputs * math.prod(part.padded)
        return item_bytes * (padded + x + y)

    # Four parts for the threads, which overlap a little, but none so small that Python takes longer than the part.
    limit = max(min(block, max(part_bytes(geometry) * 5 // 16, 2**20)), part_bytes(geometry) // most)

    def parted(by_input: bool) -> Parts:
        room = workspace // 8 if slot == "w" else workspace // 4
        steps = cut(geometry, weight_bytes, room, channels, by_input=by_input)
        inner = (SAMPLES, INPUTS, *positions) if by_input else (SAMPLES, *positions, INPUTS)
        units = () if by_input else basis.unit(geometry)
        steps = cut(geometry, part_bytes, limit, (GROUPS, *inner, OUTPUTS), steps, units, by_input=by_input)
        return Parts(geometry, steps, by_input, GROUPS if slot == "w" else channels[-1])

    by_input = slot == "x"
    parts = parted(by_input)
    part = largest(geometry, parts.steps, by_input)
    # Parts of the input have no element in common, but most windows of a long kernel read each part. Then parts of the
    # output are better, although the inputs that they read overlap.
    overlapping = by_input and (parts.repetition > 2 or part_bytes(part) > limit)
    if overlapping:
        parts = parted(by_input=False)
        part = largest(geometry, parts.steps, by_input=False)
    links, cuts = math.prod(parts.counts[SAMPLES:]), math.prod(parts.counts[:SAMPLES])
    chains, own, shared = 1, weight_bytes(part), 0
    if slot == "w":
        chains = min(links, max(4 // cuts, 1))
        shared = chains * item_bytes * math.prod(geometry.w_shape) if chains > 1 else 0
    elif cuts == 1:
        own, shared = 0, own
    return Plan(basis, parts, part, overlapping, chains, part_bytes(part) + own, shared, item_bytes, workspace, block)
