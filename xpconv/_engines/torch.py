"""Floor 3, on top: what torch is told of a contraction. Imports torch, and is imported when a tensor comes.

A tape of the operations that it is made of would keep all of its columns, and knows no vmap. So torch is told of a
slot as a whole: T is linear in each operand, and each derivative of a slot, of any order, is another slot.
"""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import torch

from .._arrays.dtypes import Numbers
from .._arrays.layout import Layout
from .._arrays.namespace import library
from .._spec.convolution import Form
from .._spec.geometry import Axis, Geometry

__all__ = ["Linear", "Slot"]


class Slot(torch.autograd.Function):  # type: ignore[misc]
    """`call.filled(slot, dtype, a, b, bias)`; a and b are the other two of y, x and w, in this order."""

    @staticmethod
    def forward(call: Any, slot: str, dtype: Any, a: Any, b: Any, bias: Any) -> Any:
        if type(a) not in (torch.Tensor, torch.nn.Parameter):  # what stands for one while torch compiles
            return _step(_written(call), slot, dtype, a, b, bias)
        if a.is_meta:
            return a.new_empty(call.shape(slot), dtype=dtype)
        with _exactly(a.device.type):
            return _own(call.filled(slot, dtype, a, b, bias))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG004
        ctx.call, ctx.slot, ctx.dtype, *operands, bias = inputs
        ctx.of_bias = None if bias is None else bias.dtype
        ctx.set_materialize_grads(False)  # no products with zeros
        ctx.save_for_backward(*operands)
        ctx.save_for_forward(*operands)

    @staticmethod
    def backward(ctx: Any, g: Any) -> tuple[Any, ...]:
        if g is None:
            return (None,) * 6
        call, slot, needs = ctx.call, ctx.slot, ctx.needs_input_grad[3:]
        (a, first), (b, second) = zip(_others(slot), ctx.saved_tensors, strict=True)
        da = _fill(call, a, {slot: g, b: second}) if needs[0] else None
        db = _fill(call, b, {slot: g, a: first}) if needs[1] else None
        dbias = call.bias_grad(g) if needs[2] else None
        if dbias is not None and dbias.dtype != ctx.of_bias:
            dbias = (dbias if ctx.of_bias.is_complex else torch.real(dbias)).to(ctx.of_bias)
        return None, None, None, da, db, dbias

    @staticmethod
    def jvp(ctx: Any, _call: None, _slot: None, _dtype: None, ta: Any, tb: Any, tbias: Any) -> Any:
        call, (a, b) = ctx.call, ctx.saved_tensors
        if ta is None and tb is None:
            after = len(call.layout.batch) + call.layout.ndim - call.layout.channels
            return call.nothing_but(None, a).to(ctx.dtype) + tbias.to(ctx.dtype).reshape(-1, *(1,) * after)
        if ta is None or tb is None:
            return call.fill(ctx.slot, *((a, tb) if ta is None else (ta, b)), tbias, dtype=ctx.dtype)
        wide = torch.promote_types(ctx.dtype, call.numbers.forward)  # rounded once, after the sum
        first, second = call.fill(ctx.slot, ta, b, tbias, dtype=wide), call.fill(ctx.slot, a, tb, dtype=wide)
        return (first + second).to(ctx.dtype)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], call: Any, slot: str, dtype: Any, *operands: Any) -> tuple[Any, int]:
        """The mapped axis joins the samples or, where there are as many weights or biases, the groups."""
        (at_a, at_b, at_bias), (a, b, bias), times = in_dims[3:], operands, info.batch_size
        if slot != "w" and at_b is None and at_bias is None:
            return call.mapped("samples", times).fill(slot, a.movedim(at_a, 0), b, bias, dtype=dtype), 0
        channels = {"y": call.layout.channels, "x": call.layout.channels, "w": 0}

        def joined(one: Any, at: int | None, axis: int) -> Any:
            """(..., channels, ...) -> (..., times * channels, ...)."""
            one = one.expand(times, *one.shape) if at is None else one.movedim(at, 0)
            return one.movedim(0, axis).flatten(axis, axis + 1)

        first, second = _others(slot)
        a, b = joined(a, at_a, channels[first]), joined(b, at_b, channels[second])
        bias = None if bias is None else joined(bias, at_bias, 0)
        out, axis = call.mapped("groups", times).fill(slot, a, b, bias, dtype=dtype), channels[slot]
        return out.unflatten(axis, (times, out.shape[axis] // times)), axis


class Linear(torch.autograd.Function):  # type: ignore[misc]
    """`there(x)` of a linear map whose adjoint is `back`; both take, and keep, one more axis in front."""

    @staticmethod
    def forward(there: Callable[[Any], Any], back: Callable[[Any], Any], x: Any) -> Any:  # noqa: ARG004
        return _own(there(x.detach()))  # `asarray` would take over that x requires a gradient

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG004
        ctx.there, ctx.back, _ = inputs

    @staticmethod
    def backward(ctx: Any, g: Any) -> tuple[Any, ...]:
        return None, None, Linear.apply(ctx.back, ctx.there, g)

    @staticmethod
    def jvp(ctx: Any, _there: None, _back: None, tx: Any) -> Any:
        return Linear.apply(ctx.there, ctx.back, tx)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], there: Any, back: Any, x: Any) -> tuple[Any, int]:  # noqa: ARG004
        return Linear.apply(there, back, x.movedim(in_dims[2], 0)), 0


