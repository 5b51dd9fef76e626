"""Floor 3, on top: the slots of a form, whatever its padding mode, the dilation of its input and its numbers.

All of them come down to contractions over geometries that are padded with zeros, of numbers of one kind: the form is
taken apart where that makes it simple, by linearity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias, cast

from .. import _algorithms as algorithms
from .._algorithms import Kept, nothing_but, per_channel
from .._arrays.dtypes import accumulating, real_dtype
from .._arrays.namespace import add, complex_of, conj, convert, is_complex, is_floating, put, real_parts
from .._arrays.padding import Operand, border_adjoint
from .._arrays.typing import ArrayT, Namespace
from .._spec.convolution import Form
from .._spec.options import current

__all__ = ["fill"]

Fill: TypeAlias = Callable[..., Any]  # one of fill_y, fill_x and fill_w


def fill(
    slot: str,
    form: Form,
    a: ArrayT,
    b: ArrayT,
    conjugated: int | None,
    dtype: Any,
    work: Any,
    mixed: bool,
    bias: ArrayT | None = None,
    kept: Kept | None = None,
    *,
    xp: Namespace,
) -> ArrayT:
    """The slot from two others, one of them conjugated or none, multiplied in a dtype and returned in another."""
    how: Any = {"y": fill_y, "x": fill_x, "w": fill_w}[slot]
    if mixed:
        return by_real_parts(how, form, a, b, conjugated, dtype, work, bias, xp=xp)
    filled: ArrayT = how(form, a, b, conjugated, dtype, work, bias, kept, xp=xp)
    return filled


def by_real_parts(
    fill: Fill,
    form: Form,
    a: ArrayT,
    b: ArrayT,
    conjugated: int | None,
    dtype: Any,
    work: Any,
    bias: ArrayT | None,
    *,
    xp: Namespace,
) -> ArrayT:
    """Fill a slot where some are real and some complex: T is linear in each, so it goes through their real parts.

    (ar + i ai) (br + i bi) = (ar br - ai bi) + i (ai br + ar bi), without what there is not, or is not asked for.
    """
    (ar, ai), (br, bi) = real_parts(a, xp=xp), real_parts(b, xp=xp)
    part = real_dtype(dtype, xp=xp)

    def product(a: ArrayT, b: ArrayT) -> ArrayT:
        return cast(ArrayT, fill(form, a, b, None, part, work, None, None, xp=xp))

    y = product(ar, br)
    if ai is not None and bi is not None:
        both = product(ai, bi)
        y = xp.subtract(y, both) if conjugated is None else xp.add(y, both)
    if is_complex(dtype, xp=xp):
        # Only one of the two is complex: where both are, so is the result, or it is the gradient of a real one.
        imaginary = product(ar, bi) if ai is None else product(ai, br)  # type: ignore[arg-type]
        if conjugated == (0 if bi is None else 1):
            imaginary = xp.negative(imaginary)
        y = complex_of(y, imaginary, dtype, xp=xp)
    if bias is not None:
        y = add(y, (...,), per_channel(convert(bias, dtype, xp=xp), y.ndim, xp=xp), xp=xp)
    return y


def fill_y(
    form: Form,
    x: ArrayT,
    w: ArrayT,
    conjugated: int | None,
    dtype: Any,
    work: Any,
    bias: ArrayT | None,
    kept: Kept | None,
    *,
    xp: Namespace,
) -> ArrayT:
    """y[outputs] from x and w[taps]: one convolution, or where the input is dilated one for each phase."""
    floating = is_floating(dtype, xp=xp)
    x, w, bias = _operands(x, w, bias, work, conjugated, form, xp=xp)
    if form.undilated:
        return algorithms.fill("y", x, w, bias, dtype, floating, form.bordered, current(), kept, xp=xp)
    y = nothing_but(bias, form.geometry.y_shape, w, dtype, xp=xp)
    for outputs, taps, geometry in form.phases:
        if geometry is not None:
            part = algorithms.fill("y", x, w[_at(taps)], bias, dtype, floating, geometry, current(), xp=xp)
            y = put(y, _at(outputs), part, xp=xp)
    return y


def fill_x(
    form: Form,
    dy: ArrayT,
    w: ArrayT,
    conjugated: int | None,
    dtype: Any,
    work: Any,
    bias: ArrayT | None,
    kept: Kept | None,
    *,
    xp: Namespace,
) -> ArrayT:
    """dx from dy[outputs] and w[taps]; then what stands on the border is added to the inputs that stand there."""
    floating, held = is_floating(dtype, xp=xp), accumulating(xp, dtype, work)
    dy, w, bias = _operands(dy, w, bias, work, conjugated, None, xp=xp)

    def inner(form: Form, dy: ArrayT, bias: ArrayT | None, dtype: Any, kept: Kept | None) -> ArrayT:
        if form.undilated:
            return algorithms.fill("x", dy, w, bias, dtype, floating, form.geometry, current(), kept, xp=xp)
        dx = nothing_but(bias, form.x_shape, w, held, xp=xp)
        for outputs, taps, geometry in form.phases:
            if geometry is not None:
                operands = _view(dy, _at(outputs)), w[_at(taps)], None
                # Without a name, or one such part would be kept while the next is made.
                dx = add(dx, (...,), algorithms.fill("x", *operands, held, floating, geometry, current(), xp=xp), xp=xp)
        return convert(dx, dtype, xp=xp)

    if not form.regions:
        return inner(form.without_border, dy, bias, dtype, kept)
    dx = inner(form.without_border, dy, bias, held, kept)
    for border, outputs, runs in form.regions:
        where, piece = border_adjoint(inner(border, _view(dy, _at(outputs)), None, held, None), runs, xp=xp)
        dx = add(dx, where, piece, xp=xp)
    return convert(dx, dtype, xp=xp)


def fill_w(
    form: Form,
    dy: ArrayT,
    x: ArrayT,
    conjugated: int | None,
    dtype: Any,
    work: Any,
    bias: None = None,  # noqa: ARG001
    kept: None = None,  # noqa: ARG001
    *,
    xp: Namespace,
) -> ArrayT:
    """dw[taps] from dy[outputs] and x."""
    floating = is_floating(dtype, xp=xp)
    dy = _operand(dy, work, conjugated == 0, None, xp=xp)
    x = _operand(x, work, conjugated == 1, form, xp=xp)
    if form.undilated:
        return algorithms.weight_grad(dy, x, dtype, floating, form.bordered, current(), xp=xp)
    dw = nothing_but(None, form.geometry.w_shape, x, dtype, xp=xp)
    for outputs, taps, geometry in form.phases:
        if geometry is not None:
            part = algorithms.weight_grad(_view(dy, _at(outputs)), x, dtype, floating, geometry, current(), xp=xp)
            dw = put(dw, _at(taps), part, xp=xp)
    return dw


def _operands(
    a: ArrayT,
    w: ArrayT,
    bias: ArrayT | None,
    work: Any,
    conjugated: int | None,
    form: Form | None,
    *,
    xp: Namespace,
) -> tuple[ArrayT, ArrayT, ArrayT | None]:
    """What is read part by part, and the weight and the bias as they are worked with."""
    if conjugated == 1:
        w = conj(w, xp=xp)
    bias = None if bias is None else convert(bias, work, xp=xp)
    return _operand(a, work, conjugated == 0, form, xp=xp), convert(w, work, xp=xp), bias


def _operand(a: ArrayT, work: Any, conjugated: bool, form: Form | None, *, xp: Namespace) -> ArrayT:
    """The array, or what reads it."""
    runs = None if form is None else form.border
    conjugated = conjugated and is_complex(a.dtype, xp=xp)
    if runs is None and not conjugated and a.dtype == work:
        return a
    reader: Any = Operand(a, work, conjugated, runs, xp)
    return reader  # type: ignore[no-any-return]


def _view(a: ArrayT, where: tuple[slice, ...]) -> ArrayT:
    """A part of an array without a border, or of what reads it, which converts only what is read."""
    if isinstance(a, Operand):
        return cast(ArrayT, replace(a, array=a.array[where]))
    return a[where]


def _at(spatial: tuple[slice, ...]) -> tuple[slice, ...]:
    return (slice(None), slice(None), *spatial)
