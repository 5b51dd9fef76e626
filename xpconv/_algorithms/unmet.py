"""Exact zeros where no tap meets an input: a change of basis leaves an error of rounding there."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arrays.doors import constant, scaled
from .._arrays.typing import ArrayT, Namespace
from .._spec.geometry import Axis, Geometry
from .._spec.memory import derived
from .basis import Basis

__all__ = ["exact"]


def exact(slot: str, basis: Basis, made: ArrayT, geometry: Geometry, *, xp: Namespace) -> ArrayT:
    """What fills the slot, with zeros where nothing meets; NaN stays NaN.

    What spreads NaN spreads errors, too; other bases add nothing but zeros there.
    """
    if slot not in basis.propagates_nonfinite:
        return made
    for i in _axes(slot, geometry):
        met = constant(_met, slot, geometry.axes[i], like=made, xp=xp)
        made = scaled(made, xp.reshape(met, (-1, *(1,) * (made.ndim - i - 3))), xp=xp)
    return made


@derived
def _axes(slot: str, geometry: Geometry) -> tuple[int, ...]:
    """The axes along which there may be something that nothing meets."""
    return tuple(i for i, axis in enumerate(geometry.axes) if axis.misses(slot))


def _met(slot: str, axis: Axis) -> np.ndarray[Any, Any]:
    """For each output, tap or input 1 where it meets another, and 0 where none."""
    outputs, taps = (axis.out, axis.stride), (axis.kernel, axis.dilation)
    if slot == "x":
        met = np.zeros(axis.size)
        (few, step), (many, apart) = sorted([outputs, taps])
        for first in range(-axis.lo, step * few - axis.lo, step):
            begin = max(-(first // apart), 0)
            end = min((axis.size - 1 - first) // apart + 1, many)
            if begin < end:
                met[first + apart * begin : first + apart * (end - 1) + 1 : apart] = 1
        return met
    (count, step), (many, apart) = (outputs, taps) if slot == "y" else (taps, outputs)
    places = step * np.arange(count) - axis.lo
    nearest = np.maximum(-(places // apart), 0)
    return np.asarray((nearest < many) & (places + apart * nearest < axis.size), dtype="float64")
