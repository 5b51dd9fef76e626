"""A problem, solved at once: layout in, each step of the convolution contracted, layout out.

T is linear in each slot, so it can be split into sums that are easier to compute. In this way every padding mode, every
input dilation, and real numbers with complex ones come down to contractions of one kind of numbers, padded with zeros.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from .._algorithms.contract import Task, contract
from .._algorithms.contractions import nothing_but, per_channel
from .._algorithms.weight import Weight
from .._arrays.devices import device
from .._arrays.doors import add, complex_of, conj, convert, flip, put, real_parts
from .._arrays.dtypes import accumulating, real_dtype, widest, working
from .._arrays.namespace import float_bits, is_complex, is_floating, missing_dtypes, native
from .._arrays.padding import Operand, fold_border
from .._arrays.typing import ArrayT, Namespace
from .._spec.convolution import Step
from .._spec.options import current
from .phases import at_once
from .problem import Problem

__all__ = ["arranged", "bias_grad", "evaluate", "fill", "only_bias", "placed"]


def evaluate(problem: Problem, a: ArrayT, b: Any, bias: ArrayT | None = None, *, xp: Namespace) -> ArrayT:
    """What fills the problem's slot, from the other two and a bias; b may be a `Weight`."""
    problem = problem.reading(a.dtype, b.array.dtype if isinstance(b, Weight) else b.dtype)
    if current().batch_invariant and problem.result != "w" and problem.convolution.samples > 1:
        return _sample_by_sample(problem, *arranged(problem, a, b, xp=xp), bias, xp=xp)
    plain = problem.plain
    if (
        plain is not None
        and (bias is None or bias.dtype == problem.dtype)
        and (problem.conjugated is None or not is_complex(problem.dtype, xp=xp))
    ):  # the shortest way: small calls are mostly overhead
        return contract(plain, a, b if problem.result == "w" or isinstance(b, Weight) else Weight(b), bias, xp=xp)
    return placed(problem, fill(problem, *arranged(problem, a, b, xp=xp), bias, xp=xp), xp=xp)


def arranged(problem: Problem, a: ArrayT, b: Any, *, xp: Namespace) -> tuple[ArrayT, Any]:
    """The operands as they stand in T: arrays as (n, c, *spatial), a weight with its taps reversed if `flip` is set."""
    a = problem.layout.inward(a, xp=xp)
    if problem.result == "w":
        b = problem.layout.inward(b, xp=xp)
        return (b, a) if problem.swapped else (a, b)
    if problem.flip:
        b = b.changed(lambda w: _flipped(w, xp=xp)) if isinstance(b, Weight) else _flipped(b, xp=xp)
    return a, b


def placed(problem: Problem, out: ArrayT, *, xp: Namespace) -> ArrayT:
    """The result as the caller has it."""
    if problem.result == "w":
        return _flipped(out, xp=xp) if problem.flip else out
    return problem.layout.outward(out, xp=xp)


def _sample_by_sample(problem: Problem, a: ArrayT, b: Any, bias: ArrayT | None, *, xp: Namespace) -> ArrayT:
    """The result, each sample of which is computed as if there were no others."""
    one, shape = problem.of_one_sample, problem.convolution.shape(problem.slot)
    out: ArrayT = xp.empty(shape, dtype=problem.dtype, device=device(a))
    for i in range(shape[0]):
        sample = slice(i, i + 1)
        out = put(out, (sample, ...), fill(one, a[sample, ...], b, bias, xp=xp), xp=xp)
    return placed(problem, out, xp=xp)


def _flipped(w: ArrayT, *, xp: Namespace) -> ArrayT:
    return flip(w, range(2, w.ndim), xp=xp)


