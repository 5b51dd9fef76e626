"""Convolution, forward and backward, written once for every array library."""

from ._functional import (
    ConvGradients,
    conv,
    conv_backward,
    conv_input_grad,
    conv_output_size,
    conv_weight_grad,
)
from ._layers import Conv, Conv1d, Conv2d, Conv3d

__all__ = [
    "Conv",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvGradients",
    "__version__",
    "conv",
    "conv_backward",
    "conv_input_grad",
    "conv_output_size",
    "conv_weight_grad",
]

__version__ = "0.1.0"
