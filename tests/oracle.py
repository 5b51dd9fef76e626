"""The trilinear form as it is written, one product after the other in float64: no code is shared with xpconv."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np


class Sums(NamedTuple):
    y: np.ndarray
    dx: np.ndarray
    dw: np.ndarray
    db: np.ndarray


def contract(dy, x, w, bias=None, *, stride, lo, dilation, groups=1) -> Sums:
    """All contractions of T(dy, x, w) at once; stride, lo and dilation are one per axis, outside x all is zero."""
    wide = np.result_type(x.dtype, np.float64) if x.dtype.kind in "fc" else np.int64
    dy, x, w = (a.astype(wide) for a in (dy, x, w))
    y, dx, dw = np.zeros_like(dy), np.zeros_like(x), np.zeros_like(w)
    inputs, outputs = w.shape[1], w.shape[0] // groups
    for n, o in np.ndindex(dy.shape[:2]):
        group = o // outputs
        for j, c, t in product(np.ndindex(dy.shape[2:]), range(inputs), np.ndindex(w.shape[2:])):
            i = tuple(s * j_ + d * t_ - p for s, j_, d, t_, p in zip(stride, j, dilation, t, lo, strict=True))
            if all(0 <= i_ < size for i_, size in zip(i, x.shape[2:], strict=True)):
                at_y, at_x, at_w = (n, o, *j), (n, group * inputs + c, *i), (o, c, *t)
                y[at_y] += x[at_x] * w[at_w]
                dx[at_x] += dy[at_y] * np.conj(w[at_w])
                dw[at_w] += dy[at_y] * np.conj(x[at_x])
    if bias is not None:
        y = y + bias.astype(wide).reshape(-1, *(1,) * (y.ndim - 2))
    return Sums(y, dx, dw, dy.sum(axis=(0, *range(2, dy.ndim))))
