"""Floor 3, on top: a call of a convolution, as all public functions share it.

    fill("y", x, w)    y = T with x and w in their slots
    fill("x", dy, w)   dx, with dy and the conjugate of w
    fill("w", dy, x)   dw, with dy and the conjugate of x

The transposed convolution is the form with its slots for x and y exchanged, and nothing else. What of the arguments is
neither geometry nor padding is layout and dtype, and ends here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

from .._algorithms import Choice, Kept, nothing_but, ways
from .._arrays.dtypes import Numbers, exact, result, working
from .._arrays.layout import Layout
from .._arrays.namespace import (
    agree,
    chunked_like,
    convert,
    flip,
    is_dask_array,
    is_dask_namespace,
    is_floating,
    is_torch_namespace,
    lacking,
)
from .._arrays.typing import ArrayT, Namespace
from .._spec.convolution import Form
from .._spec.geometry import Geometry, PerAxis, check_shape, per_axis
from .._spec.options import Options, current
from .._spec.parameters import Parameters, is_certain
from .slots import fill

__all__ = ["Call", "Transposed", "backward", "double_backward", "forward", "jvp", "spatial"]

Transposed: TypeAlias = tuple[PerAxis, PerAxis | None] | None  # output padding and output size; None: it is not
Make: TypeAlias = Callable[..., "Call"]
Gradients: TypeAlias = tuple[ArrayT | None, ArrayT | None, ArrayT | None]


@dataclass(frozen=True)
class Call:
    """All of it that does not depend on values: one is remembered for all calls alike."""

    xp: Namespace
    form: Form
    layout: Layout
    flip: bool
    transposed: bool
    numbers: Numbers

    @classmethod
    def of(
        cls, x: ArrayT, weight: ArrayT, parameters: Parameters, transposed: Transposed = None, *, xp: Namespace
    ) -> Call:
        """For an input and a weight; the transposed one has its output padding and its output size."""
        return _made(parameters, transposed, xp, lacking(x, xp=xp), x.shape, weight.shape, x.dtype, weight.dtype)

    @classmethod
    def of_input_grad(cls, dy: ArrayT, weight: ArrayT, input_size: PerAxis, parameters: Parameters) -> Call:
        """For the gradient of the input alone, with its size instead of it."""
        xp = agree(dy=dy, weight=weight)
        shapes, dtypes = (dy.shape, weight.shape), (dy.dtype, weight.dtype)
        return _made_without_x(parameters, (input_size,), xp, lacking(dy, xp=xp), *shapes, *dtypes)

    @classmethod
    def of_weight_grad(cls, dy: ArrayT, x: ArrayT, kernel_size: Sequence[int], parameters: Parameters) -> Call:
        """For the gradient of the weight alone, with the kernel's size instead of it."""
        xp = agree(dy=dy, x=x)
        shapes, dtypes = (dy.shape, x.shape), (dy.dtype, x.dtype)
        return _made_without_w(parameters, (kernel_size,), xp, lacking(dy, xp=xp), *shapes, *dtypes)

    @cached_property
    def taped(self) -> bool:
        """Whether the arrays are torch's."""
        return is_torch_namespace(self.xp)

    @cached_property
    def chunked(self) -> Any:
        """Where the arrays are dask's, or some of them: what fills their slots. None for others."""
        if not is_dask_namespace(self.xp):
            return None
        from . import dask as _chunked  # it imports dask

        return _chunked

    @property
    def channels(self) -> int:
        """How many y has."""
        geometry = self.form.geometry
        return geometry.groups * (geometry.inputs if self.transposed else geometry.outputs)

    @property
    def y_shape(self) -> tuple[int, ...]:
        return self.shape("y")

    def shape(self, slot: str) -> tuple[int, ...]:
        """Of what fills the slot, as the caller has it."""
        shape = self.form.shape(self._own(slot))
        return shape if slot == "w" else self.layout.outer(shape)

    def fill(
        self,
        slot: str,
        a: ArrayT,
        b: ArrayT,
        bias: ArrayT | None = None,
        *,
        dtype: Any = None,
        kept: Kept | None = None,
        like: ArrayT | None = None,
    ) -> ArrayT:
        """The slot "y" from x and w, "x" from dy and w, or "w" from dy and x; in the dtype of its own, if in no other.

        Where arrays have chunks it has those of one like it.
        """
        dtype = getattr(self.numbers, slot) if dtype is None else dtype
        if self.taped:
            from .torch import Slot  # it imports torch

            filled: ArrayT = Slot.apply(self, slot, dtype, a, b, bias)
            return filled
        return self.filled(slot, dtype, a, b, bias, kept, like)

    def filled(
        self,
        slot: str,
        dtype: Any,
        a: ArrayT,
        b: ArrayT,
        bias: ArrayT | None = None,
        kept: Kept | None = None,
        like: ArrayT | None = None,
    ) -> ArrayT:
        """The same without a tape. A gradient is one of the conjugate of the operand that it shares with y."""
        conjugated, numbers = None if slot == "y" else 1, self.numbers
        work = self.work(slot, bias)
        a, b = self._in(a), self._in(b) if slot == "w" else self._filters(self._taken(b))
        if self.transposed and slot == "w":
            a, b, conjugated = b, a, 0
        own = self._own(slot)
        how = own, self.form, a, b, conjugated, dtype, work, numbers.mixed, bias
        out: ArrayT
        if self.chunked:
            out = self.chunked.fill(*how, self._in(like) if is_dask_array(like) else None, xp=self.xp)
        else:
            out = fill(*how, kept, xp=self.xp)
        if slot == "w":
            return self._filters(out)
        out = self._out(out)
        return chunked_like(out, like) if self.chunked else out

    def work(self, slot: str, bias: ArrayT | None = None) -> Any:
        """The dtype to multiply and add in for the slot "y", "x" or "w", as the caller names them."""
        xp, (x, w, y, forward, backward, _) = self.xp, self.numbers
        work = forward if slot == "y" else backward
        if is_floating(y, xp=xp) or not is_floating(work, xp=xp):
            return work
        first, second = {"y": (x, w), "x": (y, w), "w": (y, x)}[slot]
        return exact(xp, self.form.terms(self._own(slot)), first, second, None if bias is None else bias.dtype)

    def mapped(self, axis: str, times: int) -> Call:
        """The same for so many arrays at once, as "samples" on an axis in front, or as "groups" of the channels."""
        form, layout = self.form, self.layout
        geometry = replace(form.geometry, **{axis: times * getattr(form.geometry, axis)})
        if axis == "samples":
            layout = layout._replace(batch=(times, *layout.batch), channels=layout.channels + 1)
        return replace(self, form=replace(form, geometry=geometry), layout=layout)

    def bias_grad(self, dy: ArrayT) -> ArrayT:
        xp, dtype = self.xp, dy.dtype
        dy = self._in(dy)
        lacks = lacking(dy, xp=xp)
        if is_floating(dtype, xp=xp):
            wide = working(xp, lacks, dtype, dtype)
            wide = None if wide == dtype else wide
        else:
            wide = dtype if "int64" in lacks else xp.int64
        db = xp.sum(dy, axis=(0, *range(2, dy.ndim)), dtype=wide)
        return convert(db, dtype, xp=xp)

    def nothing_but(self, bias: ArrayT | None, like: ArrayT) -> ArrayT:
        """y, where there is nothing else to add up."""
        zeros = self.chunked.nothing_but if self.chunked else nothing_but
        y: ArrayT = self._out(zeros(bias, self.form.shape(self._own("y")), like, self.numbers.y, xp=self.xp))
        return y

    def ways(self, slot: str, geometry: Geometry, like: ArrayT, options: Options) -> list[Choice]:
        """How a part of the form can fill a slot, the chosen way first."""
        numbers, work = self.numbers, self.work(self._own(slot))
        return ways(like, work, is_floating(numbers.y, xp=self.xp), geometry, slot, options, xp=self.xp)

    def _own(self, slot: str) -> str:
        """The form's slot: what is its input is y of a transposed convolution."""
        return {"y": "x", "x": "y"}.get(slot, slot) if self.transposed else slot

    def _in(self, x: ArrayT) -> ArrayT:
        return self.layout.inward(self._taken(x), xp=self.xp)

    def _taken(self, x: ArrayT) -> ArrayT:
        """As one of the call's library: the others may be dask's."""
        taken: ArrayT = self.chunked.lazily(x) if self.chunked else x
        return taken

    def _out(self, x: ArrayT) -> ArrayT:
        return self.layout.outward(x, xp=self.xp)

    def _filters(self, w: ArrayT) -> ArrayT:
        """The taps turned around, for what is a convolution in the strict sense."""
        return flip(w, range(2, w.ndim), xp=self.xp) if self.flip else w


