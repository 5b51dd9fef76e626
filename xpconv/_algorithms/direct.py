"""The direct algorithm: products are added where the operands lie.

It has no basis worth making. A kernel of the library, compiled for the device, reads x through the windows that
lowering would copy; portably it is lowering. It fills y and w, and x as a forward contraction with reversed taps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._arrays.direct import direct_waste, direct_workspace
from .._spec.geometry import Geometry
from .basis import Footprint
from .lowering import Lowering

__all__ = ["Direct"]


@dataclass(frozen=True)
class Direct(Lowering):
    kernels: str  # as `kernels_for` names them
    slot: str
    item_bytes: int
    turned: bool = False  # whether taps are reversed, and outputs and inputs exchanged

    def __str__(self) -> str:
        return "Direct" if self.kernels == "direct" else f"Direct, by {self.kernels}"

    @property
    def name(self) -> str:
        return self.kernels

    def reshapes(self, slot: str, geometry: Geometry) -> bool:  # noqa: ARG002
        return False

    def footprint(self, geometry: Geometry) -> Footprint:
        products = math.prod(geometry.y_shape) * geometry.inputs * geometry.taps
        made = -(-direct_workspace(self.kernels, geometry, self.slot, self.item_bytes) // self.item_bytes)
        waste = direct_waste(self.kernels, geometry, self.slot, self.turned)
        # There is no product of matrices, so none that has few rows.
        return Footprint(0, 0, 0, products, products, products, products, w_made=made, waste=waste, padded=0)
