"""Floor 3, on top: a call of a convolution, as all public functions share it.

    output       y = T with x and w in their slots
    input_grad   dx, the same with dy for x and the conjugate of w
    weight_grad  dw, with dy and the conjugate of x

The transposed convolution is the form with its slots for x and y exchanged, and nothing else. What of the arguments is
neither geometry nor padding is layout and dtype, and ends here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ._algorithms import Choice, Kept, ways
from ._form import Form, Parameters
from ._geometry import Geometry, PerAxis, check_shape, per_axis
from ._layout import Layout
from ._namespace import add, agree, convert, device, is_complex, is_floating, real_dtype, result, working
from ._options import Options, current
from ._slots import fill_w, fill_x, fill_y, linear
from ._typing import ArrayT, Namespace

__all__ = ["Call", "Transposed", "backward", "double_backward", "forward", "jvp", "spatial"]

Transposed: TypeAlias = tuple[PerAxis, PerAxis | None] | None  # output padding and output size; None: it is not
Gradients: TypeAlias = tuple[ArrayT | None, ArrayT | None, ArrayT | None]


@dataclass(frozen=True)
class Call:
    xp: Namespace
    form: Form
    layout: Layout
    flip: bool
    transposed: bool
    dtypes: tuple[Any, Any, Any]  # of x, w and y

    @classmethod
    def of(
        cls,
        x: ArrayT,
        weight: ArrayT,
        parameters: Parameters,
        transposed: Transposed,
        *,
        xp: Namespace,
    ) -> Call:
        """For an input and a weight; the transposed one has its output padding and its output size."""
        ndim = spatial(weight)
        layout = Layout.of("x", x.shape, ndim, parameters.channel_axis)
        inner = layout.inner(x.shape)
        form = (
            Form.of(inner, weight.shape, parameters)
            if transposed is None
            else Form.of_transposed(inner, weight.shape, parameters, *transposed)
        )
        y = result(xp, parameters.dtype, x=x.dtype, weight=weight.dtype)
        return cls(xp, form, layout, parameters.flip, transposed is not None, (x.dtype, weight.dtype, y))

    @classmethod
    def of_gradient(
        cls,
        parameters: Parameters,
        *,
        dy: ArrayT,
        weight: ArrayT | None = None,
        input_size: PerAxis = (),
        x: ArrayT | None = None,
        kernel_size: Sequence[int] = (),
    ) -> Call:
        """For a gradient alone, of the input with its size instead of it, or of the weight with its."""
        xp = agree(dy=dy, weight=weight) if x is None else agree(dy=dy, x=x)
        if x is None:
            ndim, other, name = spatial(weight), weight, "weight"
            layout = Layout.of("dy", dy.shape, ndim, parameters.channel_axis)
            samples = layout.inner(dy.shape)[0]
            size = per_axis("input_size", input_size, ndim, 0)
            form = Form.of((samples, None, *size), weight.shape, parameters)
        else:
            assert x is not None
            kernel, other, name = per_axis("kernel_size", kernel_size, None, 1), x, "x"
            layout = Layout.of("x", x.shape, len(kernel), parameters.channel_axis)
            outputs = Layout.of("dy", dy.shape, len(kernel), parameters.channel_axis).inner(dy.shape)[1]
            form = Form.of(layout.inner(x.shape), (outputs, None, *kernel), parameters)
        found = result(xp, parameters.dtype, dy=dy.dtype, **{name: other.dtype})
        call = cls(xp, form, layout, parameters.flip, False, (found, found, dy.dtype))
        check_shape("dy", dy.shape, call.y_shape)
        return call

    @property
    def channels(self) -> int:
        """How many y has."""
        geometry = self.form.geometry
        return geometry.groups * (geometry.inputs if self.transposed else geometry.outputs)

    @property
    def x_shape(self) -> tuple[int, ...]:
        return self.layout.outer(self.form.geometry.y_shape if self.transposed else self.form.x_shape)

    @property
    def y_shape(self) -> tuple[int, ...]:
        return self.layout.outer(self.form.x_shape if self.transposed else self.form.geometry.y_shape)

    def output(self, x: ArrayT, w: ArrayT, bias: ArrayT | None, kept: Kept | None = None) -> ArrayT:
        fill = fill_x if self.transposed else fill_y
        y = linear(fill, self.form, self._in(x), self._filters(w), bias, self.dtypes[2], None, kept, xp=self.xp)
        return self.layout.outward(y, xp=self.xp)

    def input_grad(self, dy: ArrayT, w: ArrayT, kept: Kept | None = None) -> ArrayT:
        fill = fill_y if self.transposed else fill_x
        dx = linear(fill, self.form, self._in(dy), self._filters(w), None, self.dtypes[0], 1, kept, xp=self.xp)
        return self.layout.outward(dx, xp=self.xp)

    def weight_grad(self, dy: ArrayT, x: ArrayT) -> ArrayT:
        slots, conjugated = (self._in(dy), self._in(x)), 1
        if self.transposed:
            slots, conjugated = slots[::-1], 0
        return self._filters(linear(fill_w, self.form, *slots, None, self.dtypes[1], conjugated, xp=self.xp))

    def bias_grad(self, dy: ArrayT) -> ArrayT:
        xp, dtype = self.xp, dy.dtype
        dy = self._in(dy)
        wide = working(xp, dtype, dtype, dtype) if is_floating(dtype, xp=xp) else xp.int64
        db = xp.sum(dy, axis=(0, *range(2, dy.ndim)), dtype=None if wide == dtype else wide)
        return convert(db, dtype, xp=xp)

    def ways(self, slot: str, geometry: Geometry, x: ArrayT, options: Options) -> list[Choice]:
        """How a part of the form can fill a slot, the chosen way first."""
        xp = self.xp
        x_dtype, w_dtype, y_dtype = (real_dtype(dtype, xp=xp) for dtype in self.dtypes)
        if len({is_complex(dtype, xp=xp) for dtype in self.dtypes}) == 1:
            x_dtype, w_dtype, y_dtype = self.dtypes
        work = working(xp, x_dtype, w_dtype, y_dtype)
        return ways(x, work, y_dtype, geometry, slot, options, xp=xp)

    def _in(self, x: ArrayT) -> ArrayT:
        return self.layout.inward(x, xp=self.xp)

    def _filters(self, w: ArrayT) -> ArrayT:
        """The taps turned around, for what is a convolution in the strict sense."""
        if not self.flip:
            return w
        return self.xp.reshape(self.xp.flip(w, axis=tuple(range(2, w.ndim))), w.shape, copy=True)


def forward(
    x: ArrayT,
    weight: ArrayT,
    bias: ArrayT | None,
    parameters: Parameters,
    transposed: Transposed = None,
    kept: Kept | None = None,
) -> ArrayT:
    """y, of a convolution or a transposed one; a layer has what it keeps of its filters used, and filled."""
    xp = agree(x=x, weight=weight, bias=bias)
    call = Call.of(x, weight, parameters, transposed, xp=xp)
    if bias is not None:
        _check_bias("bias", bias, call)
    return call.output(x, weight, bias, kept)


def backward(
    dy: ArrayT,
    x: ArrayT,
    weight: ArrayT,
    parameters: Parameters,
    needs: Sequence[bool],
    transposed: Transposed = None,
    kept: Kept | None = None,
) -> Gradients[ArrayT]:
    """dx, dweight and dbias."""
    xp = agree(dy=dy, x=x, weight=weight)
    _check_needs("dx, dweight and dbias", needs)
    call = Call.of(x, weight, parameters, transposed, xp=xp)
    _check("dy", dy, call.y_shape, call.dtypes[2])
    if current().method != "auto":  # a method that cannot do it says so before any work
        for slot, need in zip("yw" if transposed else "xw", needs, strict=False):
            for geometry in call.form.parts(slot) if need else ():
                call.ways(slot, geometry, dy, current())
    return (
        call.input_grad(dy, weight, kept) if needs[0] else None,
        call.weight_grad(dy, x) if needs[1] else None,
        call.bias_grad(dy) if needs[2] else None,
    )


def jvp(
    tx: ArrayT | None,
    tweight: ArrayT | None,
    tbias: ArrayT | None,
    x: ArrayT,
    weight: ArrayT,
    parameters: Parameters,
    transposed: Transposed = None,
    names: Sequence[str] = ("tx", "tweight", "tbias"),
) -> ArrayT:
    """ty = T(tx, w) + T(x, tw) + tb: a form that is linear in each slot is its own derivative."""
    tangents = {name: one for name, one in zip(names, (tx, tweight, tbias), strict=True) if one is not None}
    xp = agree(x=x, weight=weight, **tangents)
    call = Call.of(x, weight, parameters, transposed, xp=xp)
    for name, tangent, like in zip(names, (tx, tweight), (x, weight), strict=False):
        if tangent is not None:
            _check(name, tangent, like.shape, like.dtype)
    if tbias is not None:
        _check_bias(names[2], tbias, call)
    if tx is None and tweight is None:
        zeros: ArrayT = xp.zeros(x.shape, dtype=x.dtype, device=device(x))
        return call.output(zeros, weight, tbias)
    if tx is None or tweight is None:
        return call.output(x if tx is None else tx, weight if tweight is None else tweight, tbias)
    return add(call.output(tx, weight, tbias), (...,), call.output(x, tweight, None), xp=xp)


def double_backward(
    ddx: ArrayT | None,
    ddweight: ArrayT | None,
    ddbias: ArrayT | None,
    dy: ArrayT,
    x: ArrayT,
    weight: ArrayT,
    parameters: Parameters,
    needs: Sequence[bool],
    transposed: Transposed = None,
) -> Gradients[ArrayT]:
    """Those of dy, x and weight. `backward` is linear in dy, so that of dy is its adjoint; the others change slots."""
    given = {"ddx": ddx, "ddweight": ddweight, "ddbias": ddbias}
    xp = agree(dy=dy, x=x, weight=weight, **{name: one for name, one in given.items() if one is not None})
    _check_needs("ddy, dx and dweight", needs)
    call = Call.of(x, weight, parameters, transposed, xp=xp)
    _check("dy", dy, call.y_shape, call.dtypes[2])
    ddy = jvp(ddx, ddweight, ddbias, x, weight, parameters, transposed, tuple(given)) if needs[0] else None
    for name, gradient, like in (("ddx", ddx, x), ("ddweight", ddweight, weight)):
        if gradient is not None:
            _check(name, gradient, like.shape, like.dtype)
    return (
        ddy,
        call.input_grad(dy, ddweight) if needs[1] and ddweight is not None else None,
        call.weight_grad(dy, ddx) if needs[2] and ddx is not None else None,
    )


def _check(name: str, array: ArrayT, shape: Sequence[int], dtype: Any) -> None:
    check_shape(name, array.shape, shape)
    if array.dtype != dtype:
        raise TypeError(f"{name} must have dtype {dtype}: got {array.dtype}")


def _check_bias(name: str, bias: ArrayT, call: Call) -> None:
    check_shape(name, bias.shape, (call.channels,))
    if bias.dtype not in call.dtypes:
        allowed = " or ".join(dict.fromkeys(map(str, call.dtypes)))
        raise TypeError(f"{name} must have dtype {allowed}: got {bias.dtype}")


def _check_needs(what: str, needs: object) -> None:
    if not isinstance(needs, Sequence) or [type(need) for need in needs] != [bool] * 3:
        raise TypeError(f"needs must be three bools, for {what}: got {needs!r}")


def spatial(weight: ArrayT) -> int:
    """The number of spatial axes."""
    if weight.ndim < 2:
        raise ValueError(
            f"weight must have at least 2 axes (out channels, in channels / groups, *kernel): got {weight.ndim}"
        )
    return weight.ndim - 2
