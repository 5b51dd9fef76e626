"""A problem on torch's tape. This file imports torch, and is imported when a tensor comes.

If torch recorded the operations inside a contraction, its tape would keep all columns, and vmap would not work. So a
slot is one operation on the tape: T is linear in each operand, and each derivative of a slot, of any order, is another
slot.
"""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import lru_cache
from inspect import signature
from typing import Any

import torch

from .._arrays.doors import is_whole
from .._arrays.dtypes import DTypes
from .._arrays.layout import Layout
from .._arrays.namespace import library
from .._spec.convolution import Convolution, Row
from .._spec.geometry import Axis
from .evaluate import bias_grad, evaluate, only_bias
from .problem import Problem

__all__ = ["Linear", "Slot", "solve"]


class Slot(torch.autograd.Function):  # type: ignore[misc]
    """`evaluate(problem, a, b, bias)`; a and b are the other two of y, x and w, in this order."""

    @staticmethod
    def forward(problem: Problem, a: Any, b: Any, bias: Any) -> Any:
        if not is_whole(a):  # a stand-in for a tensor, while torch compiles
            return _step(_written(problem), a, b, bias)
        if a.is_meta:
            return a.new_empty(problem.shape, dtype=problem.dtype)
        with _exactly(a.device.type):
            return _own(evaluate(problem, a, b, bias, xp=library("a", a)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG004
        ctx.problem, *operands, bias = inputs
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.set_materialize_grads(False)  # no products with zeros
        ctx.save_for_backward(*operands)
        ctx.save_for_forward(*operands)

    @staticmethod
    def backward(ctx: Any, g: Any) -> tuple[Any, ...]:
        if g is None:
            return (None,) * 4
        problem, needs = ctx.problem, ctx.needs_input_grad[1:]
        (a, first), (b, second) = zip(_others(problem.result), ctx.saved_tensors, strict=True)
        da = _solved(problem.with_slot(a), {problem.result: g, b: second}) if needs[0] else None
        db = _solved(problem.with_slot(b), {problem.result: g, a: first}) if needs[1] else None
        dbias = bias_grad(g, problem, xp=library("g", g)) if needs[2] else None
        if dbias is not None and dbias.dtype != ctx.bias_dtype:
            dbias = (dbias if ctx.bias_dtype.is_complex else torch.real(dbias)).to(ctx.bias_dtype)
        return None, da, db, dbias

    @staticmethod
    def jvp(ctx: Any, _problem: None, ta: Any, tb: Any, tbias: Any) -> Any:
        problem, (a, b) = ctx.problem, ctx.saved_tensors
        if ta is None and tb is None:
            layout = problem.layout
            after = len(layout.batch) + layout.ndim - layout.channels
            zeros = only_bias(problem, None, a, xp=library("a", a))
            return zeros + tbias.to(problem.dtype).reshape(-1, *(1,) * after)
        of_a, of_b = (problem.linear if name == "x" else problem for name in _others(problem.result))
        if ta is None or tb is None:
            return solve(of_b, a, tb, tbias) if ta is None else solve(of_a, ta, b, tbias)
        # Rounded once, after the sum.
        wide = torch.promote_types(problem.dtype, problem.dtypes.compute)
        ty = solve(of_a.with_dtype(wide), ta, b, tbias) + solve(of_b.with_dtype(wide), a, tb, None)
        return ty.to(problem.dtype)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], problem: Problem, *operands: Any) -> tuple[Any, int]:
        """The mapped axis joins the samples or, where there are as many weights or biases, the groups."""
        (at_a, at_b, at_bias), (a, b, bias), times = in_dims[1:], operands, info.batch_size
        if problem.result != "w" and at_b is None and at_bias is None:
            return solve(problem.mapped("samples", times), a.movedim(at_a, 0), b, bias), 0
        channels = {"y": problem.layout.channels, "x": problem.layout.channels, "w": 0}

        def joined(one: Any, at: int | None, axis: int) -> Any:
            """(..., channels, ...) -> (..., times * channels, ...)."""
            one = one.expand(times, *one.shape) if at is None else one.movedim(at, 0)
            return one.movedim(0, axis).flatten(axis, axis + 1)

        first, second = _others(problem.result)
        a, b = joined(a, at_a, channels[first]), joined(b, at_b, channels[second])
        bias = None if bias is None else joined(bias, at_bias, 0)
        out, axis = solve(problem.mapped("groups", times), a, b, bias), channels[problem.result]
        return out.unflatten(axis, (times, out.shape[axis] // times)), axis


Slot.forward.__signature__ = signature(Slot.forward)  # type: ignore[attr-defined]  # torch asks for it in each call, and it takes long to make


def solve(problem: Problem, a: Any, b: Any, bias: Any) -> Any:
    """The problem on torch's tape."""
    return Slot.apply(problem, a, b, bias)


class Linear(torch.autograd.Function):  # type: ignore[misc]
    """`work(x)`, the linear map `there` and perhaps a constant; all take one more axis in front, and keep it.

    The adjoint of `there` is `back`.
    """

    @staticmethod
    def forward(work: Callable[[Any], Any], there: Any, back: Any, x: Any) -> Any:  # noqa: ARG004
        return _own(work(x.detach()))  # without it `asarray` would copy that x requires a gradient

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG004
        _, ctx.there, ctx.back, _ = inputs

    @staticmethod
    def backward(ctx: Any, g: Any) -> tuple[Any, ...]:
        return None, None, None, Linear.apply(ctx.back, ctx.back, ctx.there, g)

    @staticmethod
    def jvp(ctx: Any, _work: None, _there: None, _back: None, tx: Any) -> Any:
        return Linear.apply(ctx.there, ctx.there, ctx.back, tx)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *operands: Any) -> tuple[Any, int]:  # noqa: ARG004
        *maps, x = operands
        return Linear.apply(*maps, x.movedim(in_dims[3], 0)), 0


def _own(out: Any) -> Any:
    """The result, no longer a view to torch, which refuses to change a view in place that a Function has returned."""
    return out.detach() if out._is_view() else out


def _exactly(device: str) -> AbstractContextManager[Any]:
    """Turns off autocast, which would multiply in 16 bits although the result has a dtype of 32."""
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        off: AbstractContextManager[Any] = torch.autocast(device, enabled=False)
        return off
    return nullcontext()


# A contraction in a graph of torch's compiler is one step, not the hundreds that its parts are. The problem is written
# there as text, so that a graph can be stored and used in another process.


@torch.library.custom_op("xpconv::fill", mutates_args=())  # type: ignore[untyped-decorator]
def _step(problem: str, a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    with _exactly(a.device.type):
        filled: torch.Tensor = evaluate(_read(problem), a, b, bias, xp=library("a", a)).contiguous()
        return filled


@_step.register_fake  # type: ignore[untyped-decorator]
def _(problem: str, a: Any, b: Any, bias: Any) -> Any:  # noqa: ARG001
    read = _read(problem)
    return a.new_empty(read.shape, dtype=read.dtype)


@lru_cache(maxsize=1024)
def _written(problem: Problem) -> str:
    rows = tuple((tuple(row.axis), *row[1:3], str(row.value)) for row in problem.convolution.rows)
    (*dtypes, mixed), counts = problem.dtypes, problem.convolution.counts
    dtypes.append(problem.dtype)
    names = tuple(str(dtype).removeprefix("torch.") for dtype in dtypes)
    return repr((problem.result, problem.slots, counts, rows, tuple(problem.layout), problem.flip, names, mixed))


@lru_cache(maxsize=1024)
def _read(written: str) -> Problem:
    name, slots, (samples, groups, outputs, inputs), rows, layout, flip, names, mixed = literal_eval(written)
    *own, dtype = (getattr(torch, one) for one in names)
    across = tuple(Row(Axis(*axis), dilation, mode, _number(value)) for axis, dilation, mode, value in rows)
    convolution = Convolution(samples, groups, outputs, inputs, across)
    return Problem(name, slots, convolution, Layout(*layout), flip, DTypes._make((*own, mixed)), dtype)


def _number(written: str) -> complex:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(written)
    return complex(written)


def _others(name: str) -> tuple[str, ...]:
    return tuple(one for one in "yxw" if one != name)


def _solved(problem: Problem, operands: dict[str, Any]) -> Any:
    first, second = (operands[other] for other in _others(problem.result))
    return solve(problem, first, second, None)
