"""Convolution with a filter for each place.

Its columns, position by position, are the channels of a convolution without spatial axes, in which each position is a
group. So it is the same three contractions, between `unfold` and `fold`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from .._algorithms.contractions import per_channel
from .._arrays.doors import chunked_like, convert
from .._arrays.layout import Layout
from .._arrays.namespace import agree, is_floating
from .._arrays.typing import ArrayT, Namespace
from .._engines.dispatch import bias_grad, dispatch, together
from .._engines.entry import public
from .._engines.problem import Problem, Transposed
from .._spec.convolution import Convolution
from .._spec.geometry import Padding, PerAxis, check_shape
from .calls import check_bias, check_like, check_needs
from .conv import ConvGradients
from .patches import fold, unfold

__all__ = ["local_conv", "local_conv_backward", "local_conv_transpose"]


@public
def local_conv(
    x: ArrayT,
    weight: ArrayT,
    bias: ArrayT | None = None,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    padding_mode: str | Sequence[str] = "zeros",
    padding_value: complex = 0.0,
    channel_axis: int = 1,
    dtype: Any = None,
) -> ArrayT:
    """Convolve with a filter for each place: a convolution that does not share its weight between positions.

    ``y[n, o, j] = bias[o] + sum over c, t of x[n, c, stride*j + dilation*t - lo] * weight[o, c, t, j]``, with the sum
    over the channels `c` of the group that `o` belongs to.

    Parameters
    ----------
    x : array, shape (batch, in_channels, *spatial)
        The input, as for `conv`.
    weight : array, shape (out_channels, in_channels / groups, *kernel, *out)
        The filters: on the last axes one for each position of the output. Its rank says how many spatial axes there
        are, 0 included.
    bias : array, shape (out_channels,), optional
        Added to each output channel.
    stride, padding, dilation, groups, padding_mode, padding_value, channel_axis, dtype
        As for `conv`.

    Returns
    -------
    array, shape (batch, out_channels, *out)
        The sizes are `conv_output_size`'s.

    Raises
    ------
    TypeError
        As `conv` does.
    ValueError
        If the shapes do not fit one another; above all if there is not a filter for each position.

    See Also
    --------
    local_conv_backward : The gradients of all three operands.
    conv : One filter for all places.

    Notes
    -----
    As many multiplications as `conv` makes, by small products of matrices, one for each position and group. Networks
    have had such layers since faces were first recognised by one, where each place of a picture shows the same part of
    a face [1]_. Beside the workspace it takes the columns of `unfold` twice, and a copy of the weight.

    References
    ----------
    .. [1] Y. Taigman, M. Yang, M. Ranzato, L. Wolf, "DeepFace: Closing the Gap to Human-Level Performance in Face
       Verification", CVPR, 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import local_conv
    >>> x = np.asarray([[[1.0, 2.0, 4.0, 8.0]]])
    >>> weight = np.asarray([[[[1.0, 1.0, 0.0], [0.0, 1.0, 2.0]]]])  # (out, in, 2 taps, 3 positions)
    >>> local_conv(x, weight)
    array([[[ 1.,  6., 16.]]])
    """
    xp = agree(x=x, weight=weight, bias=bias)
    params = _params(stride, padding, dilation, groups, padding_mode, padding_value, channel_axis, dtype)
    problem = _problem(x, weight, params, None, xp=xp)
    if bias is not None:
        check_bias("bias", bias, problem, xp=xp)
    return _filled(problem, x, weight, bias, xp=xp)


@public
def local_conv_backward(
    dy: ArrayT,
    x: ArrayT,
    weight: ArrayT,
    *,
    needs: Sequence[bool] = (True, True, True),
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    padding_mode: str | Sequence[str] = "zeros",
    padding_value: complex = 0.0,
    channel_axis: int = 1,
    dtype: Any = None,
) -> ConvGradients[ArrayT]:
    """Carry the gradient of `local_conv`'s output back to its input, weight and bias.

    Parameters
    ----------
    dy : array, shape (batch, out_channels, *out)
        Gradient of a real number, the loss say, with respect to the output; in its shape and dtype.
    x, weight : array
        What `local_conv` was given; one library and device with `dy`.
    needs : sequence of three bool, default (True, True, True)
        Which of `dx`, `dweight` and `dbias` to compute.
    stride, padding, dilation, groups, padding_mode, padding_value, channel_axis, dtype
        What `local_conv` was given.

    Returns
    -------
    ConvGradients
        The named tuple ``(dx, dweight, dbias)``, None where not needed.

    Raises
    ------
    TypeError, ValueError
        As `local_conv` does, and if `dy` is not like its result.

    See Also
    --------
    conv_backward : With the notes on complex numbers and the source.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import local_conv_backward
    >>> x = np.asarray([[[1.0, 2.0, 4.0, 8.0]]])
    >>> weight = np.asarray([[[[1.0, 1.0, 0.0], [0.0, 1.0, 2.0]]]])
    >>> dx, dweight, dbias = local_conv_backward(np.ones((1, 1, 3)), x, weight)
    >>> dx
    array([[[1., 1., 1., 2.]]])
    >>> dweight
    array([[[[1., 2., 4.],
             [2., 4., 8.]]]])
    >>> dbias
    array([3.])
    """
    xp = agree(dy=dy, x=x, weight=weight)
    check_needs("dx, dweight and dbias", needs)
    params = _params(stride, padding, dilation, groups, padding_mode, padding_value, channel_axis, dtype)
    problem = _problem(x, weight, params, None, xp=xp)
    check_like("dy", dy, problem.shape, problem.dtypes.y)
    return ConvGradients(
        chunked_like(_filled(problem.with_slot("x"), dy, weight, xp=xp), x) if needs[0] else None,
        chunked_like(_filled(problem.with_slot("w"), dy, x, xp=xp), weight) if needs[1] else None,
        bias_grad(dy, problem, xp=xp) if needs[2] else None,
    )


@public
def local_conv_transpose(
    x: ArrayT,
    weight: ArrayT,
    bias: ArrayT | None = None,
    *,
    output_padding: PerAxis = 0,
    output_size: PerAxis | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    padding_mode: str | Sequence[str] = "zeros",
    padding_value: complex = 0.0,
    channel_axis: int = 1,
    dtype: Any = None,
) -> ArrayT:
    """Convolve the transposed way with a filter for each place of the input.

    ``y[n, o, stride*j + dilation*t - lo] = bias[o] + sum over c, j, t of x[n, c, j] * weight[c, o, t, j]``: the adjoint
    (without conjugation) of `local_conv` with the same weight and parameters.

    Parameters
    ----------
    x : array, shape (batch, in_channels, *spatial)
        The input, as for `conv`.
    weight : array, shape (in_channels, out_channels / groups, *kernel, *spatial)
        The filters: on the last axes one for each position of the input.
    bias : array, shape (out_channels,), optional
        Added to each output channel.
    output_padding, output_size
        As for `conv_transpose`.
    stride, padding, dilation, groups, padding_mode, padding_value, channel_axis, dtype
        As for `conv_transpose`.

    Returns
    -------
    array, shape (batch, out_channels, *out)
        The sizes are `conv_transpose_output_size`'s.

    Raises
    ------
    TypeError, ValueError
        As `conv_transpose` and `local_conv` do.

    See Also
    --------
    local_conv : With the notes and the source.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import local_conv_transpose
    >>> x = np.asarray([[[1.0, 2.0]]])
    >>> weight = np.asarray([[[[1.0, 10.0], [2.0, 20.0]]]])  # (in, out, 2 taps, 2 positions)
    >>> local_conv_transpose(x, weight, stride=2)
    array([[[ 1.,  2., 20., 40.]]])
    """
    xp = agree(x=x, weight=weight, bias=bias)
    params = _params(stride, padding, dilation, groups, padding_mode, padding_value, channel_axis, dtype)
    problem = _problem(x, weight, params, (output_padding, output_size), xp=xp)
    if bias is not None:
        check_bias("bias", bias, problem, xp=xp)
    return _filled(problem, x, weight, bias, xp=xp)


def _params(*values: Any) -> dict[str, Any]:
    names = ("stride", "padding", "dilation", "groups", "padding_mode", "padding_value", "channel_axis", "dtype")
    return dict(zip(names, values, strict=True))


class _OneFilter(NamedTuple):
    """What a problem knows of the weight of one place."""

    shape: tuple[int, ...]
    dtype: Any


def _problem(x: ArrayT, weight: ArrayT, params: dict[str, Any], transposed: Transposed, *, xp: Namespace) -> Problem:
    """The convolution by the weight of one place, which has the shapes, dtypes and checks of that by all."""
    ndim, odd = divmod(weight.ndim - 2, 2)
    if ndim < 0 or odd:
        axes = "out channels, in channels / groups, *kernel, *out positions"
        if transposed is not None:
            axes = "in channels, out channels / groups, *kernel, *in positions"
        raise ValueError(f"weight must have an even number of axes, at least 2 ({axes}): got {weight.ndim}")
    of_one = _OneFilter(tuple(weight.shape[: 2 + ndim]), weight.dtype)
    problem = Problem.of(x, of_one, params, transposed, xp=xp)
    check_shape("weight", weight.shape, (*of_one.shape, *problem.convolution.geometry.out))
    return problem


def _filled(problem: Problem, a: ArrayT, b: ArrayT, bias: ArrayT | None = None, *, xp: Namespace) -> ArrayT:
    """What fills the slot of T, in which w[g, o, c, t] is a w[g, o, c, t, j] now: j is one more index of a group."""
    slot, geometry = problem.slot, problem.convolution.geometry
    (samples, groups, outputs, inputs), places = geometry.counts, geometry.positions
    convolution = Convolution(samples, places * groups, outputs, inputs * geometry.taps, ())
    columns = replace(problem, convolution=convolution, layout=Layout((samples,), 1, 0))
    if slot == "x" and is_floating(problem.dtype, xp=xp) and not problem.dtypes.mixed:
        columns = columns.with_dtype(problem.dtypes.compute)  # rounded once, after the fold
    slots = (problem.with_slot(name).slot for name in "yxw" if name != problem.result)
    a, b = (_to_columns(problem, at, one, xp=xp) for at, one in zip(slots, together(a, b, xp=xp), strict=True))
    if bias is not None:
        (bias,) = together(bias, xp=xp)
    if slot == "x":
        out = _from_columns(problem, dispatch(columns, a, b, xp=xp), xp=xp)
        if bias is not None:
            out = xp.add(out, per_channel(convert(bias, out.dtype, xp=xp), out.ndim, xp=xp))
    else:
        if bias is not None:
            bias = xp.reshape(xp.broadcast_to(bias, (places, problem.out_channels)), (-1,))
        out = _from_columns(problem, dispatch(columns, a, b, bias, xp=xp), xp=xp)
    filled: ArrayT = convert(out, problem.dtype, xp=xp)
    return filled if slot == "w" else problem.layout.outward(filled, xp=xp)


def _to_columns(problem: Problem, slot: str, array: ArrayT, *, xp: Namespace) -> ArrayT:
    """What stands in a slot of T, as the convolution without spatial axes takes it."""
    geometry = problem.convolution.geometry
    outputs, inputs, *_ = geometry.w_shape
    if slot == "w":  # (g*o, c, *kernel, *out) -> (j, g*o, c*t)
        array = xp.permute_dims(xp.reshape(array, (outputs, inputs * geometry.taps, geometry.positions)), (2, 0, 1))
        return xp.reshape(array, (geometry.positions * outputs, inputs * geometry.taps))
    array = problem.layout.inward(array, xp=xp)
    if slot == "x":
        array = unfold(array, geometry.kernel, **_walk(problem))
    channels = outputs if slot == "y" else geometry.groups * inputs * geometry.taps
    array = xp.permute_dims(xp.reshape(array, (geometry.samples, channels, geometry.positions)), (0, 2, 1))
    return xp.reshape(array, (geometry.samples, geometry.positions * channels))  # (n, j*g*o) or (n, j*g*c*t)


def _from_columns(problem: Problem, out: ArrayT, *, xp: Namespace) -> ArrayT:
    """The adjoint: what fills the slot of T."""
    slot, geometry = problem.slot, problem.convolution.geometry
    outputs, inputs, *_ = geometry.w_shape
    if slot == "w":
        out = xp.permute_dims(xp.reshape(out, (geometry.positions, outputs, inputs * geometry.taps)), (1, 2, 0))
        return xp.reshape(out, (*geometry.w_shape, *geometry.out))
    channels = outputs if slot == "y" else geometry.groups * inputs * geometry.taps
    out = xp.permute_dims(xp.reshape(out, (geometry.samples, geometry.positions, channels)), (0, 2, 1))
    if slot == "y":
        return xp.reshape(out, geometry.y_shape)
    folded: ArrayT = fold(out, problem.convolution.shape("x")[2:], geometry.kernel, **_walk(problem))
    return folded


def _walk(problem: Problem) -> dict[str, Any]:
    """How windows lie, as `unfold` and `fold` take it."""
    rows = problem.convolution.rows
    return {
        "stride": tuple(row.axis.stride for row in rows),
        "padding": tuple((row.axis.lo, row.axis.hi) for row in rows),
        "dilation": tuple(row.axis.dilation for row in rows),
        "padding_mode": tuple(row.mode for row in rows),
        "padding_value": next((row.value for row in rows if row.value), 0.0),
    }