def _own(out: Any) -> Any:
    """An array of its own to torch, which refuses to change in place what a Function returns as a view."""
    return out.detach() if out._is_view() else out


def _exactly(device: str) -> AbstractContextManager[Any]:
    """Without autocast, which would multiply in 16 bits and return what claims to be 32."""
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        off: AbstractContextManager[Any] = torch.autocast(device, enabled=False)
        return off
    return nullcontext()


# A contraction in a graph of torch's compiler is one step, not the hundreds that its parts are. All of it is written
# there in words, so that a graph can be kept and used in another process.


@torch.library.custom_op("xpconv::fill", mutates_args=())  # type: ignore[untyped-decorator]
def _step(
    call: str, slot: str, dtype: torch.dtype, a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    with _exactly(a.device.type):
        filled: torch.Tensor = _read(call, library("a", a)).filled(slot, dtype, a, b, bias).contiguous()
        return filled


@_step.register_fake  # type: ignore[untyped-decorator]
def _(call: str, slot: str, dtype: torch.dtype, a: Any, b: Any, bias: Any) -> Any:  # noqa: ARG001
    return a.new_empty(_read(call, library("a", a)).shape(slot), dtype=dtype)


@lru_cache(maxsize=1024)
def _written(call: Any) -> str:
    (*dtypes, mixed), geometry = call.numbers, call.form.geometry
    sizes = geometry.samples, geometry.groups, geometry.outputs, geometry.inputs
    axes, names = tuple(map(tuple, geometry.axes)), tuple(str(dtype).removeprefix("torch.") for dtype in dtypes)
    form = sizes, axes, call.form.spread, call.form.modes
    return repr((*form, tuple(call.layout), call.flip, call.transposed, names, mixed))


@lru_cache(maxsize=1024)
def _read(written: str, xp: Any) -> Any:
    from .call import Call  # which imports what is here

    sizes, axes, *modes, layout, flip, transposed, dtypes, mixed = literal_eval(written)
    samples, groups, outputs, inputs = sizes
    form = Form(Geometry(samples, groups, outputs, inputs, tuple(Axis(*axis) for axis in axes)), *modes)
    x, w, y, forward, backward = (getattr(torch, name) for name in dtypes)
    return Call(xp, form, Layout(*layout), flip, transposed, Numbers(x, w, y, forward, backward, mixed))


def _others(slot: str) -> tuple[str, ...]:
    return tuple(one for one in "yxw" if one != slot)


def _fill(call: Any, slot: str, operands: dict[str, Any]) -> Any:
    return call.fill(slot, *(operands[other] for other in _others(slot)))
