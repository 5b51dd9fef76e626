"""The direct algorithm for NumPy's arrays: code that is compiled where a kind of convolution is first met."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._spec.geometry import Geometry
from .._spec.memory import derived
from . import rows, tiles
from .assembly import vector_bytes
from .jobs import TYPES, readable

__all__ = ["TYPES", "forward", "kind", "waste", "weight_grad", "workspace"]

CODE: dict[str, Any] = {"rows": rows, "tiles": tiles}
FEW = 4  # output channels of a group, for whose y tiles are too flat; for dw they are a vector, and half of it is few


def kind(geometry: Geometry, slot: str, item_bytes: int) -> str | None:
    """Which code there is for such a convolution, "rows" or "tiles"; None if jobs would take much memory."""
    return _kind(slot, item_bytes, geometry)


@derived
def _kind(slot: str, item_bytes: int, geometry: Geometry) -> str | None:
    able = [name for name, code in CODE.items() if code.takes(geometry, item_bytes)]
    many = geometry.outputs >= FEW if slot == "y" else 2 * geometry.outputs * item_bytes > vector_bytes()
    return (able[-1] if many else able[0]) if able else None


def workspace(kind: str, geometry: Geometry, slot: str, item_bytes: int) -> int:
    """As `direct_workspace`."""
    taken: int = CODE[kind].workspace(geometry, slot, item_bytes)
    return taken


def waste(kind: str, geometry: Geometry, slot: str, turned: bool) -> float:
    """As `direct_waste`."""
    return tiles.waste(geometry, slot, turned) if kind == "tiles" else 1.0


def forward(x: Any, w: Any, bias: Any, out: Any, within: tuple[slice, ...] | None, geometry: Geometry) -> None:
    """As `direct_forward`."""
    y = out if within is None else out[(..., *within)]
    if not (y.size and math.prod(geometry.x_shape) and geometry.inputs):
        y[...] = 0 if bias is None else bias.reshape(-1, *(1,) * len(geometry.axes))
        return
    CODE[str(kind(geometry, "y", w.itemsize))].forward(
        readable(x, w.dtype), w, None if bias is None else np.ascontiguousarray(bias), y, geometry
    )


def weight_grad(dy: Any, x: Any, geometry: Geometry, dtype: Any) -> Any:
    """As `direct_weight_grad`."""
    dtype = np.dtype(dtype)
    if not (math.prod(geometry.y_shape) and math.prod(geometry.x_shape) and geometry.inputs):
        return np.zeros(geometry.w_shape, dtype=dtype)
    code = CODE[str(kind(geometry, "w", dtype.itemsize))]
    made: Any = code.weight_grad(readable(dy, dtype), readable(x, dtype), geometry, dtype)
    return made
