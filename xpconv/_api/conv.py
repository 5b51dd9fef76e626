"""The public functions of convolution; those of the transposed one are in `conv_transpose.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, Unpack

from .._arrays.namespace import agree
from .._arrays.typing import ArrayT
from .._engines.dispatch import dispatch
from .._engines.entry import spelled
from .._engines.problem import Problem
from .._spec.convolution import Convolution
from .._spec.geometry import PerAxis, is_listing, per_axis
from .._spec.parameters import ConvParameters, Parameters
from .calls import backward, double_backward, forward, jvp

__all__ = [
    "ConvDoubleGradients",
    "ConvGradients",
    "conv",
    "conv_backward",
    "conv_double_backward",
    "conv_input_grad",
    "conv_jvp",
    "conv_output_size",
    "conv_weight_grad",
]


class ConvGradients(NamedTuple, Generic[ArrayT]):
    """What `conv_backward` and `conv_transpose_backward` return: a gradient for each operand, None where not needed.

    Attributes
    ----------
    dx : array or None
        Gradient of the input, in the input's shape and dtype.
    dweight : array or None
        Gradient of the weight, in the weight's shape and dtype.
    dbias : array or None
        Gradient of the bias, shape (out_channels,), in the output's dtype; with `per_sample` (batch, out_channels), of
        which the sum over samples is the gradient of a bias that they share.
    """

    dx: ArrayT | None
    dweight: ArrayT | None
    dbias: ArrayT | None


class ConvDoubleGradients(NamedTuple, Generic[ArrayT]):
    """What `conv_double_backward` returns: a gradient for each operand of `conv_backward`; None for nothing but zeros.

    Attributes
    ----------
    ddy : array or None
        Gradient of the output's gradient, in its shape.
    dx : array or None
        Gradient of the input, in its shape; None without `ddweight`.
    dweight : array or None
        Gradient of the weight, in its shape; None without `ddx`.
    """

    ddy: ArrayT | None
    dx: ArrayT | None
    dweight: ArrayT | None


@spelled
def conv(x: ArrayT, weight: ArrayT, bias: ArrayT | None = None, **parameters: Unpack[ConvParameters]) -> ArrayT:
    """Convolve (strictly, cross-correlate: the kernel is not flipped) over any number of spatial axes.

    ``y[n, o, j] = bias[o] + sum over c, t of x[n, c, stride*j + dilation*t - lo] * weight[o, c, t]``, with the sum
    over the channels `c` of the group that `o` belongs to.

    Parameters
    ----------
    x : array, shape (batch, in_channels, *spatial)
        The input: real or complex numbers of 16 (real only), 32 or 64 bits, or integers. bfloat16 is the library's own,
        or that of the package ml_dtypes in arrays of NumPy and CuPy. There may be no batch axis, or several. Arrays of
        NumPy may be in either byte order; results are in the processor's.
    weight : array, shape (out_channels, in_channels / groups, *kernel)
        The filters. Its rank says how many spatial axes there are, 0 included: with 2 axes it is a matrix, and the
        convolution a matrix product. An image and a kernel without channels are for `convolve`.
    bias : array, shape (out_channels,), optional
        Added to each output channel; in the dtype of `x`, of `weight` or of the result, or a narrower one. All arrays
        share one library and device. Of two dtypes the result has the wider, as in the Array API standard: float64 for
        float32 and float64, complex128 for float64 and complex64, int16 for uint8 and int8.
    stride : int or sequence of int, default 1
        Step from window to window, one for all spatial axes or one for each.
    padding : int, sequence of int or (lo, hi) pairs, array of such, or str, default 0
        How much is added before and after each spatial axis; a negative number crops. ``"valid"`` adds nothing.
        ``"same"`` adds as little as is needed for ``ceil(size / stride)`` outputs at any stride, an odd element at the
        end; ``"same_lower"`` adds that at the start. ``"full"`` makes an output wherever a tap meets the input.
        ``"causal"`` lets no output read what comes after it, except through a border that repeats it.
    dilation : int or sequence of int, default 1
        Step from tap to tap within a window.
    groups : int, default 1
        Splits the channels into groups that do not see each other. ``groups=in_channels`` is a depthwise convolution.
    padding_mode : str or sequence of str, default "zeros"
        What is added, on all spatial axes or on each: ``"zeros"``; ``"reflect"``, the input mirrored at its outermost
        elements (repeatedly, if need be); ``"symmetric"``, mirrored at its edges, so that the outermost elements are
        repeated, too; ``"replicate"``, its outermost elements; ``"circular"``, the input again; ``"constant"``, the
        number `padding_value`. Beyond an axis of zeros all is zero, in the corners, too.
    padding_value : number, default 0.0
        What ``padding_mode="constant"`` adds: a number that the dtype of `x` has. It does not change with `x`.
    input_dilation : int or sequence of int, default 1
        Step from input to input: the input is convolved as if ``input_dilation - 1`` zeros stood between each two
        neighbours, and padded after that. These zeros are neither stored nor multiplied.
    flip : bool, default False
        Whether the kernel is flipped on all axes: then it is a convolution in the strict sense.
    channel_axis : int, default 1
        Where `x`, and the result, have their channels: the axis of an array with one batch axis. -1 is the last; 0 is
        in front of the batch. The result is a view of an array with the channels in front of the spatial axes, which
        the next convolution takes as it is.
    dtype : dtype, optional
        That of the result, if it is wider than those of the operands: int32 for int8 numbers. With it integers go with
        real or complex numbers: float32 for a picture of uint8 and a kernel of float32. They are converted as `astype`
        does it, part by part.
    per_sample : bool, default False
        Whether each sample has filters of its own: `weight` is (batch, out_channels, in_channels / groups, *kernel),
        `bias` is (out_channels,) or (batch, out_channels), and `x` has one batch axis. The samples are computed as
        groups, which copies neither `x` nor `weight`.

    Returns
    -------
    array, shape (batch, out_channels, *out)
        With the library and device of `x`, its batch axes and its channel axis; the sizes are `conv_output_size`'s.
        It is complex if an operand is.

    Raises
    ------
    TypeError
        If an argument is no array of a dtype as above, a parameter of another kind, or libraries, dtypes or devices
        do not go together.
    ValueError
        If the shapes do not fit one another.

    See Also
    --------
    conv_backward : The gradients of all three operands.
    conv_transpose : The transposed convolution.

    Notes
    -----
    ``batch * out_channels * prod(out) * in_channels / groups * prod(kernel)`` multiplications, made by matrix
    products over windows [1]_, or fewer where an algorithm saves some: `explain` says which is chosen, `options`
    changes it. It works part by part, within the workspace that `options` sets.

    Numbers of 16 bits are added and multiplied in float32 and rounded once, at the end. Integers are exact, and wrap
    around in the dtype of the result. Complex numbers are multiplied by the library's own product of complex matrices,
    with four real products each; where one of `x` and `weight` is real, it is not promoted, and there are two.

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
    >>> conv(ramp, difference, stride=2, padding="causal", padding_mode="replicate")
    array([[[0., 3., 7.]]])
    >>> conv(ramp, difference, padding=1, padding_mode="constant", padding_value=7.0)
    array([[[-7.,  1.,  3.,  5.,  7., -9.]]])
    >>> conv(np.full((1, 1, 2), 100, dtype="int8"), np.full((1, 1, 2), 100, dtype="int8"), dtype="int32")
    array([[[20000]]], dtype=int32)
    """
    return forward(x, weight, bias, parameters)


@spelled
def conv_backward(
    dy: ArrayT,
    x: ArrayT,
    weight: ArrayT,
    *,
    needs: Sequence[bool] = (True, True, True),
    **parameters: Unpack[ConvParameters],
) -> ConvGradients[ArrayT]:
    """Carry the gradient of `conv`'s output back to its input, weight and bias.

    Parameters
    ----------
    dy : array, shape (batch, out_channels, *out)
        Gradient of a real number, the loss say, with respect to the output; in its shape and dtype.
    x, weight : array
        What `conv` was given; one library and device with `dy`.
    needs : sequence of three bool, default (True, True, True)
        Which of `dx`, `dweight` and `dbias` to compute.
    **parameters
        What `conv` was given.

    Returns
    -------
    ConvGradients
        The named tuple ``(dx, dweight, dbias)``, None where not needed.

    Raises
    ------
    TypeError, ValueError
        As `conv` does, and if `dy` is not like its result.

    See Also
    --------
    conv_input_grad, conv_weight_grad : One gradient, without the operand that it does not depend on.
    conv_double_backward : The gradients of these gradients.

    Notes
    -----
    The gradients are the adjoints of `conv` in each operand: ``<conv(x, w), dy> == <x, dx> == <w, dw>``. For complex
    numbers the inner product conjugates its second argument, so the gradients are the Hermitian adjoints, as in
    torch; those of a real operand are real. Each has the dtype of its operand; that of an integer one in a result of
    real or complex numbers is real, in the result's precision. A constant border has no gradient: it is seen by
    `dweight`, and to `dx` it is zeros. `dx` and `dweight` take as many multiplications as `conv` each. An early
    account of the gradients of a convolution is [1]_.

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
    return ConvGradients(*backward((dy, x, weight), parameters, needs))