def _remembered(make: Make) -> Make:
    """Looks up what it made before, where the parameters and the sizes beside them may be looked up."""
    found = lru_cache(maxsize=1024)(make)

    def made(parameters: Parameters, sizes: tuple[Any, ...] | None, *others: Any) -> Call:
        certain = parameters.certain and (sizes is None or all(map(is_certain, sizes)))
        return (found if certain else make)(parameters, sizes, *others)

    return made


@_remembered
def _made(
    parameters: Parameters,
    transposed: Transposed,
    xp: Namespace,
    lacks: frozenset[str],
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    x_dtype: Any,
    w_dtype: Any,
) -> Call:
    layout = Layout.of("x", x_shape, spatial(w_shape), parameters.channel_axis)
    inner = layout.inner(x_shape)
    if transposed is None:
        form = Form.of(inner, w_shape, parameters)
    else:
        form = Form.of_transposed(inner, w_shape, parameters, *transposed)
    y = result(xp, parameters.dtype, lacks, x=x_dtype, weight=w_dtype)
    numbers = Numbers.of(x_dtype, w_dtype, y, lacks, xp=xp)
    return Call(xp, form, layout, parameters.flip, transposed is not None, numbers)


@_remembered
def _made_without_x(
    parameters: Parameters,
    sizes: tuple[PerAxis],
    xp: Namespace,
    lacks: frozenset[str],
    y_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    y_dtype: Any,
    w_dtype: Any,
) -> Call:
    ndim = spatial(w_shape)
    layout = Layout.of("dy", y_shape, ndim, parameters.channel_axis)
    size = per_axis("input_size", *sizes, ndim, 0)
    form = Form.of((layout.inner(y_shape)[0], None, *size), w_shape, parameters)
    dx = result(xp, parameters.dtype, lacks, dy=y_dtype, weight=w_dtype)
    numbers = Numbers.of(dx, w_dtype, y_dtype, lacks, xp=xp)
    return _checked(Call(xp, form, layout, parameters.flip, False, numbers), y_shape)


