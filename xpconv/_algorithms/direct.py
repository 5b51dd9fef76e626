"""The direct algorithm: where a number meets few products, they are added where the operands lie.

It has no basis worth making. A kernel of the library, compiled for the device, reads x through the windows that
lowering would copy; portably it is lowering. It fills y and w, and x as a forward contraction with reversed taps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._arrays.direct import direct_workspace
from .._spec.geometry import Geometry
from .basis import Footprint
from .lowering import Lowering

__all__ = ["Direct"]


@dataclass(frozen=True)
class Direct(Lowering):
    name = "direct"

    def reshapes(self, slot: str, geometry: Geometry) -> bool:  # noqa: ARG002
        return False

    def footprint(self, geometry: Geometry) -> Footprint:
        products = math.prod(geometry.y_shape) * geometry.inputs * geometry.taps
        made = direct_workspace(geometry, "w", 1)  # partial sums of the weight's gradient
        # There is no product of matrices, so none that has few rows.
        return Footprint(0, 0, 0, products, products, products, products, w_made=made, padded=0)