@spelled
def conv_input_grad(dy: ArrayT, weight: ArrayT, *, input_size: PerAxis, **parameters: Unpack[ConvParameters]) -> ArrayT:
    """The gradient of `conv` with respect to its input, which needs no input but its size.

    Parameters
    ----------
    dy : array, shape (batch, out_channels, *out)
        Gradient with respect to the output.
    weight : array, shape (out_channels, in_channels / groups, *kernel)
        What `conv` was given; one library and device with `dy`.
    input_size : int or sequence of int
        The spatial sizes of the input, one for all axes or one for each. With a stride, several fit one output.
    **parameters
        What `conv` was given; but `dtype` is that of `dx`: by default the wider of the two operands', and a real one
        for the gradient of a real input where they are complex.

    Returns
    -------
    array, shape (batch, in_channels, *input_size)
        The gradient with respect to the input.

    Raises
    ------
    TypeError, ValueError
        As `conv_backward` does.

    See Also
    --------
    conv_backward : All gradients, with the notes on them and the source.
    conv_transpose : The same without conjugation, and with a bias.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import conv_input_grad
    >>> conv_input_grad(np.ones((1, 1, 2)), np.asarray([[[1.0, 10.0]]]), input_size=5, stride=2)
    array([[[ 1., 10.,  1., 10.,  0.]]])
    """
    xp = agree(dy=dy, weight=weight)
    problem = Problem.of_input_grad(dy, weight, input_size, parameters, xp=xp)
    dx: ArrayT = dispatch(problem, dy, weight, xp=xp)
    return dx


