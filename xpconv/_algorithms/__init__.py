"""Floor 3: one file for each algorithm, the contractions once for all, and the choice between algorithms."""

from __future__ import annotations

from typing import Any, cast

from .._arrays.namespace import block_bytes, can_look, has_fft, item_bytes, most_parts
from .._arrays.padding import Operand
from .._arrays.typing import ArrayT, Namespace
from .._spec.geometry import Geometry
from .._spec.options import Options
from . import contractions
from .choose import Choice, Wanted, choose
from .choose import ways as all_ways
from .contractions import Kept, nothing_but, per_channel
from .plan import Plan

__all__ = ["Choice", "Kept", "fill", "nothing_but", "per_channel", "ways", "weight_grad"]


def fill(
    slot: str,
    a: ArrayT,
    w: ArrayT,
    bias: ArrayT | None,
    dtype: Any,
    floating: bool,
    geometry: Geometry,
    options: Options,
    kept: Kept | None = None,
    *,
    xp: Namespace,
) -> ArrayT:
    """The slot "y" of T from x and w, or "x" from dy and w, and the bias: a transposed convolution has one, too."""
    how = _chosen(a, w.dtype, floating, geometry, slot, options, xp=xp).how
    contraction: Any = contractions.forward if slot == "y" else contractions.input_grad
    if not isinstance(how, Plan):
        contraction = contractions.input_grad_by_phases
    return cast(ArrayT, contraction(a, w, bias, dtype, geometry, how, options.threads, kept, xp=xp))


def weight_grad(
    dy: ArrayT, x: ArrayT, dtype: Any, floating: bool, geometry: Geometry, options: Options, *, xp: Namespace
) -> ArrayT:
    """The slot "w" of T from dy and x."""
    how = _chosen(dy, x.dtype, floating, geometry, "w", options, xp=xp).how
    assert isinstance(how, Plan)
    return contractions.weight_grad(dy, x, dtype, geometry, how, options.threads, xp=xp)


def ways(
    like: ArrayT, work: Any, floating: bool, geometry: Geometry, slot: str, options: Options, *, xp: Namespace
) -> list[Choice]:
    """How a slot can be filled from arrays like one, working in a dtype; the chosen way first.

    Integers may be worked with in floating point, but only exactly: whether they are is for the caller to say.
    """
    return all_ways(geometry, slot, _wanted(like, work, floating, options, xp=xp))


def _chosen(
    like: ArrayT, work: Any, floating: bool, geometry: Geometry, slot: str, options: Options, *, xp: Namespace
) -> Choice:
    return choose(geometry, slot, _wanted(like, work, floating, options, xp=xp))


def _wanted(like: ArrayT, work: Any, floating: bool, options: Options, *, xp: Namespace) -> Wanted:
    array = like.array if isinstance(like, Operand) else like
    return Wanted(
        item_bytes(work),
        floating,
        can_look(array),
        has_fft(xp),
        options.workspace,
        block_bytes(array, options.workspace),
        most_parts(array),
        options.method,
        options.precision,
    )
