"""Contracts one convolution that is padded with zeros: chooses an algorithm and a plan, and runs it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

from .._arrays.devices import device
from .._arrays.direct import has_kernels
from .._arrays.doors import (
    add,
    bits_of,
    block_bytes,
    can_check_finite,
    convert,
    is_finite,
    item_bytes,
    limbs_of,
    makes_together,
    most_parts,
    multiplies_halves,
    multiplies_in_place,
    on_gpu,
    place_of,
    workspace_bytes,
)
from .._arrays.dtypes import accumulating, widest
from .._arrays.namespace import has_fft, is_complex, is_floating, missing_dtypes
from .._arrays.padding import Operand
from .._arrays.typing import ArrayT, Namespace
from .._spec.geometry import Geometry
from .._spec.memory import once, remember
from .._spec.options import current
from .choose import Choice, Wanted, cheapest, choose, ways
from .contractions import Target, accumulator, forward, input_grad, nothing_but, per_channel, weight_grad
from .integers import LIMIT, SECONDS, cuts, room
from .lowering import Lowering
from .plan import UNLIMITED, Copies, Limits, plan
from .weight import Weight

__all__ = ["Reading", "Task", "check", "contract", "ways_to_do"]


class Reading(NamedTuple):
    """How a task reads its operands."""

    dtypes: tuple[Any, ...] = ()  # of those that it reads part by part: all but the weight
    border: bool = False  # whether the border of one is added as it is read
    conjugated: bool = False  # whether one is conjugated, where numbers are complex
    some_taps: bool = False  # whether it reads only some of the weight's taps
    halves: bool = False  # whether both operands and the result have the same dtype of 16 bits


@dataclass(frozen=True)
class Task:
    """A slot "y", "x" or "w" of T to fill, over a geometry, and the dtype of what fills it."""

    slot: str
    geometry: Geometry
    dtype: Any
    reading: Reading = Reading()  # noqa: RUF009, a tuple does not change
    choices: dict[Any, Choice] = field(default_factory=dict, compare=False)  # by options, dtype and kind of array

    @once
    def is_long(self) -> bool:
        """Whether there are so many products that another way to make them is worth a look."""
        geometry = self.geometry
        return math.prod(geometry.y_shape) * geometry.inputs * geometry.taps >= LIMIT

    @once
    def in_floats(self) -> dict[Any, tuple[Task, list[tuple[Choice, int]]]]:
        """The same task in float64, and the ways to do it with the bits that they have room for."""
        return {}


def contract(task: Task, a: ArrayT, b: Any, bias: ArrayT | None, *, xp: Namespace) -> ArrayT:
    """y from x and a `Weight`, dx from dy and a `Weight`, or dw from dy and x; the first two with a bias, if any."""
    choice = _chosen(task, a, b.array.dtype if isinstance(b, Weight) else b.dtype, xp=xp)
    if task.is_long and not is_floating(task.dtype, xp=xp):
        found = _in_floats(choice, task, a, b, xp=xp)
        if found is not None:
            bias = None if bias is None else convert(per_channel(bias, found.ndim, xp=xp), found.dtype, xp=xp)
            return convert(found if bias is None else add(found, (...,), bias, xp=xp), task.dtype, xp=xp)
    return _filled(choice, task, a, b, bias, xp=xp)


def _filled(choice: Choice, task: Task, a: ArrayT, b: Any, bias: ArrayT | None, *, xp: Namespace) -> ArrayT:
    made: ArrayT
    dtype = task.dtype
    if task.slot == "w":
        made = weight_grad(choice.plan, a, b, xp=xp)
    elif task.slot == "y":
        made = forward(choice.plan, a, b, bias, Target(dtype), xp=xp)
    elif choice.rewritten:
        made = _by_phases(choice, task, a, b, bias, xp=xp)
    else:
        made = input_grad(choice.plan, a, b, bias, Target(dtype), xp=xp)
    return convert(made, dtype, xp=xp)


def _by_phases(
    choice: Choice, task: Task, dy: ArrayT, w: Weight[ArrayT], bias: ArrayT | None, *, xp: Namespace
) -> ArrayT:
    """dx as forward contractions: x is correlated with w, so dx is dy convolved with w, its taps reversed."""
    geometry, dtype, compute = task.geometry, task.dtype, w.array.dtype
    # Zeros around dy, times a weight that is not finite, are NaN. Where reading it would wait for a device or break a
    # trace, nothing is checked: `options` documents what such weights do there.
    checks = choice.pieces and choice.plan.limits.check_finite and is_floating(compute, xp=xp)
    if checks and not is_finite(w.array, xp=xp):
        lowered = plan(geometry, "x", Lowering(), choice.plan.limits._replace(most_parts=UNLIMITED))
        return input_grad(lowered, dy, Weight(w.array), bias, Target(dtype), xp=xp)
    if choice.phases == 1 and choice.pieces:
        return forward(choice.plan, dy, Weight(w.array, w.memory, choice.pieces[0].taps), bias, Target(dtype), xp=xp)
    sums_dtype = dtype
    if compute != dtype and any(accumulator(piece.plan, w, dtype, xp=xp) != dtype for piece in choice.pieces):
        sums_dtype = accumulating(xp, dtype, compute)
    dx: ArrayT
    if choice.complete:
        dx = xp.empty(geometry.x_shape, dtype=sums_dtype, device=device(dy))
    else:  # no tap meets some of the inputs
        dx = nothing_but(bias, geometry.x_shape, w.array, sums_dtype, xp=xp)
    for piece in choice.pieces:
        turned = Weight(w.array, w.memory, piece.taps)
        dx = forward(piece.plan, dy, turned, bias, Target(sums_dtype, dx, piece.inputs), xp=xp)
    return dx


def _in_floats(choice: Choice, task: Task, a: ArrayT, b: Any, *, xp: Namespace) -> ArrayT | None:
    """Integers by exact sums in float64, as int64; None where that is slower or not known to be exact."""
    x, w = arrays = tuple(one.array if isinstance(one, Operand | Weight) else one for one in (a, b))
    if current().method != "auto" or on_gpu(x) or not has_fft(xp) or "float64" in missing_dtypes(x, xp=xp):
        return None
    floats, ways = _ways_in_floats(task, a, xp=xp)
    constants = [one.constants if isinstance(one, Operand) else () for one in (a, b)]
    bits = [bits_of(one, more, xp=xp) for one, more in zip(arrays, constants, strict=True)]
    modulus, workspace = cast(Any, xp).iinfo(task.dtype).bits, current().workspace or workspace_bytes(x)
    best, seconds = None, choice.seconds + SECONDS * choice.products * (not is_floating(w.dtype, xp=xp))
    for way, most in ways:
        cut = cuts(bits[0], bits[1], most)
        # A constant in the border has no limbs.
        if cut is None or any(more and count > 1 for more, count in zip(constants, cut.counts, strict=True)):
            continue
        limbs = sum(math.prod(one.shape) * count for one, count in zip(arrays, cut.counts, strict=True))
        result = math.prod(getattr(task.geometry, f"{task.slot}_shape"))
        if way.bytes + 8 * (limbs + 3 * result) > workspace:  # limbs are whole arrays, and so are their sums
            continue
        taken = len(list(cut.pairs(modulus))) * way.seconds
        if taken < seconds:
            best, seconds = (way, cut), taken
    if best is None:
        return None
    way, cut = best

    def factors(operand: Any, array: ArrayT, limb: int, count: int) -> list[Any]:
        limbs = limbs_of(array, limb, count, floats.dtype, xp=xp)
        if isinstance(operand, Weight):
            return list(map(Weight, limbs))
        return (
            [replace(operand, array=one, dtype=floats.dtype) for one in limbs]
            if isinstance(operand, Operand)
            else limbs
        )

    lefts, rights = map(factors, (a, b), arrays, *cut)
    total: ArrayT | None = None
    for i, j, shift in cut.pairs(modulus):
        made = xp.astype(cast(Any, xp).round(_filled(way, floats, lefts[i], rights[j], None, xp=xp)), xp.int64)
        part = xp.bitwise_left_shift(made, shift)
        total = part if total is None else xp.add(total, part)
    return total


def _ways_in_floats(task: Task, a: ArrayT, *, xp: Namespace) -> tuple[Task, list[tuple[Choice, int]]]:
    """The task in float64, and how it can be done: each way with the bits that both operands may have together."""
    key = place_of(a.array if isinstance(a, Operand) else a), current()
    found = task.in_floats.get(key)
    if found is None:
        floats = replace(task, dtype=widest(xp, task.dtype), choices={})
        wanted = _wanted(floats, a, floats.dtype, xp=xp)
        wanted = wanted._replace(limits=wanted.limits._replace(check_finite=False), may_spread=True)
        ways = [cheapest(task.geometry, task.slot, wanted._replace(method=name)) for name in ("lowering", "fft")]
        found = floats, [(way, room(way, task.slot)) for way in ways if way is not None]
        remember(task.in_floats, key, found, MOST_CHOICES)
    return found


def ways_to_do(task: Task, like: ArrayT, compute_dtype: Any, *, xp: Namespace) -> list[Choice]:
    """All ways to do a task for arrays like `like`, computing in a dtype; the chosen way first."""
    return ways(task.geometry, task.slot, _wanted(task, like, compute_dtype, xp=xp))


def check(task: Task, like: ArrayT, compute_dtype: Any, *, xp: Namespace) -> None:
    """Raise the error of a task that cannot be done, by the method or within the workspace, before any work."""
    _chosen(task, like, compute_dtype, xp=xp)


def _chosen(task: Task, like: ArrayT, compute_dtype: Any, *, xp: Namespace) -> Choice:
    """The cheapest way, remembered for the place where an array lies, or else for all that it depends on."""
    place = place_of(like.array if isinstance(like, Operand) else like)
    wanted = _wanted(task, like, compute_dtype, xp=xp) if place is None else None
    options = current()
    key = wanted or (place, options, compute_dtype)
    found = task.choices.get(key)
    if found is None:
        found = choose(task.geometry, task.slot, wanted or _wanted(task, like, compute_dtype, xp=xp))
        remember(task.choices, key, found, MOST_CHOICES)
    if options.batch_invariant and found.bytes > (options.workspace or found.bytes):
        raise ValueError(
            f"workspace must be at least {found.bytes} for this convolution with batch_invariant: got "
            f"{options.workspace}"
        )
    return found


MOST_CHOICES = 8  # of a task: for so many different options


def _wanted(task: Task, like: ArrayT, compute_dtype: Any, *, xp: Namespace) -> Wanted:
    """Integers may be computed in floating point, but only by sums that are exact: by lowering."""
    array, options = like.array if isinstance(like, Operand) else like, current()
    own, checks = workspace_bytes(array), can_check_finite(array)
    # Sums are cut by the workspace, so results that depend on nothing but their sample have one of their own.
    workspace = own if options.workspace is None or options.batch_invariant else options.workspace
    limits = Limits(
        item_bytes(compute_dtype),
        workspace,
        block_bytes(array, workspace),
        most_parts(array),
        multiplies_in_place(array),
        makes_together(array),
        task.reading.halves and multiplies_halves(array),
        checks and not options.finite,
        _copies(task, compute_dtype, xp=xp),
    )
    return Wanted(
        limits,
        is_floating(task.dtype, xp=xp),
        checks or options.finite,
        has_fft(xp),
        options.method,
        options.precision,
        on_gpu(array),
        has_kernels(array, compute_dtype, task.dtype, *task.reading.dtypes),
    )


def _copies(task: Task, compute_dtype: Any, *, xp: Namespace) -> Copies:
    dtypes, border, conjugated, some_taps, _ = task.reading
    converted = any(dtype != compute_dtype for dtype in dtypes)
    conjugated = conjugated and is_complex(compute_dtype, xp=xp)
    return Copies(2 * border + converted + conjugated, int(some_taps))
