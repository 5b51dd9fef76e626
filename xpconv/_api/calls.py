"""What the functions of `conv.py` and `conv_transpose.py` share: the checks and the formulas.

    y  = T(x, w) + b              dx = T(dy, conj w)       dw = T(dy, conj x)       db = the sum of dy
    ty = T(tx, w) + T(x, tw) + tb

T is written here with its two operands, without the slot that is open. T is linear in each slot, so its derivatives
are T again, and double_backward is made of the same terms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from .._algorithms.weight import Weight
from .._arrays.doors import convert
from .._arrays.dtypes import accumulating, holds
from .._arrays.namespace import agree, native
from .._arrays.typing import ArrayT, Namespace
from .._engines.dispatch import bias_grad, check_options, dispatch, only_bias
from .._engines.problem import Problem, Transposed
from .._spec.geometry import check_shape

__all__ = ["backward", "check_bias", "check_like", "check_needs", "double_backward", "forward", "jvp"]

Gradients: TypeAlias = tuple[ArrayT | None, ArrayT | None, ArrayT | None]
Tangents: TypeAlias = Mapping[str, ArrayT | None]  # of x, weight and bias, in this order, by the caller's names


def forward(
    x: ArrayT,
    weight: ArrayT,
    bias: ArrayT | None,
    params: Mapping[str, Any],
    transposed: Transposed = None,
    memory: dict[Any, Any] | None = None,
) -> ArrayT:
    """y; `memory` keeps the transforms of a layer's weight from call to call."""
    xp = agree(x=x, weight=weight, bias=bias)
    problem = Problem.of(x, weight, params, transposed, xp=xp)
    if bias is not None:
        check_bias("bias", bias, problem, xp=xp)
    y: ArrayT = dispatch(problem, x, weight if memory is None else Weight(weight, memory), bias, xp=xp)
    return y


def backward(
    operands: tuple[ArrayT, ArrayT, ArrayT],
    params: Mapping[str, Any],
    needs: Sequence[bool],
    transposed: Transposed = None,
    memory: dict[Any, Any] | None = None,
) -> Gradients[ArrayT]:
    """dx, dweight and dbias from dy, x and weight."""
    dy, x, weight = operands
    xp = agree(dy=dy, x=x, weight=weight)
    check_needs("dx, dweight and dbias", needs)
    problem = Problem.of(x, weight, params, transposed, xp=xp)
    check_like("dy", dy, problem.shape, problem.dtypes.y)
    of_x, of_w = problem.with_slot("x"), problem.with_slot("w")
    check_options([one for one, need in zip((of_x, of_w), needs, strict=False) if need], dy, xp=xp)
    w = weight if memory is None else Weight(weight, memory)
    return (
        dispatch(of_x, dy, w, like=x, xp=xp) if needs[0] else None,
        dispatch(of_w, dy, x, xp=xp) if needs[1] else None,
        bias_grad(dy, problem, xp=xp) if needs[2] else None,
    )


def jvp(
    tangents: Tangents[ArrayT], x: ArrayT, weight: ArrayT, params: Mapping[str, Any], transposed: Transposed = None
) -> ArrayT:
    """The tangent of y: how y changes with its operands."""
    xp = agree(x=x, weight=weight, **{name: one for name, one in tangents.items() if one is not None})
    problem = Problem.of(x, weight, params, transposed, xp=xp)
    _check_tangents(tangents, x, weight, problem, xp=xp)
    return _tangent(tangents, x, weight, problem, xp=xp)


def double_backward(
    gradients: Tangents[ArrayT],
    operands: tuple[ArrayT, ArrayT, ArrayT],
    params: Mapping[str, Any],
    needs: Sequence[bool],
    transposed: Transposed = None,
) -> Gradients[ArrayT]:
    """The gradients of dy, x and weight. `backward` is linear in dy, and its adjoint is the tangent of y."""
    dy, x, weight = operands
    given = {name: one for name, one in gradients.items() if one is not None}
    xp = agree(dy=dy, x=x, weight=weight, **given)
    check_needs("ddy, dx and dweight", needs)
    problem = Problem.of(x, weight, params, transposed, xp=xp)
    check_like("dy", dy, problem.shape, problem.dtypes.y)
    _check_tangents(gradients, x, weight, problem, xp=xp)
    ddx, ddweight, _ = gradients.values()
    return (
        _tangent(gradients, x, weight, problem, xp=xp) if needs[0] and given else None,
        dispatch(problem.with_slot("x"), dy, ddweight, like=x, xp=xp) if needs[1] and ddweight is not None else None,
        dispatch(problem.linear.with_slot("w"), dy, ddx, xp=xp) if needs[2] and ddx is not None else None,
    )


def _tangent(tangents: Tangents[ArrayT], x: ArrayT, weight: ArrayT, problem: Problem, *, xp: Namespace) -> ArrayT:
    """ty = T(tx, w) + T(x, tw) + tb."""
    tx, tweight, tbias = tangents.values()
    ty: ArrayT
    if tx is None and tweight is None:
        ty = only_bias(problem, tbias, x, xp=xp)
    elif tx is None or tweight is None:
        operands = (x, tweight) if tx is None else (tx, weight)
        ty = dispatch(problem if tx is None else problem.linear, *operands, tbias, xp=xp)
    else:  # rounded once, after the sum
        dtypes = problem.dtypes
        wide = problem if dtypes.mixed else problem.with_dtype(accumulating(xp, dtypes.y, dtypes.compute))
        ty = xp.add(dispatch(wide.linear, tx, weight, tbias, xp=xp), dispatch(wide, x, tweight, xp=xp))
        ty = convert(ty, dtypes.y, xp=xp)
    return ty


def _check_tangents(tangents: Tangents[ArrayT], x: ArrayT, weight: ArrayT, problem: Problem, *, xp: Namespace) -> None:
    *names, last = tangents
    for name, like, dtype in zip(names, (x, weight), problem.dtypes[3:5], strict=True):
        if (tangent := tangents[name]) is not None:
            check_like(name, tangent, like.shape, dtype)
    if (bias := tangents[last]) is not None:
        check_bias(last, bias, problem, xp=xp)


def check_like(name: str, array: ArrayT, shape: Sequence[int], dtype: Any) -> None:
    check_shape(name, array.shape, shape)
    if native(array.dtype) != dtype:
        raise TypeError(f"{name} must have dtype {dtype}: got {array.dtype}")


def check_bias(name: str, bias: ArrayT, problem: Problem, *, xp: Namespace) -> None:
    of_each = problem.per_sample and bias.ndim == 2
    check_shape(name, bias.shape, (*[problem.convolution.samples][:of_each], problem.out_channels))
    if bias.dtype not in problem.dtypes[:3] and not holds(xp, problem.dtypes.y, bias.dtype):
        allowed = " or ".join(dict.fromkeys(map(str, problem.dtypes[:3])))
        raise TypeError(f"{name} must have dtype {allowed}: got {bias.dtype}")


def check_needs(what: str, needs: object) -> None:
    # A tuple is a Sequence, too, but that takes longer to find out.
    if not isinstance(needs, tuple | Sequence) or [type(need) for need in needs] != [bool] * 3:
        raise TypeError(f"needs must be three bools, for {what}: got {needs!r}")