def fill(problem: Problem, a: ArrayT, b: Any, bias: ArrayT | None = None, *, xp: Namespace) -> ArrayT:
    """What fills the slot of T, from arranged operands."""
    if problem.dtypes.mixed:
        mixed: ArrayT = _by_real_parts(problem, a, b.array if isinstance(b, Weight) else b, bias, xp=xp)
        return mixed
    slot, compute, conjugated = problem.slot, problem.compute_dtype(bias, xp=xp), problem.conjugated

    def operand(name: str, array: ArrayT, place: int) -> ArrayT:
        """The array, or an `Operand` that reads it with its border, conjugated, or in the dtype to compute in."""
        border = problem.convolution.border if name == "x" else None
        conjugate = conjugated == place and is_complex(array.dtype, xp=xp)
        if border is None and not conjugate and array.dtype == compute:
            return array
        return cast(ArrayT, Operand(array, compute, conjugate, border, xp))

    if slot == "w":
        return _fill_w(problem, operand("y", a, 0), operand("x", b, 1), xp=xp)
    w: Weight[ArrayT] = b if isinstance(b, Weight) else Weight(b)
    w = w.changed(lambda w: convert(conj(w, xp=xp) if conjugated == 1 else w, compute, xp=xp))
    bias = None if bias is None else convert(bias, compute, xp=xp)
    if slot == "y":
        return _fill_y(problem, operand("x", a, 0), w, bias, xp=xp)
    return _fill_x(problem, operand("y", a, 0), w, bias, xp=xp)


def _fill_y(problem: Problem, x: ArrayT, w: Weight[ArrayT], bias: ArrayT | None, *, xp: Namespace) -> ArrayT:
    """y[outputs] from x and w[taps], in one step, or one for each phase of a dilated input."""
    if problem.only_task is not None:
        return contract(problem.only_task, x, w, bias, xp=xp)
    y = None if problem.phases is None else at_once(problem.phases, x, w, bias, xp=xp)
    if y is not None:
        return y
    y = nothing_but(bias, problem.convolution.shape("y"), w.array, problem.dtype, xp=xp)
    for step, task in problem.tasks:
        y = put(y, _at(step.outputs), contract(task, x, w.at(step.taps), bias, xp=xp), xp=xp)
    return y


def _fill_x(problem: Problem, dy: ArrayT, w: Weight[ArrayT], bias: ArrayT | None, *, xp: Namespace) -> ArrayT:
    """dx from dy[outputs] and w[taps]; the gradient of a border is added to the inputs that it repeats."""
    if problem.only_task is not None:
        return contract(problem.only_task, dy, w, bias, xp=xp)
    border, shape = problem.convolution.border, problem.convolution.shape("x")
    problem, dtype = problem.with_dtype(accumulating(xp, problem.dtype, w.array.dtype)), problem.dtype

    def gradient(step: Step, task: Task, bias: ArrayT | None) -> ArrayT:
        return contract(task, _view(dy, step), w.at(step.taps), bias, xp=xp)

    if not problem.tasks:
        return nothing_but(bias, shape, w.array, dtype, xp=xp)
    own_bias = None if border else bias
    dx = None if problem.phases is None else at_once(problem.phases, dy, w, own_bias, xp=xp)
    if dx is None:
        dx = gradient(*problem.tasks[0], own_bias)
        for step, task in problem.tasks[1:]:
            dx = add(dx, (...,), gradient(step, task, None), xp=xp)
    if border:
        folded = fold_border(dx, shape, border, xp=xp)
        if bias is not None:
            folded = add(folded, (...,), per_channel(bias, folded.ndim, xp=xp), xp=xp)
        out: ArrayT = xp.empty(shape, dtype=dtype, device=device(w.array))
        return put(out, (...,), folded, xp=xp)
    return convert(dx, dtype, xp=xp)