@_remembered
def _made_without_w(
    parameters: Parameters,
    sizes: tuple[Sequence[int]],
    xp: Namespace,
    lacks: frozenset[str],
    y_shape: tuple[int, ...],
    x_shape: tuple[int, ...],
    y_dtype: Any,
    x_dtype: Any,
) -> Call:
    kernel = per_axis("kernel_size", *sizes, None, 1)
    layout = Layout.of("x", x_shape, len(kernel), parameters.channel_axis)
    outputs = Layout.of("dy", y_shape, len(kernel), parameters.channel_axis).inner(y_shape)[1]
    form = Form.of(layout.inner(x_shape), (outputs, None, *kernel), parameters)
    dw = result(xp, parameters.dtype, lacks, dy=y_dtype, x=x_dtype)
    numbers = Numbers.of(x_dtype, dw, y_dtype, lacks, xp=xp)
    return _checked(Call(xp, form, layout, parameters.flip, False, numbers), y_shape)


def _checked(call: Call, y_shape: tuple[int, ...]) -> Call:
    check_shape("dy", y_shape, call.y_shape)
    return call


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
    return call.fill("y", x, weight, bias, kept=kept)


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
    _check("dy", dy, call.y_shape, call.numbers.y)
    if current().method != "auto" and not call.chunked:  # a method that cannot do it says so before any work
        for slot, need in zip("yw" if transposed else "xw", needs, strict=False):
            for geometry in call.form.parts(slot) if need else ():
                call.ways(slot, geometry, dy, current())
    return (
        call.fill("x", dy, weight, kept=kept, like=x) if needs[0] else None,
        call.fill("w", dy, x) if needs[1] else None,
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
) -> ArrayT:
    """How y changes with its operands."""
    given = {"tx": tx, "tweight": tweight, "tbias": tbias}
    xp = agree(x=x, weight=weight, **{name: one for name, one in given.items() if one is not None})
    call = Call.of(x, weight, parameters, transposed, xp=xp)
    _check_tangents(given, x, weight, call)
    return _tangent(tx, tweight, tbias, x, weight, call)


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
    _check("dy", dy, call.y_shape, call.numbers.y)
    _check_tangents(given, x, weight, call)
    nothing = all(gradient is None for gradient in given.values())
    return (
        _tangent(ddx, ddweight, ddbias, x, weight, call) if needs[0] and not nothing else None,
        call.fill("x", dy, ddweight, like=x) if needs[1] and ddweight is not None else None,
        call.fill("w", dy, ddx) if needs[2] and ddx is not None else None,
    )


