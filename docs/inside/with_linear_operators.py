from math import prod

from scipy.sparse.linalg import LinearOperator

from xpconv import conv, conv_input_grad, conv_output_size


def convolution(weight, x_shape, **parameters):
    """SciPy's operator of `conv` on arrays of shape (channels, *spatial), which its solvers hand on flat."""
    size = x_shape[1:]
    y_shape = (weight.shape[0], *conv_output_size(size, weight.shape[2:], **parameters))
    return LinearOperator(
        (prod(y_shape), prod(x_shape)),
        lambda x: conv(x.reshape(x_shape), weight, **parameters).reshape(-1),
        lambda dy: conv_input_grad(dy.reshape(y_shape), weight, input_size=size, **parameters).reshape(-1),
        dtype=weight.dtype,
    )