def _fill_w(problem: Problem, dy: ArrayT, x: ArrayT, *, xp: Namespace) -> ArrayT:
    """dw[taps] from dy[outputs] and x."""
    if problem.only_task is not None:
        return contract(problem.only_task, dy, x, None, xp=xp)
    dw = None if problem.phases is None else at_once(problem.phases, dy, x, None, xp=xp)
    if dw is not None:
        return dw
    like = x.array if isinstance(x, Operand) else x
    dw = nothing_but(None, problem.convolution.shape("w"), like, problem.dtype, xp=xp)
    for step, task in problem.tasks:
        dw = put(dw, _at(step.taps), contract(task, _view(dy, step), x, None, xp=xp), xp=xp)
    return dw


def _by_real_parts(problem: Problem, a: ArrayT, b: ArrayT, bias: ArrayT | None, *, xp: Namespace) -> ArrayT:
    """Real numbers with complex ones: computed from those real and imaginary parts that exist and are needed.

    (ar + i ai) (br - i bi) = (ar br + ai bi) + i (ai br - ar bi), if the second operand is conjugated
    """
    (ar, ai), (br, bi) = real_parts(a, xp=xp), real_parts(b, xp=xp)
    real, dtype, conjugated = problem.of_real_parts(xp=xp), problem.dtype, problem.conjugated
    real = real.with_dtype(real.compute_dtype(xp=xp))  # rounded once, after the sum
    wide = dtype if real.dtype == real_dtype(dtype, xp=xp) else widest(xp, dtype)
    imag = problem.of_real_parts("imag", xp=xp).with_dtype(real.dtype)
    of_ai, of_bi = (imag if problem.slot == slot else real for slot in "yw")
    y = fill(real, ar, br, xp=xp)
    if ai is not None and bi is not None:
        # Only in the gradient of a real operand are both complex; one of them is conjugated, and i times -i is 1.
        y = xp.add(y, fill(of_ai if problem.slot == "y" else of_bi, ai, bi, xp=xp))
    if is_complex(dtype, xp=xp):
        # Only one operand is complex here: if both are, nothing is mixed, or the result is the gradient of a real one.
        imaginary = fill(of_bi, ar, bi, xp=xp) if ai is None else fill(of_ai, ai, br, xp=xp)
        if conjugated == (0 if bi is None else 1):
            imaginary = xp.negative(imaginary)
        y = complex_of(y, imaginary, wide, xp=xp)
    if bias is not None:
        y = add(y, (...,), per_channel(convert(bias, wide, xp=xp), y.ndim, xp=xp), xp=xp)
    return convert(y, dtype, xp=xp)


def bias_grad(dy: ArrayT, problem: Problem, *, xp: Namespace) -> ArrayT:
    """dbias: the sum of dy over samples and positions; of each sample, where it has a weight of its own."""
    dtype, missing = native(dy.dtype), missing_dtypes(dy, xp=xp)
    dy = problem.layout.inward(dy, xp=xp)
    if is_floating(dtype, xp=xp):
        precise = float_bits(xp, problem.dtypes.compute_grad) == 64
        wide = widest(xp, dtype) if precise else working(xp, missing, dtype, dtype)
        wide = None if wide == dtype else wide
    else:
        wide = dtype if "int64" in missing else xp.int64
    summed = (*(() if problem.per_sample else (0,)), *range(2, dy.ndim))
    return convert(xp.sum(dy, axis=summed, dtype=wide), dtype, xp=xp)


def only_bias(problem: Problem, bias: ArrayT | None, like: ArrayT, *, xp: Namespace) -> ArrayT:
    """y where only the bias contributes to it; zeros without a bias."""
    y = nothing_but(bias, problem.convolution.shape(problem.slot), like, problem.dtype, xp=xp)
    return problem.layout.outward(y, xp=xp)


def _view(a: ArrayT, step: Step) -> ArrayT:
    """The outputs of a step, as a view. An `Operand` stays one, and converts only what is read."""
    if isinstance(a, Operand):
        return cast(ArrayT, replace(a, array=a.array[_at(step.outputs)]))
    return a[_at(step.outputs)]


def _at(spatial: tuple[slice, ...]) -> tuple[slice, ...]:
    return (slice(None), slice(None), *spatial)
