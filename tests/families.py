"""The two families of functions, each beside torch's."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch

import xpconv

F = torch.nn.functional


class Family(NamedTuple):
    """The functions of one convolution, and torch's by the number of spatial axes."""

    forward: Any
    backward: Any
    jvp: Any
    double_backward: Any
    torchs: dict[int, Any]

    def __str__(self):
        return self.forward.__name__


CONV = Family(
    xpconv.conv,
    xpconv.conv_backward,
    xpconv.conv_jvp,
    xpconv.conv_double_backward,
    {1: F.conv1d, 2: F.conv2d, 3: F.conv3d},
)
TRANSPOSED = Family(
    xpconv.conv_transpose,
    xpconv.conv_transpose_backward,
    xpconv.conv_transpose_jvp,
    xpconv.conv_transpose_double_backward,
    {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d},
)
FAMILIES = pytest.mark.parametrize("family", [CONV, TRANSPOSED], ids=str)

# What torch imports for forward mode, it deprecates itself.
quiet_torch = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
