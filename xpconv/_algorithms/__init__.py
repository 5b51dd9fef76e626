"""Floor 3: one file for each algorithm, the contractions once for all, and the choice between algorithms."""

from __future__ import annotations

from .._geometry import Geometry
from . import _lowering
from ._contractions import Basis, forward, input_grad, weight_grad

__all__ = ["Basis", "choose", "forward", "input_grad", "weight_grad"]


def choose(geometry: Geometry) -> Basis:  # noqa: ARG001
    """The algorithm for a geometry: lowering serves them all."""
    return _lowering
