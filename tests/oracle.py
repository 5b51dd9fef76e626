"""The trilinear form as it is written, one product after the other in float64: no code is shared with xpconv."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np

PAD = {"reflect": "reflect", "replicate": "edge", "circular": "wrap", "symmetric": "symmetric"}  # what NumPy calls them


class Sums(NamedTuple):
    y: np.ndarray
    dx: np.ndarray
    dw: np.ndarray
    db: np.ndarray


def contract(
    dy, x, w, bias=None, *, stride, lo, dilation, groups=1, hi=None, modes=None, spread=None, flip=False, value=0
) -> Sums:
    """All contractions of T(dy, x, w) at once; stride, lo and so on are one per axis.

    Beyond x all is zero, or what `modes` say, then with as much after each axis as `hi` says; "constant" is `value`.
    Where x is spread, only every `spread`-th place is an input, the others are zero. With `flip`, all is said of the
    weight turned around.
    """
    taps = tuple(range(2, w.ndim))
    w = np.flip(w, taps) if flip else w
    wide = np.result_type(x.dtype, w.dtype, dy.dtype, np.float64) if x.dtype.kind in "fc" else np.int64
    x_complex, w_complex = x.dtype.kind == "c", w.dtype.kind == "c"
    dy, x, w = (a.astype(wide) for a in (dy, x, w))
    y, dx, dw = np.zeros_like(dy), np.zeros_like(x), np.zeros_like(w)
    inputs, outputs = w.shape[1], w.shape[0] // groups
    places = [
        _places(size, *rest)
        for size, *rest in zip(
            x.shape[2:], lo, hi or (0,) * len(lo), modes or ("zeros",) * len(lo), spread or (1,) * len(lo), strict=True
        )
    ]
    for n, o in np.ndindex(dy.shape[:2]):
        group = o // outputs
        for j, c, t in product(np.ndindex(dy.shape[2:]), range(inputs), np.ndindex(w.shape[2:])):
            i = tuple(at.get(s * j_ + d * t_) for at, s, j_, d, t_ in zip(places, stride, j, dilation, t, strict=True))
            at_y, at_x, at_w = (n, o, *j), (n, group * inputs + c, *i), (o, c, *t)
            if "constant" in i and None not in i:
                y[at_y] += value * w[at_w]
                dw[at_w] += dy[at_y] * np.conj(value)
            elif None not in i:
                y[at_y] += x[at_x] * w[at_w]
                dx[at_x] += dy[at_y] * np.conj(w[at_w])
                dw[at_w] += dy[at_y] * np.conj(x[at_x])
    if bias is not None:
        y = y + bias.astype(wide).reshape(-1, *(1,) * (y.ndim - 2))
    db = dy.sum(axis=(0, *range(2, dy.ndim)))
    dw = np.flip(dw, taps) if flip else dw
    return Sums(y, dx if x_complex else dx.real, dw if w_complex else dw.real, db)


def contract_transposed(dy, x, w, bias=None, **geometry) -> Sums:
    """The same of the transposed convolution.

    Its y is dx above, with x in the slot of dy, and its dx is y above. What is conjugated there is not here.
    """
    sums = contract(x, dy, np.conj(w), **geometry)
    y, dx = sums.dx, sums.y if x.dtype.kind == "c" else sums.y.real
    if bias is not None:
        y = y + bias.astype(y.dtype).reshape(-1, *(1,) * (y.ndim - 2))
    return Sums(y, dx, np.conj(sums.dw), dy.astype(y.dtype).sum(axis=(0, *range(2, dy.ndim))))


def _places(size, lo, hi, mode, spread):
    """Which input stands where on the padded axis."""
    if mode == "zeros":
        return {spread * i + lo: i for i in range(size)}
    assert spread == 1
    if mode == "constant":
        return {i + lo: i if 0 <= i < size else mode for i in range(-lo, size + hi)}
    cropped = np.arange(size)[max(-lo, 0) : size - max(-hi, 0)]
    before, after = (np.pad(np.arange(size), (max(lo, 0), max(hi, 0)), PAD[mode])[s] for s in _sides(lo, hi))
    return dict(enumerate([*before, *cropped, *after]))


def _sides(lo, hi):
    return slice(0, max(lo, 0)), slice(-hi if hi > 0 else 10**9, None)
