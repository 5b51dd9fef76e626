"""What an algorithm is: three maps into a basis and their adjoints, and what it takes to go there."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from .._arrays.typing import ArrayT, Namespace
from .._spec.geometry import Geometry

__all__ = ["Basis", "Footprint"]


class Footprint(NamedTuple):
    """What a convolution takes in a basis: memory, and the product W @ X."""

    x: int  # the most real numbers in memory while X is computed, or its adjoint
    w: int  # of W: 0 for a view of the weight
    y: int  # the most in memory while Y is computed, or its adjoint
    rows: int  # of W @ X at one group and point, as the next two
    terms: int
    columns: int
    products: int  # multiplications in all
    effort: float = 1.0  # how much more than copying it takes to bring a number into the basis
    w_made: int = 0  # more numbers in memory while W is computed
    waste: float = 1.0  # how much longer a product takes than it might
    padded: int | None = None  # places of the padded input along all axes, if not all are read


class Basis(Protocol):
    """An algorithm: three maps and their adjoints. In the basis arrays are (group, *point, row, column)."""

    def __hash__(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def swapped(self) -> bool:
        """Whether columns lie in memory one after the other, and are better multiplied as rows."""

    @property
    def propagates_nonfinite(self) -> frozenset[str]:
        """The slots "y", "x", "w" in which NaN and infinities reach numbers that they do not reach in a direct sum."""

    def reshapes(self, slot: str, geometry: Geometry) -> bool:
        """Whether the map of that slot and its adjoint are views: no number is moved."""

    def makes_y(self, geometry: Geometry) -> bool:
        """Whether the adjoint of Ey ends in an array of its own, or a product, with y in the order of memory."""

    def footprint(self, geometry: Geometry) -> Footprint: ...

    def unit(self, geometry: Geometry) -> tuple[int, ...]:
        """The multiples at which positions are best cut."""

    def ex(self, x: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT: ...
    def ex_adjoint(self, X: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT: ...
    def ew(self, w: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT: ...
    def ew_adjoint(self, W: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT: ...
    def ey(self, y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT: ...
    def ey_adjoint(self, Y: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT: ...