@spelled
def conv_weight_grad(
    dy: ArrayT, x: ArrayT, *, kernel_size: Sequence[int], **parameters: Unpack[ConvParameters]
) -> ArrayT:
    """The gradient of `conv` with respect to its weight, which needs no weight but its kernel's size.

    Parameters
    ----------
    dy : array, shape (batch, out_channels, *out)
        Gradient with respect to the output.
    x : array, shape (batch, in_channels, *spatial)
        What `conv` was given; one library and device with `dy`.
    kernel_size : sequence of int
        The sizes of the kernel, one per spatial axis. With a stride, several fit one output.
    **parameters
        What `conv` was given; but `dtype` is that of `dweight`: by default the wider of the two operands', and a real
        one for the gradient of a real weight where they are complex.

    Returns
    -------
    array, shape (out_channels, in_channels / groups, *kernel_size)
        With `per_sample` there is a gradient for each sample, on an axis in front, as differential privacy needs them
        [1]_. Their sum is the gradient without it.

    Raises
    ------
    TypeError, ValueError
        As `conv_backward` does.

    See Also
    --------
    conv_backward : All gradients, with the notes on them and the source.

    References
    ----------
    .. [1] G. Rochette, A. Manoel, E. W. Tramel, "Efficient Per-Example Gradient Computations in Convolutional Neural
       Networks", arXiv:1912.06015, 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import conv_weight_grad
    >>> conv_weight_grad(np.ones((1, 1, 3)), np.asarray([[[1.0, 2.0, 3.0, 4.0]]]), kernel_size=(2,))
    array([[[6., 9.]]])
    >>> x = np.asarray([[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]])
    >>> conv_weight_grad(np.ones((2, 1, 2)), x, kernel_size=(2,), per_sample=True)
    array([[[[ 3.,  5.]]],
    <BLANKLINE>
    <BLANKLINE>
           [[[ 9., 11.]]]])
    """
    xp = agree(dy=dy, x=x)
    problem = Problem.of_weight_grad(dy, x, kernel_size, parameters, xp=xp)
    dweight: ArrayT = dispatch(problem, dy, x, xp=xp)
    return dweight


