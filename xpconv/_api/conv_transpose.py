"""The public functions of the transposed convolution: the same sum, with the slots of input and output exchanged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from .._arrays.typing import ArrayT
from .._engines.entry import spelled
from .._spec.convolution import Convolution
from .._spec.geometry import PerAxis, is_listing, per_axis
from .._spec.parameters import ConvParameters, Parameters
from .calls import backward, double_backward, forward, jvp
from .conv import ConvDoubleGradients, ConvGradients

__all__ = [
    "conv_transpose",
    "conv_transpose_backward",
    "conv_transpose_double_backward",
    "conv_transpose_jvp",
    "conv_transpose_output_size",
]


@spelled
def conv_transpose(
    x: ArrayT,
    weight: ArrayT,
    bias: ArrayT | None = None,
    *,
    output_padding: PerAxis = 0,
    output_size: PerAxis | None = None,
    **parameters: Unpack[ConvParameters],
) -> ArrayT:
    """Convolve the transposed way: what `conv` gathers from the input, this scatters to the output.

    ``y[n, o, stride*j + dilation*t - lo] = bias[o] + sum over c, j, t of x[n, c, j] * weight[c, o, t]``: the adjoint
    (without conjugation) of `conv` with the same weight and parameters.

    Parameters
    ----------
    x : array, shape (batch, in_channels, *spatial)
        The input, as for `conv`.
    weight : array, shape (in_channels, out_channels / groups, *kernel)
        The filters; with `per_sample` there is an axis of samples in front.
    bias : array, shape (out_channels,), optional
        Added to each output channel.
    output_padding : int or sequence of int, default 0
        How many elements are added to the end of the shortest possible output: `conv` takes several sizes to the size
        of `x`, and this chooses one of them. Less than the stride or the dilation.
    output_size : int or sequence of int, optional
        The spatial sizes of the output instead.
    **parameters
        As for `conv`, for the convolution that this is the transpose of: `padding` crops the output, and a
        `padding_mode` sums the elements that it would repeat. A constant border repeats none, so that ``"constant"`` is
        the same as ``"zeros"`` here, whatever its value. With ``padding="same"`` the output is `stride` times as large
        as the input, unless an output size is given.

    Returns
    -------
    array, shape (batch, out_channels, *out)
        The sizes are `conv_transpose_output_size`'s.

    Raises
    ------
    TypeError, ValueError
        As `conv` does, and if there is no such output size.

    See Also
    --------
    conv : The convolution whose input gradient it is.
    conv_transpose_backward : The gradients of all three operands.

    Notes
    -----
    Not the inverse of `conv`, which the older name of deconvolution [1]_ suggests. It takes as many multiplications as
    the convolution that it is the transpose of.

    References
    ----------
    .. [1] M. D. Zeiler, D. Krishnan, G. W. Taylor, R. Fergus, "Deconvolutional Networks", CVPR, 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import conv_transpose
    >>> x, weight = np.asarray([[[1.0, 2.0]]]), np.asarray([[[1.0, 10.0, 100.0]]])
    >>> conv_transpose(x, weight, stride=2)
    array([[[  1.,  10., 102.,  20., 200.]]])
    >>> conv_transpose(x, weight, stride=2, output_size=6)
    array([[[  1.,  10., 102.,  20., 200.,   0.]]])
    >>> conv_transpose(x, weight, stride=2, padding=1, padding_mode="circular", output_padding=1)
    array([[[ 10., 102.,  20., 201.]]])
    """
    return forward(x, weight, bias, parameters, (output_padding, output_size))


@spelled
def conv_transpose_backward(
    dy: ArrayT,
    x: ArrayT,
    weight: ArrayT,
    *,
    needs: Sequence[bool] = (True, True, True),
    output_padding: PerAxis = 0,
    output_size: PerAxis | None = None,
    **parameters: Unpack[ConvParameters],
) -> ConvGradients[ArrayT]:
    """Carry the gradient of `conv_transpose`'s output back to its input, weight and bias.

    Parameters
    ----------
    dy : array, shape (batch, out_channels, *out)
        Gradient of a real number, the loss say, with respect to the output; in its shape and dtype.
    x, weight : array
        What `conv_transpose` was given; one library and device with `dy`.
    needs : sequence of three bool, default (True, True, True)
        Which of `dx`, `dweight` and `dbias` to compute.
    output_padding, output_size, **parameters
        What `conv_transpose` was given.

    Returns
    -------
    ConvGradients
        The named tuple ``(dx, dweight, dbias)``, None where not needed.

    Raises
    ------
    TypeError, ValueError
        As `conv_transpose` does, and if `dy` is not like its result.

    See Also
    --------
    conv_backward : With the notes and the source.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import conv_transpose_backward
    >>> x, weight = np.asarray([[[1.0, 2.0]]]), np.asarray([[[1.0, 10.0, 100.0]]])
    >>> dx, dweight, dbias = conv_transpose_backward(np.ones((1, 1, 5)), x, weight, stride=2)
    >>> dx, dweight, dbias
    (array([[[111., 111.]]]), array([[[3., 3., 3.]]]), array([5.]))
    """
    transposed = (output_padding, output_size)
    return ConvGradients(*backward((dy, x, weight), parameters, needs, transposed))


@spelled
def conv_transpose_jvp(
    tx: ArrayT | None,
    tweight: ArrayT | None,
    tbias: ArrayT | None,
    x: ArrayT,
    weight: ArrayT,
    *,
    output_padding: PerAxis = 0,
    output_size: PerAxis | None = None,
    **parameters: Unpack[ConvParameters],
) -> ArrayT:
    """Carry tangents of `conv_transpose`'s operands forward to its output.

    Parameters
    ----------
    tx, tweight, tbias : array or None
        How the input, the weight and the bias change, each in the operand's shape and dtype; None for not at all.
    x, weight : array
        What `conv_transpose` was given.
    output_padding, output_size, **parameters
        What `conv_transpose` was given.

    Returns
    -------
    array, shape (batch, out_channels, *out)
        How the output changes.

    Raises
    ------
    TypeError, ValueError
        As `conv_transpose` does, and if a tangent is not like its operand.

    See Also
    --------
    conv_jvp : With the notes and the source.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import conv_transpose_jvp
    >>> x, weight = np.asarray([[[1.0, 2.0]]]), np.asarray([[[1.0, 10.0]]])
    >>> conv_transpose_jvp(np.asarray([[[0.0, 1.0]]]), None, np.asarray([5.0]), x, weight)
    array([[[ 5.,  6., 15.]]])
    """
    given = {"tx": tx, "tweight": tweight, "tbias": tbias}
    return jvp(given, x, weight, parameters, (output_padding, output_size))


@spelled
def conv_transpose_double_backward(
    ddx: ArrayT | None,
    ddweight: ArrayT | None,
    ddbias: ArrayT | None,
    dy: ArrayT,
    x: ArrayT,
    weight: ArrayT,
    *,
    needs: Sequence[bool] = (True, True, True),
    output_padding: PerAxis = 0,
    output_size: PerAxis | None = None,
    **parameters: Unpack[ConvParameters],
) -> ConvDoubleGradients[ArrayT]:
    """Carry gradients of `conv_transpose_backward`'s results back to its operands.

    Parameters
    ----------
    ddx, ddweight, ddbias : array or None
        Gradients of a real number with respect to `dx`, `dweight` and `dbias`, in their shapes; None for zeros.
    dy, x, weight : array
        What `conv_transpose_backward` was given.
    needs : sequence of three bool, default (True, True, True)
        Which of `ddy`, `dx` and `dweight` to compute.
    output_padding, output_size, **parameters
        What `conv_transpose` was given.

    Returns
    -------
    ConvDoubleGradients
        The named tuple ``(ddy, dx, dweight)``, None where not needed, or where it is nothing but zeros.

    Raises
    ------
    TypeError, ValueError
        As `conv_transpose_backward` does, and if a gradient is not like what it belongs to.

    See Also
    --------
    conv_double_backward : With the notes and the source.

    Examples
    --------
    >>> import numpy as np
    >>> from xpconv import conv_transpose_double_backward
    >>> x, weight, dy = np.asarray([[[1.0, 2.0]]]), np.asarray([[[1.0, 10.0]]]), np.ones((1, 1, 3))
    >>> ddy, dx, dweight = conv_transpose_double_backward(None, np.ones((1, 1, 2)), None, dy, x, weight)
    >>> ddy, dx, dweight
    (array([[[1., 3., 2.]]]), array([[[2., 2.]]]), None)
    """
    given, transposed = {"ddx": ddx, "ddweight": ddweight, "ddbias": ddbias}, (output_padding, output_size)
    gradients = double_backward(given, (dy, x, weight), parameters, needs, transposed)
    return ConvDoubleGradients(*gradients)


@spelled
def conv_transpose_output_size(
    input_size: PerAxis,
    kernel_size: PerAxis,
    *,
    output_padding: PerAxis = 0,
    output_size: PerAxis | None = None,
    **parameters: Unpack[ConvParameters],
) -> tuple[int, ...]:
    """The spatial sizes of `conv_transpose`'s output, from integers alone.

    Parameters
    ----------
    input_size : int or sequence of int
        The spatial sizes of the input; an integer is a single axis.
    kernel_size : int or sequence of int
        The sizes of the kernel, one for all axes or one for each.
    output_padding, output_size, **parameters
        As for `conv_transpose`; sizes depend on `stride`, `padding`, `dilation` and `input_dilation`.

    Returns
    -------
    tuple of int
        ``stride * (size - 1) + dilation * (kernel - 1) + 1 - lo - hi + output_padding`` for each axis, or
        `output_size`, if it is possible. With an input dilation this is the size with zeros between the elements.

    Raises
    ------
    TypeError
        If a parameter is no integer.
    ValueError
        If there would be no output, or none of that size, or the numbers of axes differ.

    Examples
    --------
    >>> from xpconv import conv_transpose_output_size
    >>> conv_transpose_output_size((56, 56), 3, stride=2, padding=1, output_padding=1)
    (112, 112)
    >>> conv_transpose_output_size(5, 4, stride=2, padding="same")
    (10,)
    """
    size = per_axis("input_size", input_size, None if is_listing(input_size) else 1, 1)
    kernel = per_axis("kernel_size", kernel_size, len(size), 1)
    parsed = Parameters.of(parameters)._replace(groups=1)
    shapes = (1, None, *size), (1, 1, *kernel)
    return Convolution.of_transposed(*shapes, parsed, output_padding, output_size).shape("x")[2:]
