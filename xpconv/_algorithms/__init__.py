"""Floor 3: one file for each algorithm, the contractions once for all, and the choice between algorithms."""

from __future__ import annotations

from .._geometry import Geometry
from .._namespace import block_bytes, can_look, has_fft, is_floating, item_bytes
from .._options import Options
from .._typing import ArrayT, Namespace
from . import _contractions as contractions
from ._choose import Choice, Wanted, choose
from ._choose import ways as all_ways
from ._contractions import Kept
from ._plan import Plan

__all__ = ["Choice", "Kept", "chosen", "forward", "input_grad", "ways", "weight_grad"]


def forward(
    x: ArrayT,
    w: ArrayT,
    bias: ArrayT | None,
    geometry: Geometry,
    options: Options,
    kept: Kept | None = None,
    *,
    xp: Namespace,
) -> ArrayT:
    """The slot y of T, and the bias."""
    how = chosen(x, geometry, "y", options, xp=xp).how
    assert isinstance(how, Plan)
    return contractions.forward(x, w, bias, geometry, how, options.threads, kept, xp=xp)


def input_grad(
    dy: ArrayT, w: ArrayT, geometry: Geometry, options: Options, kept: Kept | None = None, *, xp: Namespace
) -> ArrayT:
    """The slot x of T."""
    how = chosen(dy, geometry, "x", options, xp=xp).how
    if isinstance(how, Plan):
        return contractions.input_grad(dy, w, geometry, how, options.threads, kept, xp=xp)
    return contractions.input_grad_by_phases(dy, w, geometry, how, options.threads, kept, xp=xp)


def weight_grad(dy: ArrayT, x: ArrayT, geometry: Geometry, options: Options, *, xp: Namespace) -> ArrayT:
    """The slot w of T."""
    how = chosen(dy, geometry, "w", options, xp=xp).how
    assert isinstance(how, Plan)
    return contractions.weight_grad(dy, x, geometry, how, options.threads, xp=xp)


def chosen(operand: ArrayT, geometry: Geometry, slot: str, options: Options, *, xp: Namespace) -> Choice:
    """How a slot is filled, for arrays like the operand."""
    return choose(geometry, slot, _wanted(operand, options, xp=xp))


def ways(operand: ArrayT, geometry: Geometry, slot: str, options: Options, *, xp: Namespace) -> list[Choice]:
    """All ways that there are, the chosen one first."""
    return all_ways(geometry, slot, _wanted(operand, options, xp=xp))


def _wanted(operand: ArrayT, options: Options, *, xp: Namespace) -> Wanted:
    return Wanted(
        item_bytes(operand),
        is_floating(operand, xp=xp),
        can_look(operand),
        has_fft(xp),
        options.workspace,
        block_bytes(operand, options.workspace),
        options.method,
        options.precision,
    )
