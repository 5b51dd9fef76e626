"""Floor 4: the public functions.

Each takes the same route: namespace, geometry, algorithm, contraction. Padding and bias happen inside the contraction,
part by part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple

from . import _algorithms as algorithms
from ._geometry import Padding, PerAxis, check_shape, is_listing, parse, per_axis, spatial_axes
from ._namespace import agree
from ._options import current
from ._typing import ArrayT, Namespace

__all__ = [
    "ConvGradients",
    "backward",
    "batched",
    "conv",
    "conv_backward",
    "conv_input_grad",
    "conv_output_size",
    "conv_weight_grad",
    "forward",
    "spatial",
]


class ConvGradients(NamedTuple, Generic[ArrayT]):
    """What `conv_backward` returns: a gradient for each operand of `conv`, None where it was not needed.

    Attributes
    ----------
    dx : array or None
        Gradient of the input, in the input's shape.
    dweight : array or None
        Gradient of the weight, in the weight's shape.
    dbias : array or None
        Gradient of the bias, shape (out_channels,).
    """

    dx: ArrayT | None
    dweight: ArrayT | None
    dbias: ArrayT | None


def conv(
    x: ArrayT,
    weight: ArrayT,
    bias: ArrayT | None = None,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> ArrayT:
    """Convolve (strictly, cross-correlate: the kernel is not turned around) over any number of spatial axes.

    ``y[n, o, j] = bias[o] + sum over c, t of x[n, c, stride*j + dilation*t - lo] * weight[o, c, t]``, with the sum
    over the channels `c` of the group that `o` belongs to.

    Parameters
    ----------
    x : array, shape (batch, in_channels, *spatial) or (in_channels, *spatial)
        The input: float32, float64, complex64, complex128 or integers. Integers wrap around as the library's do.
    weight : array, shape (out_channels, in_channels / groups, *kernel)
        The filters. Its rank says how many spatial axes there are.
    bias : array, shape (out_channels,), optional
        Added to each output channel. All arrays share one library, dtype and device.
    stride : int or sequence of int, default 1
        Step from window to window, one for all spatial axes or one for each.
    padding : int, sequence of int or (lo, hi) pairs, or str, default 0
        Zeros before and after each spatial axis; a negative number crops. ``"valid"`` is none. ``"same"`` makes
        ``ceil(size / stride)`` outputs at any stride with as few zeros as that takes, the odd one at the end;
        ``"same_lower"`` puts the odd one at the start.
    dilation : int or sequence of int, default 1
        Step from tap to tap within a window.
    groups : int, default 1
        Splits the channels into groups that do not see each other. ``groups=in_channels`` is a depthwise convolution.

    Returns
    -------
    array, shape (batch, out_channels, *out) or (out_channels, *out)
        With the library, dtype and device of `x`; the sizes are `conv_output_size`'s.

    Raises
    ------
    TypeError
        If an argument is no array of a dtype as above, a parameter no integer, or libraries, dtypes or devices differ.
    ValueError
        If the shapes do not fit one another.

    See Also
    --------
    conv_backward : The gradients of all three operands.

    Notes
    -----
    ``batch * out_channels * prod(out) * in_channels / groups * prod(kernel)`` multiplications, made by matrix
    products over windows [1]_, or fewer where an algorithm saves some: `explain` says which is chosen, `options` has
    it otherwise. It works part by part, within the workspace that `options` sets.

    References
    ----------
    .. [1] K. Chellapilla, S. Puri, P. Simard, "High Performance Convolutional Neural Networks for Document
       Processing", Tenth International Workshop on Frontiers in Handwriting Recognition, 2006.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import conv
    >>> ramp = np.asarray([[[0.0, 1.0, 4.0, 9.0, 16.0]]])
    >>> difference = np.asarray([[[-1.0, 1.0]]])
    >>> conv(ramp, difference)
    array([[[1., 3., 5., 7.]]])
    >>> conv(ramp, difference, stride=2, padding=[(1, 0)])
    array([[[0., 3., 7.]]])
    """
    return forward(x, weight, bias, stride, padding, dilation, groups)


def forward(
    x: ArrayT,
    weight: ArrayT,
    bias: ArrayT | None,
    stride: PerAxis,
    padding: Padding,
    dilation: PerAxis,
    groups: int,
    kept: algorithms.Kept | None = None,
) -> ArrayT:
    """`conv`, for a layer too: what that keeps of its filters is used, and filled."""
    xp = agree(x=x, weight=weight, bias=bias)
    samples = batched("x", x, spatial(weight), xp=xp)
    geometry = parse(samples.shape, weight.shape, stride, padding, dilation, groups)
    if bias is not None:
        check_shape("bias", bias.shape, weight.shape[:1])
    y = algorithms.forward(samples, weight, bias, geometry, current(), kept, xp=xp)
    return _as_given(y, x, xp=xp)


def conv_backward(
    dy: ArrayT,
    x: ArrayT,
    weight: ArrayT,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    needs: Sequence[bool] = (True, True, True),
) -> ConvGradients[ArrayT]:
    """Carry the gradient of `conv`'s output back to its input, weight and bias.

    Parameters
    ----------
    dy : array, shape (batch, out_channels, *out) or (out_channels, *out)
        Gradient of a real number, the loss say, with respect to the output.
    x, weight : array
        What `conv` was given; one library, dtype and device with `dy`.
    stride, padding, dilation, groups
        What `conv` was given.
    needs : sequence of three bool, default (True, True, True)
        Which of `dx`, `dweight` and `dbias` to compute.

    Returns
    -------
    ConvGradients
        The named tuple ``(dx, dweight, dbias)``, None where not needed.

    Raises
    ------
    TypeError
        If an argument is no array of a dtype as above, a parameter no integer, or libraries, dtypes or devices differ.
    ValueError
        If the shapes do not fit one another.

    See Also
    --------
    conv_input_grad, conv_weight_grad : One gradient, without the operand that it does not depend on.

    Notes
    -----
    The gradients are the adjoints of `conv` in each operand: ``<conv(x, w), dy> == <x, dx> == <w, dw>``. For complex
    numbers the inner product conjugates its second argument, so the gradients are the Hermitian adjoints, as in
    torch. `dx` and `dweight` take as many multiplications as `conv` each. Of a convolution's gradients there is an
    early account in [1]_.

    References
    ----------
    .. [1] Y. LeCun et al., "Backpropagation Applied to Handwritten Zip Code Recognition", Neural Computation 1(4),
       1989.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import conv_backward
    >>> ramp = np.asarray([[[0.0, 1.0, 4.0, 9.0, 16.0]]])
    >>> difference = np.asarray([[[-1.0, 1.0]]])
    >>> dx, dweight, dbias = conv_backward(np.ones((1, 1, 4)), ramp, difference)
    >>> dx
    array([[[-1.,  0.,  0.,  0.,  1.]]])
    >>> dweight
    array([[[14., 30.]]])
    >>> dbias
    array([4.])
    """
    return backward(dy, x, weight, stride, padding, dilation, groups, needs)


def backward(
    dy: ArrayT,
    x: ArrayT,
    weight: ArrayT,
    stride: PerAxis,
    padding: Padding,
    dilation: PerAxis,
    groups: int,
    needs: Sequence[bool],
    kept: algorithms.Kept | None = None,
) -> ConvGradients[ArrayT]:
    """`conv_backward`, for a layer too."""
    xp = agree(dy=dy, x=x, weight=weight)
    if not isinstance(needs, Sequence) or [type(need) for need in needs] != [bool] * 3:
        raise TypeError(f"needs must be three bools, for dx, dweight and dbias: got {needs!r}")
    samples = batched("x", x, spatial(weight), xp=xp)
    geometry = parse(samples.shape, weight.shape, stride, padding, dilation, groups)
    check_shape("dy", dy.shape, geometry.y_shape[-x.ndim :])
    dy = batched("dy", dy, spatial(weight), xp=xp)
    options = current()
    for slot, need in zip("xw", needs, strict=False):
        if need:
            algorithms.chosen(dy, geometry, slot, options, xp=xp)  # a method that cannot do it says so before any work
    dx = dweight = dbias = None
    if needs[0]:
        dx = _as_given(algorithms.input_grad(dy, weight, geometry, options, kept, xp=xp), x, xp=xp)
    if needs[1]:
        dweight = algorithms.weight_grad(dy, samples, geometry, options, xp=xp)
    if needs[2]:
        dbias = xp.astype(xp.sum(dy, axis=(0, *range(2, dy.ndim))), dy.dtype)  # sums of integers come wider
    return ConvGradients(dx, dweight, dbias)


def conv_input_grad(
    dy: ArrayT,
    weight: ArrayT,
    *,
    input_size: PerAxis,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> ArrayT:
    """The gradient of `conv` with respect to its input, which needs no input but its size.

    Parameters
    ----------
    dy : array, shape (batch, out_channels, *out) or (out_channels, *out)
        Gradient with respect to the output.
    weight : array, shape (out_channels, in_channels / groups, *kernel)
        What `conv` was given; one library, dtype and device with `dy`.
    input_size : int or sequence of int
        The spatial sizes of the input, one for all axes or one for each. With a stride, several fit one output.
    stride, padding, dilation, groups
        What `conv` was given.

    Returns
    -------
    array, shape (batch, in_channels, *input_size) or (in_channels, *input_size)

    Raises
    ------
    TypeError
        If an argument is no array of a dtype as above, a parameter no integer, or libraries, dtypes or devices differ.
    ValueError
        If the shapes do not fit one another.

    See Also
    --------
    conv_backward : All gradients, with the notes on them and the source.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import conv_input_grad
    >>> conv_input_grad(np.ones((1, 1, 2)), np.asarray([[[1.0, 10.0]]]), input_size=5, stride=2)
    array([[[ 1., 10.,  1., 10.,  0.]]])
    """
    xp = agree(dy=dy, weight=weight)
    ndim = spatial(weight)
    samples = batched("dy", dy, ndim, xp=xp)
    size = per_axis("input_size", input_size, ndim, 0)
    geometry = parse((samples.shape[0], None, *size), weight.shape, stride, padding, dilation, groups)
    check_shape("dy", dy.shape, geometry.y_shape[-dy.ndim :])
    dx = algorithms.input_grad(samples, weight, geometry, current(), xp=xp)
    return _as_given(dx, dy, xp=xp)


def conv_weight_grad(
    dy: ArrayT,
    x: ArrayT,
    *,
    kernel_size: Sequence[int],
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> ArrayT:
    """The gradient of `conv` with respect to its weight, which needs no weight but its kernel's size.

    Parameters
    ----------
    dy : array, shape (batch, out_channels, *out) or (out_channels, *out)
        Gradient with respect to the output.
    x : array, shape (batch, in_channels, *spatial) or (in_channels, *spatial)
        What `conv` was given; one library, dtype and device with `dy`.
    kernel_size : sequence of int
        The sizes of the kernel, one per spatial axis. With a stride, several fit one output.
    stride, padding, dilation, groups
        What `conv` was given.

    Returns
    -------
    array, shape (out_channels, in_channels / groups, *kernel_size)

    Raises
    ------
    TypeError
        If an argument is no array of a dtype as above, a parameter no integer, or libraries, dtypes or devices differ.
    ValueError
        If the shapes do not fit one another.

    See Also
    --------
    conv_backward : All gradients, with the notes on them and the source.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import conv_weight_grad
    >>> conv_weight_grad(np.ones((1, 1, 3)), np.asarray([[[1.0, 2.0, 3.0, 4.0]]]), kernel_size=(2,))
    array([[[6., 9.]]])
    """
    xp = agree(dy=dy, x=x)
    kernel = per_axis("kernel_size", kernel_size, None, 1)
    samples = batched("x", x, len(kernel), xp=xp)
    grads = batched("dy", dy, len(kernel), xp=xp)
    geometry = parse(samples.shape, (grads.shape[1], None, *kernel), stride, padding, dilation, groups)
    check_shape("dy", dy.shape, geometry.y_shape[-x.ndim :])
    return algorithms.weight_grad(grads, samples, geometry, current(), xp=xp)


def conv_output_size(
    input_size: PerAxis,
    kernel_size: PerAxis,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
) -> tuple[int, ...]:
    """The spatial sizes of `conv`'s output, from integers alone.

    Parameters
    ----------
    input_size : int or sequence of int
        The spatial sizes of the input; an integer is a single axis.
    kernel_size : int or sequence of int
        The sizes of the kernel, one for all axes or one for each.
    stride, padding, dilation
        As for `conv`.

    Returns
    -------
    tuple of int
        ``(size + lo + hi - dilation * (kernel - 1) - 1) // stride + 1`` for each axis.

    Raises
    ------
    TypeError
        If a parameter is no integer.
    ValueError
        If there would be no output, or the numbers of axes differ.

    Examples
    --------
    >>> from xpconv import conv_output_size
    >>> conv_output_size((224, 224), 7, stride=2, padding=3)
    (112, 112)
    >>> conv_output_size((5, 6), (3, 2), stride=2, padding="same")
    (3, 3)
    """
    size = per_axis("input_size", input_size, None if is_listing(input_size) else 1, 0)
    kernel = per_axis("kernel_size", kernel_size, len(size), 1)
    return tuple(axis.out for axis in spatial_axes(size, kernel, stride, padding, dilation))


def spatial(weight: ArrayT) -> int:
    """The number of spatial axes."""
    if weight.ndim < 2:
        raise ValueError(
            f"weight must have at least 2 axes (out channels, in channels / groups, *kernel): got {weight.ndim}"
        )
    return weight.ndim - 2


def batched(name: str, array: ArrayT, ndim: int, *, xp: Namespace) -> ArrayT:
    """An array of (channels, *spatial) as a batch of one."""
    if array.ndim == ndim + 1:
        return xp.expand_dims(array, axis=0)
    if array.ndim != ndim + 2:
        raise ValueError(
            f"{name} must have {ndim + 2} axes (batch, channels, {ndim} spatial), or {ndim + 1} without the batch: "
            f"got {array.ndim}"
        )
    return array


def _as_given(result: ArrayT, operand: ArrayT, *, xp: Namespace) -> ArrayT:
    """With a batch axis only where the operand came with one."""
    return result if result.ndim == operand.ndim else xp.squeeze(result, axis=0)
