"""All phases of a dilated input filled at once: by one convolution, whose kernel has zeros between its taps.

A zero times a number that is not finite is NaN. So the result is used only if it is finite, where that can be seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from .._algorithms.contract import Task, contract
from .._algorithms.weight import Weight
from .._arrays.devices import device
from .._arrays.doors import can_check_finite, is_finite, put, quietly
from .._arrays.namespace import is_floating
from .._arrays.padding import Operand
from .._arrays.typing import ArrayT, Namespace
from .._spec.memory import once
from .._spec.options import current
from .._spec.phases import Joined

__all__ = ["Phases", "at_once"]


@dataclass(frozen=True)
class Phases:
    """The phases as one task, and where taps lie in its kernel."""

    joined: Joined
    task: Task
    kernel: int  # taps along the axis

    @once
    def taps(self) -> np.ndarray[Any, Any]:
        """(phases * places,): the tap at each place of the joint kernel; the one after the last where there is none."""
        found = np.full((self.joined.phases, self.joined.geometry.axes[self.joined.along].kernel), self.kernel)
        for row, (places, taps) in zip(found, self.joined.taps, strict=True):
            row[places] = np.arange(self.kernel)[taps]
        return found.reshape(-1)

    @once
    def places(self) -> np.ndarray[Any, Any]:
        """(kernel,): the place of each tap; the one after the last for a tap that meets no input."""
        found = np.full(self.kernel + 1, self.taps.size)
        found[self.taps] = np.arange(self.taps.size)
        return np.where(np.isin(np.arange(self.kernel), self.taps), found[:-1], self.taps.size)


def at_once(phases: Phases, a: ArrayT, b: Any, bias: ArrayT | None, *, xp: Namespace) -> ArrayT | None:
    """What fills the slot; None where the phases have to be filled one by one."""
    w = b.array if isinstance(b, Weight | Operand) else b
    options = current()
    if options.method != "auto" or options.workspace is not None or not (can_check_finite(w) or options.finite):
        return None
    with quietly():
        made = _made(phases, a, b, bias, xp=xp)
    return made if not is_floating(made.dtype, xp=xp) or options.finite or is_finite(made, xp=xp) else None


def _made(phases: Phases, a: ArrayT, b: Any, bias: ArrayT | None, *, xp: Namespace) -> ArrayT:
    task, joined = phases.task, phases.joined
    if task.slot == "w":
        return _kernel(contract(task, _apart(a, joined, xp=xp), b, None, xp=xp), phases, xp=xp)
    weight = Weight(_joint(b.array, phases, xp=xp))
    if task.slot == "x":
        return contract(task, _apart(a, joined, xp=xp), weight, bias, xp=xp)
    if bias is not None:
        bias = xp.reshape(xp.broadcast_to(bias[:, None], (bias.shape[0], joined.phases)), (-1,))
    return _together(contract(task, a, weight, bias, xp=xp), joined, xp=xp)


def _joint(w: ArrayT, phases: Phases, *, xp: Namespace) -> ArrayT:
    """(g*o, c, *kernel) -> (g*o*phases, c, *joint kernel)."""
    axis, count = 2 + phases.joined.along, phases.joined.phases
    w = _taken(xp.moveaxis(w, axis, -1), phases.taps, xp=xp)
    w = xp.reshape(w, (*w.shape[:-1], count, w.shape[-1] // count))
    w = xp.moveaxis(xp.moveaxis(w, -2, 1), -1, axis + 1)  # (g*o, phases, c, *joint kernel)
    return xp.reshape(w, (w.shape[0] * count, *w.shape[2:]))


def _kernel(w: ArrayT, phases: Phases, *, xp: Namespace) -> ArrayT:
    """The adjoint: (g*o*phases, c, *joint kernel) -> (g*o, c, *kernel)."""
    axis, count = 2 + phases.joined.along, phases.joined.phases
    w = xp.reshape(w, (w.shape[0] // count, count, *w.shape[1:]))
    w = xp.moveaxis(xp.moveaxis(w, axis + 1, -1), 1, -2)
    return xp.moveaxis(_taken(xp.reshape(w, (*w.shape[:-2], -1)), phases.places, xp=xp), -1, axis)


def _taken(w: ArrayT, places: np.ndarray[Any, Any], *, xp: Namespace) -> ArrayT:
    """The entries of the last axis at these places, after the last of which there is a zero."""
    zero: ArrayT = xp.zeros((*w.shape[:-1], 1), dtype=w.dtype, device=device(w))
    return xp.take(xp.concat([w, zero], axis=-1), xp.asarray(places, dtype=xp.int64, device=device(w)), axis=-1)


def _together(y: ArrayT, joined: Joined, *, xp: Namespace) -> ArrayT:
    """(n, g*o*phases, *out) -> (n, g*o, *out of all phases)."""
    axis, count = 2 + joined.along, joined.phases
    y = xp.reshape(y, (y.shape[0], -1, count, *y.shape[2:]))
    y = xp.moveaxis(y, 2, axis + 1)
    y = xp.reshape(y, (*y.shape[:axis], -1, *y.shape[axis + 2 :]))
    return y[(*(slice(None),) * axis, slice(0, joined.out), ...)]


def _apart(dy: ArrayT, joined: Joined, *, xp: Namespace) -> ArrayT:
    """The adjoint; outputs that only some phases have are zero for the others."""
    if isinstance(dy, Operand):
        return cast(ArrayT, replace(dy, array=_apart(dy.array, joined, xp=xp)))
    axis, count = 2 + joined.along, joined.phases
    length = -(-joined.out // count)
    if length * count > joined.out:
        longer: ArrayT = xp.zeros(
            (*dy.shape[:axis], length * count, *dy.shape[axis + 1 :]), dtype=dy.dtype, device=device(dy)
        )
        dy = put(longer, (*(slice(None),) * axis, slice(0, joined.out), ...), dy, xp=xp)
    dy = xp.reshape(dy, (*dy.shape[:axis], length, count, *dy.shape[axis + 1 :]))
    dy = xp.moveaxis(dy, axis + 1, 2)
    return xp.reshape(dy, (dy.shape[0], -1, *dy.shape[3:]))
