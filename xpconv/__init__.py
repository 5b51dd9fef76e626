"""Convolution, forward and backward, written once for every array library."""

from ._explain import Contraction, Explanation, explain
from ._functional import (
    ConvGradients,
    conv,
    conv_backward,
    conv_input_grad,
    conv_output_size,
    conv_weight_grad,
)
from ._layers import Conv, Conv1d, Conv2d, Conv3d
from ._options import options

__all__ = [
    "Contraction",
    "Conv",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvGradients",
    "Explanation",
    "__version__",
    "conv",
    "conv_backward",
    "conv_input_grad",
    "conv_output_size",
    "conv_weight_grad",
    "explain",
    "options",
]

__version__ = "0.1.0"
