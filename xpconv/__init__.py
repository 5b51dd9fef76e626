"""Convolution, forward and backward, written once for every array library."""

from ._api.conv import (
    ConvDoubleGradients,
    ConvGradients,
    conv,
    conv_backward,
    conv_double_backward,
    conv_input_grad,
    conv_jvp,
    conv_output_size,
    conv_weight_grad,
)
from ._api.conv_transpose import (
    conv_transpose,
    conv_transpose_backward,
    conv_transpose_double_backward,
    conv_transpose_jvp,
    conv_transpose_output_size,
)
from ._api.explain import Contraction, Explanation, explain
from ._api.layers import (
    Conv,
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from ._api.local import local_conv, local_conv_backward, local_conv_transpose
from ._api.patches import fold, unfold
from ._api.signal import ConvolveGradients, convolve, convolve_backward, correlate, correlate_backward
from ._api.stream import conv_stream
from ._spec.options import options

__all__ = [
    "Contraction",
    "Conv",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvDoubleGradients",
    "ConvGradients",
    "ConvTranspose",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "ConvolveGradients",
    "Explanation",
    "__version__",
    "conv",
    "conv_backward",
    "conv_double_backward",
    "conv_input_grad",
    "conv_jvp",
    "conv_output_size",
    "conv_stream",
    "conv_transpose",
    "conv_transpose_backward",
    "conv_transpose_double_backward",
    "conv_transpose_jvp",
    "conv_transpose_output_size",
    "conv_weight_grad",
    "convolve",
    "convolve_backward",
    "correlate",
    "correlate_backward",
    "explain",
    "fold",
    "local_conv",
    "local_conv_backward",
    "local_conv_transpose",
    "options",
    "unfold",
]

__version__ = "0.2.0"
