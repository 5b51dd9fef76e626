"""A plugin of pytest: autograd.scipy.signal.convolve by the primitive of the page."""

from __future__ import annotations

from math import prod

import autograd.numpy as np
import autograd.scipy.signal
from with_autograd import conv


def convolve(A, B, axes=None, dot_axes=((), ()), mode="full"):
    """Axes that are neither convolved nor summed are outputs, those of `A` first."""
    arrays, axes = (A, B), axes or (range(A.ndim), range(A.ndim))
    kept = [
        [axis for axis in range(array.ndim) if axis not in (*dot, *convolved)]
        for array, dot, convolved in zip(arrays, dot_axes, axes, strict=True)
    ]
    x, w = (
        np.reshape(
            np.transpose(array, (*own, *dot, *convolved)),
            (-1, prod(array.shape[axis] for axis in dot), *(array.shape[axis] for axis in convolved)),
        )
        for array, own, dot, convolved in zip(arrays, kept, dot_axes, axes, strict=True)
    )
    y = conv(x, w, padding={"same": "same_lower"}.get(mode, mode), flip=True)
    sizes = [array.shape[axis] for array, own in zip(arrays, kept, strict=True) for axis in own]
    return np.reshape(y, (*sizes, *y.shape[2:]))


autograd.scipy.signal.convolve = convolve