@spelled
def conv_jvp(
    tx: ArrayT | None,
    tweight: ArrayT | None,
    tbias: ArrayT | None,
    x: ArrayT,
    weight: ArrayT,
    **parameters: Unpack[ConvParameters],
) -> ArrayT:
    """Carry tangents of `conv`'s operands forward to its output (forward-mode differentiation).

    Parameters
    ----------
    tx, tweight, tbias : array or None
        How the input, the weight and the bias change, each in the operand's shape and in the dtype of its gradient;
        None for not at all.
    x, weight : array
        What `conv` was given.
    **parameters
        What `conv` was given.

    Returns
    -------
    array, shape (batch, out_channels, *out)
        How the output changes.

    Raises
    ------
    TypeError, ValueError
        As `conv` does, and if a tangent is not like its operand.

    See Also
    --------
    conv_backward : The other direction.

    Notes
    -----
    `conv` is linear in each operand, but for a constant border, which does not change. So this is
    ``conv(tx, weight, tbias) + conv(x, tweight)``, the first without that border: the Jacobian-vector product [1]_ at
    the cost of two convolutions.

    References
    ----------
    .. [1] A. Griewank, A. Walther, "Evaluating Derivatives", SIAM, 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import conv_jvp
    >>> x, weight = np.asarray([[[1.0, 2.0, 4.0]]]), np.asarray([[[1.0, 1.0]]])
    >>> conv_jvp(None, np.asarray([[[0.0, 1.0]]]), None, x, weight)
    array([[[2., 4.]]])
    """
    return jvp({"tx": tx, "tweight": tweight, "tbias": tbias}, x, weight, parameters)


@spelled
def conv_double_backward(
    ddx: ArrayT | None,
    ddweight: ArrayT | None,
    ddbias: ArrayT | None,
    dy: ArrayT,
    x: ArrayT,
    weight: ArrayT,
    *,
    needs: Sequence[bool] = (True, True, True),
    **parameters: Unpack[ConvParameters],
) -> ConvDoubleGradients[ArrayT]:
    """Carry gradients of `conv_backward`'s results back to its operands: second derivatives.

    Parameters
    ----------
    ddx, ddweight, ddbias : array or None
        Gradients of a real number with respect to `dx`, `dweight` and `dbias`, in their shapes; None for zeros.
    dy, x, weight : array
        What `conv_backward` was given.
    needs : sequence of three bool, default (True, True, True)
        Which of `ddy`, `dx` and `dweight` to compute.
    **parameters
        What `conv` was given.

    Returns
    -------
    ConvDoubleGradients
        The named tuple ``(ddy, dx, dweight)``, None where not needed, or where it is nothing but zeros.

    Raises
    ------
    TypeError, ValueError
        As `conv_backward` does, and if a gradient is not like what it belongs to.

    See Also
    --------
    conv_backward : The gradients whose gradients these are.
    conv_jvp : The other direction.

    Notes
    -----
    The same trilinear sum with other arguments: ``ddy = conv_jvp(ddx, ddweight, ddbias, x, weight)``,
    `dx` is the input gradient of `dy` and `ddweight`, `dweight` the weight gradient of `dy` and `ddx` [1]_.

    References
    ----------
    .. [1] B. A. Pearlmutter, "Fast Exact Multiplication by the Hessian", Neural Computation 6(1), 1994.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import conv_double_backward
    >>> x, weight, dy = np.asarray([[[1.0, 2.0, 4.0]]]), np.asarray([[[1.0, 1.0]]]), np.ones((1, 1, 2))
    >>> ddy, dx, dweight = conv_double_backward(np.ones((1, 1, 3)), None, None, dy, x, weight)
    >>> ddy, dx, dweight
    (array([[[2., 2.]]]), None, array([[[2., 2.]]]))
    """
    given = {"ddx": ddx, "ddweight": ddweight, "ddbias": ddbias}
    gradients = double_backward(given, (dy, x, weight), parameters, needs)
    return ConvDoubleGradients(*gradients)


@spelled
def conv_output_size(
    input_size: PerAxis, kernel_size: PerAxis, **parameters: Unpack[ConvParameters]
) -> tuple[int, ...]:
    """The spatial sizes of `conv`'s output, from integers alone.

    Parameters
    ----------
    input_size : int or sequence of int
        The spatial sizes of the input; an integer is a single axis.
    kernel_size : int or sequence of int
        The sizes of the kernel, one for all axes or one for each.
    **parameters
        As for `conv`; sizes depend on `stride`, `padding`, `dilation` and `input_dilation`.

    Returns
    -------
    tuple of int
        ``(size + lo + hi - dilation * (kernel - 1) - 1) // stride + 1`` for each axis, with the size that the dilated
        input has: ``input_dilation * (size - 1) + 1``.

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
    return Convolution.of((1, None, *size), (1, 1, *kernel), Parameters.of(parameters)._replace(groups=1)).geometry.out
