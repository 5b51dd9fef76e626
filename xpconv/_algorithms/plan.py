"""Plans the parts of a contraction, so that it stays within its workspace; no arrays here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from .._spec.geometry import Geometry
from .._spec.memory import once
from .._spec.parts import GROUPS, INPUTS, OUTPUTS, POSITIONS, SAMPLES, Budget, Part, Parts, cut, largest
from .basis import Basis
from .lowering import Lowering

__all__ = ["BUFFERS", "UNLIMITED", "Copies", "Limits", "Plan", "plan"]


UNLIMITED = 2**62
SMALL = 2**20  # bytes of a part; four times as many where it is read without a copy
TINY, LARGE = 2**18, 2**24  # multiplications: those that OpenBLAS makes on one thread; those worth several
BUFFERS = 2**17  # bytes that NumPy and Python take for a part themselves


class Copies(NamedTuple):
    """What exists for a time beside the numbers in the basis."""

    read: int = 0  # copies of what a part reads: with a border, conjugated, or in the dtype to compute in
    weight: int = 0  # copies of a part's weight: in another order


class Limits(NamedTuple):
    """What a plan has to keep to, and of which numbers."""

    item_bytes: int
    workspace: int
    block: int  # bytes of a part
    most_parts: int = UNLIMITED  # about as many, where each takes time to compile, whatever the workspace
    in_place: bool = False  # whether a product can be written to where it belongs
    threaded: bool = True  # whether several parts are made at the same time
    halves: bool = False  # whether operands of 16 bits are multiplied as they are, and summed in 32
    check_finite: bool = True  # whether NaN that an algorithm spreads are found, and computed again
    copies: Copies = Copies()


@dataclass(frozen=True)
class Plan:
    """A basis, and the parts that a slot is filled by; `explain` prints what it says."""

    basis: Basis
    parts: Parts
    largest: Geometry  # of the parts
    overlapping: bool  # whether parts of the result share elements, and are added one after the other
    partial_sums: int  # of the weight's gradient: how many are computed at the same time (split-K)
    part_bytes: int  # at most, for one part
    shared_bytes: int  # for what all parts share
    limits: Limits

    def threads(self, wanted: int) -> int:
        """How many parts are made at a time; 0 where the calling thread makes them one by one.

        It does so where threads share the pieces of each product, and for a tiny part: BLAS uses one thread anyway.
        """
        room = (self.limits.workspace - self.shared_bytes) // max(self.part_bytes, 1)
        weight_grad = self.parts.reduced == GROUPS
        jobs = self.partial_sums * self.weight_cuts if weight_grad else self.parts.count
        if jobs > 1 and not self.overlapping:
            return max(min(wanted, room, jobs), 1)
        return int(not self.is_tiny and self.pieces == 1)

    def bytes(self, wanted: int) -> int:
        """The most bytes that `wanted` threads take."""
        return self.shared_bytes + max(self.threads(wanted), 1) * self.part_bytes

    @once
    def whole(self) -> Part:
        """All of it, as one part."""
        geometry = self.parts.geometry
        return Parts(geometry, (*geometry.counts[1:], geometry.samples, *geometry.out), False, GROUPS)[0]

    @once
    def is_tiny(self) -> bool:
        """Whether it is a part whose product BLAS makes on one thread."""
        return self.parts.count == 1 and not self.overlapping and self._products < TINY

    @once
    def pieces(self) -> int:
        """In how many pieces a product is made: several where parts come one by one, and it is worth the threads."""
        if (self.parts.count > 1 and not self.overlapping) or self._products < LARGE:
            return 1
        return 2 if self._products < 8 * LARGE else 4

    @once
    def in_halves(self) -> bool:
        """Whether y or dw is a product of matrices of 16-bit numbers: it is rounded once, so in one step."""
        sums = self.parts.count if self.parts.reduced == GROUPS else self.parts.counts[self.parts.reduced]
        return self.limits.halves and type(self.basis) is Lowering and self.largest.groups == sums == 1

    @once
    def _products(self) -> int:
        return self.basis.footprint(self.largest).products

    @property
    def fits(self) -> bool:
        """Whether one thread has enough workspace."""
        return self.limits.most_parts < UNLIMITED or self.bytes(1) <= self.limits.workspace

    @property
    def flops(self) -> int:
        return 2 * self.parts.count * self._products

    @once
    def weight_cuts(self) -> int:
        return math.prod(self.parts.counts[:SAMPLES])

    def lowered(self, part: Geometry, slot: str) -> Plan:
        """The plan to compute a part again by lowering, which does not spread NaN and infinities."""
        limits = self.limits._replace(most_parts=UNLIMITED)
        if self.parts.count > 1:  # other parts need the rest of the workspace
            limits = limits._replace(workspace=self.part_bytes, block=min(limits.block, self.part_bytes))
        return plan(part, slot, Lowering(), limits)


# The order in which channels are cut until their weights fit. The last is summed over, one step after the other. The
# weight's gradient is summed over samples and positions instead, in partial sums.
_CHANNELS = {
    "y": (GROUPS, OUTPUTS, INPUTS),
    "x": (GROUPS, INPUTS, OUTPUTS),
    "w": (GROUPS, INPUTS, OUTPUTS),
}


class _Bytes(NamedTuple):
    """How many bytes a part takes, by what they are for."""

    slot: str
    basis: Basis
    limits: Limits
    inputs: int  # of the whole

    def weights(self, part: Geometry) -> int:
        item_bytes, copies = self.limits.item_bytes, self.limits.copies
        weights, taken = self.basis.footprint(part).w, math.prod(part.w_shape)
        if self.slot == "w":  # a sum and what is added to it, even where the weights themselves are a view
            return item_bytes * 2 * max(weights, taken)
        scattered = part.inputs < self.inputs  # in memory, so that they are copied before they are multiplied
        return item_bytes * (weights + taken * max(copies.weight, scattered))

    def columns(self, part: Geometry) -> int:
        footprint = self.basis.footprint(part)
        places = math.prod(part.padded) if footprint.padded is None else footprint.padded
        padded = part.samples * part.groups * part.inputs * places
        return self.limits.item_bytes * (padded + footprint.x + footprint.y)

    def read(self, part: Geometry) -> int:
        """Of what is copied as it is read: x, dy, or both."""
        numbers = (self.slot != "x") * math.prod(part.x_shape) + (self.slot != "y") * math.prod(part.y_shape)
        return self.limits.item_bytes * self.limits.copies.read * numbers


def _most_bytes(geometry: Geometry, sizes: _Bytes) -> int:
    """How many bytes the columns of a part may take."""
    slot, basis, limits, _ = sizes
    whole = sizes.columns(geometry)
    if limits.threaded:
        # Four parts for the threads, or two, or one; a quarter more, as they overlap a little. Small parts cost more in
        # Python than they gain, and none has fewer bytes than the weights, which the product of each part reads anew.
        small = 4 * SMALL if basis.reshapes("x", geometry.of_samples(1)) else SMALL
        least = max(small, limits.item_bytes * math.prod(geometry.w_shape))
        limit = min(limits.block, next((whole * 5 // (4 * n) for n in (4, 2) if whole >= n * least), whole))
    else:
        # A block may be as large as the workspace: what a part takes beside it is left free.
        beside = BUFFERS + 2 * min(sizes.weights(geometry), limits.workspace // 4)
        beside += limits.item_bytes * basis.footprint(geometry).w_made
        room = limits.workspace * 31 // 32 - beside
        limit = min(limits.block, 2 * room // (2 + 2 * limits.copies.read + (slot == "x")))
    return max(limit, whole // limits.most_parts)


def plan(geometry: Geometry, slot: str, basis: Basis, limits: Limits) -> Plan:
    """How to fill the slot: "y", "x" (by the adjoint of Ex) or "w". Parts do not depend on the number of threads."""
    item_bytes, workspace, channels = limits.item_bytes, limits.workspace, _CHANNELS[slot]
    positions = tuple(range(POSITIONS, POSITIONS + len(geometry.axes)))
    sizes, one = _Bytes(slot, basis, limits, geometry.inputs), geometry.of_samples(1)
    limit = _most_bytes(geometry, sizes)
    # Of one sample, Y is a view, and the product is written straight to its place.
    weights = item_bytes * math.prod(geometry.w_shape)
    apart = limits.in_place and basis.reshapes("y", one) and sizes.columns(one) >= max(2**18, weights)

    def parted(by_input: bool) -> Parts:
        room = workspace // 8 if slot == "w" else workspace // 4
        lengths = cut(geometry, Budget(sizes.weights, room), channels, by_input=by_input)
        lengths = (*lengths[:SAMPLES], min(lengths[SAMPLES], 1), *lengths[POSITIONS:]) if apart else lengths
        inner = (SAMPLES, INPUTS, *positions) if by_input else (SAMPLES, *positions, INPUTS)
        units = () if by_input else basis.unit(geometry)
        order, budget = (GROUPS, *inner, OUTPUTS), Budget(sizes.columns, limit)
        lengths = cut(geometry, budget, order, lengths, units, by_input=by_input)
        return Parts(geometry, lengths, by_input, GROUPS if slot == "w" else channels[-1])

    by_input = slot == "x"
    parts = parted(by_input)
    part = largest(geometry, parts.lengths, by_input)
    # Parts of the input have no element in common, but most windows of a long kernel read each part. Then parts of the
    # output are better, although the inputs that they read overlap.
    overlapping = by_input and (parts.repetition > 2 or sizes.columns(part) > limit)
    if overlapping:
        parts = parted(by_input=False)
        part = largest(geometry, parts.lengths, by_input=False)
    terms, cuts = math.prod(parts.counts[SAMPLES:]), math.prod(parts.counts[:SAMPLES])
    sums, own, making = 1, sizes.weights(part), item_bytes * basis.footprint(part).w_made
    if slot == "w":
        sums = min(terms, max(4 // cuts, 1)) if limits.threaded else 1
        # The sums; where they are added, the total and a new total; all but the one that is the result itself.
        arrays = sums + min(sums - 1, 2) - 1
        own, shared = own + making, arrays * item_bytes * math.prod(geometry.w_shape)
    else:
        shared = own + making
        own *= cuts > 1  # then each part has its own, beside the one that is made next
    made = sizes.columns(part) + sizes.read(part) + BUFFERS
    if slot == "x":  # windows are folded axis by axis, with sums of each
        made += sizes.columns(part) // 2
    return Plan(basis, parts, part, overlapping, sums, made + own, shared, limits)