def _tangent(
    tx: ArrayT | None, tweight: ArrayT | None, tbias: ArrayT | None, x: ArrayT, weight: ArrayT, call: Call
) -> ArrayT:
    """ty = T(tx, w) + T(x, tw) + tb: a form that is linear in each slot is its own derivative."""
    if tx is None and tweight is None:
        return call.nothing_but(tbias, x)
    if tx is None or tweight is None:
        return call.fill("y", x if tx is None else tx, weight if tweight is None else tweight, tbias)
    xp, numbers = call.xp, call.numbers
    # Rounded once, after the sum.
    wide = numbers.y if numbers.mixed or not is_floating(numbers.y, xp=xp) else numbers.forward
    ty = xp.add(call.fill("y", tx, weight, tbias, dtype=wide), call.fill("y", x, tweight, dtype=wide))
    return convert(ty, numbers.y, xp=xp)


def _check_tangents(tangents: Mapping[str, ArrayT | None], x: ArrayT, weight: ArrayT, call: Call) -> None:
    """Those of x, weight and bias, in this order."""
    *names, last = tangents
    for name, like in zip(names, (x, weight), strict=True):
        if (tangent := tangents[name]) is not None:
            _check(name, tangent, like.shape, like.dtype)
    if (bias := tangents[last]) is not None:
        _check_bias(last, bias, call)


def _check(name: str, array: ArrayT, shape: Sequence[int], dtype: Any) -> None:
    check_shape(name, array.shape, shape)
    if array.dtype != dtype:
        raise TypeError(f"{name} must have dtype {dtype}: got {array.dtype}")


def _check_bias(name: str, bias: ArrayT, call: Call) -> None:
    check_shape(name, bias.shape, (call.channels,))
    if bias.dtype not in call.numbers[:3]:
        allowed = " or ".join(dict.fromkeys(map(str, call.numbers[:3])))
        raise TypeError(f"{name} must have dtype {allowed}: got {bias.dtype}")


def _check_needs(what: str, needs: object) -> None:
    if not isinstance(needs, Sequence) or [type(need) for need in needs] != [bool] * 3:
        raise TypeError(f"needs must be three bools, for {what}: got {needs!r}")


def spatial(w_shape: Sequence[int]) -> int:
    """The number of spatial axes."""
    if len(w_shape) < 2:
        raise ValueError(
            f"weight must have at least 2 axes (out channels, in channels / groups, *kernel): got {len(w_shape)}"
        )
    return len(w_shape) - 2
