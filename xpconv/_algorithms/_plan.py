"""Floor 3: which parts a contraction is made of, so that it stays within its workspace. Integers only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

from .._geometry import Geometry
from .._parts import GROUPS, INPUTS, OUTPUTS, POSITIONS, SAMPLES, Parts, cut
from .._typing import ArrayT, Namespace
from ._lowering import Lowering

__all__ = ["Basis", "Phase", "Plan", "plan"]


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
        """The slots "y", "x", "w" in which NaN and infinities reach numbers that a direct sum would not let them."""

    def numbers(self, geometry: Geometry) -> tuple[int, int, int]:
        """How many real numbers exist at most while X and Y are made and unmade, and how many W are: 0 for a view."""

    def product(self, geometry: Geometry) -> tuple[int, int, int, int]:
        """W @ X at one group and point: rows, terms and columns; and how many multiplications in all."""

    def effort(self, geometry: Geometry) -> float:
        """How much more than copying it takes to bring a number into the basis."""

    def unit(self, geometry: Geometry) -> tuple[int, ...]:
        """What multiples positions had best be cut at."""

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
    chains: int  # of the weight's gradient: how many sums are made side by side
    part_bytes: int  # at most beside the operands, for one part
    weight_bytes: int  # for what all parts share
    item_bytes: int
    workspace: int
    block: int

    def threads(self, wanted: int) -> int:
        """As many as there is work and workspace for; none for a single part, which BLAS may have to itself."""
        room = (self.workspace - self.weight_bytes) // max(self.part_bytes, 1)
        jobs = self.chains * self.weight_cuts if self.parts.rounds == GROUPS else self.parts.count
        return max(min(wanted, room, jobs), 1) if jobs > 1 else 0

    def bytes(self, wanted: int) -> int:
        """What so many threads take at most."""
        return self.weight_bytes + max(self.threads(wanted), 1) * self.part_bytes

    @property
    def flops(self) -> int:
        parts = self.parts
        return 2 * parts.count * self.basis.product(parts[0].geometry)[-1] if parts.count else 0

    @property
    def weight_cuts(self) -> int:
        return math.prod(self.parts.counts[:SAMPLES])

    def lowered(self, part: Geometry, slot: str) -> Plan:
        """How to make a part again in the plain way, where NaN and infinities stay where they belong."""
        return plan(part, slot, Lowering(), self.item_bytes, self.workspace, self.block)


class Phase(NamedTuple):
    """A phase of the input's gradient: its inputs, the taps that they meet, and a forward contraction of dy's."""

    inputs: tuple[slice, ...]
    taps: tuple[slice, ...]
    plan: Plan | None  # None where no tap meets these inputs


@lru_cache(maxsize=1024)
def plan(geometry: Geometry, slot: str, basis: Basis, item_bytes: int, workspace: int, block: int) -> Plan:
    """How to fill the slot: "y", "x" (by the adjoint of Ex) or "w"."""
    by_input = slot == "x"
    positions = range(POSITIONS, POSITIONS + len(geometry.axes))

    def weight_bytes(part: Geometry) -> int:
        # The gradient holds a sum and what is added to it, even where the weights themselves are a view.
        return item_bytes * (
            2 * max(basis.numbers(part)[1], math.prod(part.w_shape)) if slot == "w" else basis.numbers(part)[1]
        )

    def part_bytes(part: Geometry) -> int:
        x, _, y = basis.numbers(part)
        padded = part.samples * part.groups * part.inputs * math.prod(part.padded)
        return item_bytes * (padded + x + y)

    # Without regard to the number of threads: results are not to depend on it.
    room = workspace // 8 if slot == "w" else workspace // 4
    summed = {"y": INPUTS, "x": OUTPUTS, "w": GROUPS}[slot]
    kept = {"y": OUTPUTS, "x": INPUTS, "w": INPUTS}[slot]
    last = OUTPUTS if slot == "w" else summed
    steps = cut(geometry, lambda part: weight_bytes(part) <= room, (GROUPS, kept, last), by_input=by_input)
    # A sixteenth of the whole at least: enough parts for some threads, and not too small for BLAS.
    limit = min(block, max(part_bytes(geometry) // 4, min(2**20, block)))
    order = (
        (GROUPS, SAMPLES, INPUTS, *positions, OUTPUTS)
        if slot == "x"
        else (GROUPS, SAMPLES, *positions, INPUTS, OUTPUTS)
    )
    units = (1,) * len(geometry.axes) if by_input else basis.unit(geometry)
    steps = cut(geometry, lambda part: part_bytes(part) <= limit, order, steps, units, by_input=by_input)
    parts = Parts(geometry, steps, by_input, summed)
    largest = parts[0].geometry if parts.count else geometry
    inner, cuts = math.prod(parts.counts[SAMPLES:]), math.prod(parts.counts[:SAMPLES])
    chains = min(inner, max(4 // cuts, 1))
    shared = cuts == 1 and slot != "w"
    own = 0 if shared else weight_bytes(largest)
    common = (
        weight_bytes(largest)
        if shared
        else chains * item_bytes * math.prod(geometry.w_shape)
        if slot == "w" and chains > 1
        else 0
    )
    return Plan(basis, parts, chains, part_bytes(largest) + own, common, item_bytes, workspace, block)
