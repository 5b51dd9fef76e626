"""Integers, computed in float64 where that is proven to be exact: by BLAS or by Fourier transforms.

Libraries multiply integers one by one, a tenth as fast as they multiply real numbers. T is linear in each slot, so an
integer too large for an exact sum is cut into limbs, digits to a base of 2**bits: T(a, b) is the sum over limbs i and j
of T(a_i, b_j) 2**(bits_a i + bits_b j), where each T is exact.

The bounds, with u = 2**-53, |a| <= A, |b| <= B:

- Products: sums of n of them are exact where n A B <= 2**53.
- Transforms: a stage of radix r <= 8 adds r products to each number, so its relative error in the 2-norm is at most
  sqrt(2 r) (r + 6) u, which is below 24 u for each factor of 2 in the length L. Three transforms, and a sum of n
  products at each frequency, are off by (72 log2(L) + 2 n + 8) u times the sum of the n products of norms. A tile of
  the input has at most L numbers, so the norms are at most A sqrt(L) and B sqrt(taps), or B sqrt(L) for two tiles.
  Where the error is below 1/2, rounding to the next integer makes the result exact.

Source: N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd edition, 2002, section 24.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from .._spec.geometry import Geometry
from .choose import Choice
from .fourier import Fourier
from .plan import Plan

__all__ = ["LIMIT", "SECONDS", "Cuts", "cuts", "room"]

LIMIT = 2**21  # multiplications: with fewer, looking for another way takes longer than it gains
SECONDS = 5e-10  # for a multiplication of integers, in a library's own product
_DIGITS = 53


class Cuts(NamedTuple):
    """How many bits the limbs of both operands have, and how many limbs each operand has."""

    bits: tuple[int, int]
    counts: tuple[int, int]

    def pairs(self, modulus: int) -> Iterator[tuple[int, int, int]]:
        """The limbs i and j to multiply, and by how many bits to shift the result; less than `modulus` bits."""
        for i, j in product(*map(range, self.counts)):
            shift = self.bits[0] * i + self.bits[1] * j
            if shift < modulus:
                yield i, j, shift


def cuts(first: int, second: int, room: int) -> Cuts | None:
    """Limbs for operands of so many bits, so that those of both have `room` bits; None where there is no room."""
    if first + second <= room:
        return Cuts((first, second), (1, 1))
    half = room // 2
    if half < 4:
        return None
    bits = (room - second if second <= half else half, room - first if first <= half else half)
    a, b = min(first, bits[0]), min(second, bits[1])
    return Cuts((a, b), (-(-first // a), -(-second // b)))


def room(choice: Choice, slot: str) -> int:
    """The most bits that numbers of both operands may have together, so that every sum is exact."""
    return min([_room(piece.plan, "y" if choice.rewritten else slot) for piece in choice.pieces], default=2 * _DIGITS)


def _room(plan: Plan, slot: str) -> int:
    whole, basis = plan.parts.geometry, plan.basis
    if not isinstance(basis, Fourier):
        sums = {"y": whole.inputs * whole.taps, "x": whole.outputs * whole.taps, "w": whole.samples * whole.positions}
        return _DIGITS - math.ceil(math.log2(max(sums[slot], 1)))
    length = math.prod(basis.length)
    terms, norms = _norms(whole, slot, length, plan)
    error = (72 * math.log2(length) + 2 * terms + 8) * terms * norms
    return math.floor(_DIGITS - 1 - math.log2(error) - 0.01)


def _norms(whole: Geometry, slot: str, length: int, plan: Plan) -> tuple[int, float]:
    """How many products are added at a frequency and over parts, and the largest product of norms, if A = B = 1."""
    tiles = plan.parts.count * plan.basis.footprint(plan.largest).columns
    if slot == "w":
        return max(tiles, 1), float(length)
    norms = math.sqrt(length * min(whole.taps, length))
    return (whole.inputs if slot == "y" else whole.outputs * max(tiles, 1)), norms  # tiles of dx overlap
